//! The command line as one native call.

use napi_derive::napi;

use super::guard::GivenSetting;
use crate::doctor::Runtime;
use crate::readings::external_room_bytes;
use crate::sampler::Ways;
use crate::v8::{Epilogue, Gc};

/// What JavaScript knows of the process that the command line runs in.
#[napi(object)]
pub struct CliProcess {
    /// `process.version`
    pub node: String,
    /// `process.versions.v8`
    pub v8: String,
    /// `linux-x64`
    pub platform: String,
    /// Version of leakguard.
    pub leakguard: String,
    /// `heap_size_limit` of `v8.getHeapStatistics()`.
    pub heap_size_limit: f64,
    /// `LEAKGUARD*` variables.
    pub settings: Vec<GivenSetting>,
    /// Whether `gc()` could be obtained.
    pub can_force_gc: bool,
    /// Whether a `major` GC can be observed with a PerformanceObserver.
    pub can_observe_gc: bool,
    /// Names of the signals.
    pub signals: Vec<String>,
}

/// Runs the command line on this process' stdout and stderr and returns its exit code.
#[napi(js_name = "cli")]
pub fn run_cli(args: Vec<String>, process: Option<CliProcess>) -> i32 {
    let runtime = process.map_or_else(Runtime::default, runtime);
    crate::cli::run(&args, runtime, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())
}

fn runtime(process: CliProcess) -> Runtime {
    let mut gc = Gc::current();
    let ways = Ways {
        external: external_room_bytes(process.heap_size_limit, &process.v8).is_some(),
        pressure: gc.is_some() && Gc::can_start_major(),
        force: process.can_force_gc,
        observe: process.can_observe_gc,
    };
    // Whether it would work is all that is asked; the callbacks go when `gc` is dropped.
    let epilogue =
        gc.as_mut().map_or(Epilogue::Off("V8's symbols were not found in this binary"), |gc| {
            gc.observe(Box::new(|_| {}), Box::new(|| {}))
        });
    Runtime {
        node: process.node,
        v8: process.v8,
        platform: process.platform,
        leakguard: process.leakguard,
        heap_limit_bytes: process.heap_size_limit,
        given: super::guard::given(process.settings),
        ways,
        epilogue,
        signals: process.signals,
    }
}
