//! Pages of files that stay mapped though nobody needs them again, and giving them back. The kernel maps sixteen pages
//! around each one that is touched: start-up, a finding or an analysis leave code and constants of this library
//! resident that no tick needs, and Node-API's look-up of its functions by name leaves 2 MB of the names of Node's
//! symbols. The mapping of these pages is dropped, nothing else: not what was written to (relocations, statics),
//! not a page of Node's that was there before this library, and not the page cache, from which what is needed comes
//! back with the next use.

#![allow(unsafe_code)]

/// Takes such pages off the resident set; what is used next is mapped again, some 0.5 us for 64 KB. For the end of
/// start-up and of steps that run much code once. Returns the bytes looked at; zero where the platform has no way.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub fn release() -> usize {
    use std::sync::OnceLock;

    static OWN: OnceLock<Vec<linux::Pages>> = OnceLock::new();
    let own = OWN.get_or_init(linux::own_never_written);
    // Names are looked up at start only.
    let names = linux::NAMES.lock().take().unwrap_or_default();
    own.iter().chain(&names).filter_map(linux::drop_mapping).sum()
}

/// Nothing: these platforms have no way, or another one.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub fn release() -> usize {
    0
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod linux {
    use std::ffi::{c_int, c_void};
    use std::fs::File;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;

    use parking_lot::Mutex;

    /// Addresses of whole pages within one segment.
    pub type Pages = Range<usize>;

    /// Entries of `PT_DYNAMIC` (elf.h).
    const DT_NULL: u64 = 0;
    const DT_STRTAB: u64 = 5;
    const DT_STRSZ: u64 = 10;

    /// Names of Node's symbols that were not resident when this library was loaded.
    pub static NAMES: Mutex<Option<Vec<Pages>>> = Mutex::new(None);

    /// Runs when the library is loaded: before `napi` looks Node-API's functions up, all 150 of them.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static AT_LOAD: extern "C" fn() = {
        extern "C" fn at_load() {
            *NAMES.lock() = absent_names();
        }
        at_load
    };

    /// One object that is loaded.
    struct Object {
        /// Never written: loaded from its file and not writable. What is relocated lies in writable segments, also
        /// where it is made read-only afterwards (`PT_GNU_RELRO`).
        segments: Vec<Range<usize>>,
        /// The strings of its symbol table.
        names: Option<Range<usize>>,
    }

    struct Search {
        /// An address in the object that is looked for.
        here: usize,
        found: Option<Object>,
    }

    fn object_of(here: usize) -> Option<Object> {
        let mut search = Search { here, found: None };
        // SAFETY: `visit` has the prototype that dl_iterate_phdr asks for, and the pointer is that of a live local,
        // which nothing else uses during the call.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast::<c_void>()) };
        search.found
    }

    unsafe extern "C" fn visit(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes a valid record and the pointer that `object_of` gave.
        let (object, search) = unsafe { (&*object, &mut *search.cast::<Search>()) };
        if object.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the loader keeps so many program headers there as long as the object is loaded, and it holds its lock.
        let headers =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
        let range = |header: &libc::Elf64_Phdr| -> Option<Range<usize>> {
            let begin = usize::try_from(object.dlpi_addr.checked_add(header.p_vaddr)?).ok()?;
            Some(begin..begin.checked_add(usize::try_from(header.p_filesz).ok()?)?)
        };
        let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        if !loaded().filter_map(range).any(|range| range.contains(&search.here)) {
            return 0;
        }
        let segments: Vec<_> =
            loaded().filter(|header| header.p_flags & libc::PF_W == 0).filter_map(range).collect();
        let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC);
        let names = dynamic.and_then(range).and_then(|dynamic| {
            let entries = (dynamic.end - dynamic.start) / size_of::<[u64; 2]>();
            // SAFETY: the loader has mapped the dynamic section there, aligned pairs of tag and value, for as long
            // as the object is loaded.
            let entries =
                unsafe { std::slice::from_raw_parts(dynamic.start as *const [u64; 2], entries) };
            let entry = |wanted| {
                let mut known = entries.iter().take_while(|[tag, _]| *tag != DT_NULL);
                known.find(|[tag, _]| *tag == wanted).map(|[_, value]| *value)
            };
            let length = usize::try_from(entry(DT_STRSZ)?).ok()?;
            let written = entry(DT_STRTAB)?;
            // glibc has put the address in its place, musl has left it relative to the object.
            [Some(written), written.checked_add(object.dlpi_addr)].into_iter().find_map(|begin| {
                let begin = usize::try_from(begin?).ok()?;
                let names = begin..begin.checked_add(length)?;
                let within = |one: &Range<usize>| one.start <= names.start && names.end <= one.end;
                segments.iter().any(within).then_some(names)
            })
        });
        search.found = Some(Object { segments, names });
        1
    }

    /// The whole pages of a range: one at its edge may be shared with what is written.
    fn inwards(range: &Range<usize>) -> Option<Pages> {
        let page = rustix::param::page_size();
        let pages = range.start.checked_next_multiple_of(page)?..range.end - range.end % page;
        (!pages.is_empty()).then_some(pages)
    }

    /// The segments of this library that are never written. It has no relocations in its text (`DT_TEXTREL`): Rust's
    /// code is position-independent.
    pub fn own_never_written() -> Vec<Pages> {
        let here: fn() -> Vec<Pages> = own_never_written;
        let own = object_of(here as usize);
        own.map_or_else(Vec::new, |own| own.segments.iter().filter_map(inwards).collect())
    }

    /// The names of the symbols of Node as far as they are not resident now; `None` if that cannot be known.
    pub fn absent_names() -> Option<Vec<Pages>> {
        // SAFETY: dlsym takes any terminated string; RTLD_DEFAULT searches what is loaded and loads nothing.
        let node = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"napi_module_register".as_ptr()) };
        if node.is_null() {
            return None;
        }
        absent(&inwards(&object_of(node as usize)?.names?)?)
    }

    /// Runs of pages that are not mapped now. Linux: /proc/self/pagemap has 64 bits a page, the highest says that it
    /// is present (Documentation/admin-guide/mm/pagemap.rst).
    pub fn absent(pages: &Pages) -> Option<Vec<Pages>> {
        const PRESENT: u64 = 1 << 63;
        const ENTRY: usize = size_of::<u64>();
        let page = rustix::param::page_size();
        let mut entries = vec![0; (pages.end - pages.start) / page * ENTRY];
        let from = u64::try_from(pages.start / page * ENTRY).ok()?;
        File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut entries, from).ok()?;
        let (entries, _) = entries.as_chunks::<ENTRY>();
        let mut runs: Vec<Pages> = Vec::new();
        for (at, entry) in (pages.start..).step_by(page).zip(entries) {
            if u64::from_ne_bytes(*entry) & PRESENT != 0 {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == at => run.end = at + page,
                _ => runs.push(at..at + page),
            }
        }
        Some(runs)
    }

    /// Bytes that were let go; `None` if the kernel refuses (pages that the app has locked).
    pub fn drop_mapping(pages: &Pages) -> Option<usize> {
        let length = pages.end - pages.start;
        // SAFETY: the pages belong to this library, which `v8::pin_library` keeps loaded, or to Node, and to a private
        // mapping of its file that nobody may write: dropped, they are read from the file again with the same
        // content, also by a thread that executes them now.
        let done =
            unsafe { libc::madvise(pages.start as *mut c_void, length, libc::MADV_DONTNEED) };
        (done == 0).then_some(length)
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// Reads a byte of every page.
    fn touch(pages: &[linux::Pages]) -> u64 {
        let addresses = pages.iter().flat_map(|one| one.clone().step_by(4096));
        // SAFETY: bytes that are mapped and readable as long as this object is loaded.
        addresses.map(|address| u64::from(unsafe { (address as *const u8).read_volatile() })).sum()
    }

    fn absent(pages: &[linux::Pages]) -> usize {
        let runs = pages.iter().flat_map(|one| linux::absent(one).unwrap());
        runs.map(|run| run.len()).sum()
    }

    #[test]
    fn code_that_was_touched_is_resident_no_more_and_still_runs() {
        let own = linux::own_never_written();
        let whole: usize = own.iter().map(|one| one.len()).sum();
        assert!(whole > 1 << 20, "{own:x?}");
        let here: fn() -> usize = release;
        assert!(own.iter().any(|one| one.contains(&(here as usize))), "{own:x?}");

        let sum = touch(&own);
        assert_eq!(absent(&own), 0);
        assert_eq!(release(), whole);
        let gone = absent(&own);
        assert!(gone > whole / 2, "{gone} of {whole}");
        assert_eq!(touch(&own), sum);
    }

    #[test]
    fn what_is_relocated_or_written_is_in_no_such_segment() {
        static WRITTEN: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
        static RELOCATED: &[fn() -> usize] = &[release];
        let own = linux::own_never_written();
        for address in [WRITTEN.as_ptr() as usize, RELOCATED.as_ptr() as usize] {
            assert!(!own.iter().any(|one| one.contains(&address)), "{address:x} in {own:x?}");
        }
    }
}
