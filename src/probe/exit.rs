//! Being told that the process ends in order, without a listener on `process`: the C library's exit handlers.
//!
//! Node reaches `exit(3)` at its natural end, by `process.exit()` and after an uncaught exception. A signal's
//! default action, `abort`, V8's fatal out-of-memory and the OOM killer do not come here: that is what
//! tells them apart. glibc's `on_exit` also gives the exit code; elsewhere it is not known. Windows runs the
//! handlers of a library when that is unloaded, with all other threads gone: nothing is registered there.

#![allow(unsafe_code)]

use std::sync::OnceLock;

/// What is called at exit, with the exit code where the C library gives it (0 to 255).
pub type AtExit = fn(Option<i32>);

static HANDLER: OnceLock<AtExit> = OnceLock::new();

/// Has `handler` called once when the process ends in order, on the thread that ends it; only the first
/// handler of a process counts. Returns whether it will be called. The library must stay loaded
/// (`v8::pin_library`). The handler must not wait for long: the app waits with it.
pub fn at_exit(handler: AtExit) -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let _ = HANDLER.set(handler);
    *REGISTERED.get_or_init(register)
}

#[cfg(unix)]
fn register() -> bool {
    use std::ffi::{c_int, c_void};

    type OnExit = unsafe extern "C" fn(extern "C" fn(c_int, *mut c_void), *mut c_void) -> c_int;

    extern "C" fn with_code(status: c_int, _argument: *mut c_void) {
        call(Some(status & 0xff));
    }
    extern "C" fn without_code() {
        call(None);
    }

    // SAFETY: dlsym takes any terminated string; RTLD_DEFAULT searches what is loaded and loads nothing.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"on_exit".as_ptr()) };
    if cfg!(target_os = "linux") && !address.is_null() {
        // SAFETY: on Linux only glibc has a symbol of this name, and this is its prototype (stdlib.h):
        // int on_exit(void (*)(int, void *), void *).
        let on_exit = unsafe { std::mem::transmute::<*mut c_void, OnExit>(address) };
        // SAFETY: the function outlives the registration, because the library is pinned; its argument is
        // not used.
        return unsafe { on_exit(with_code, std::ptr::null_mut()) } == 0;
    }
    // SAFETY: as above; atexit takes a function without arguments.
    unsafe { libc::atexit(without_code) == 0 }
}

#[cfg(not(unix))]
fn register() -> bool {
    false
}

#[cfg(unix)]
fn call(code: Option<i32>) {
    if let Some(handler) = HANDLER.get() {
        // A panic must not cross into C: it would abort, and change the exit code.
        let _ = std::panic::catch_unwind(|| handler(code));
    }
}
