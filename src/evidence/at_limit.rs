//! The allocation profile that Node itself writes when V8 reaches its heap limit (Node 26,
//! `v8.setHeapProfileNearHeapLimit`). Node puts it into its diagnostic directory under a name of its own; here it is
//! found, looked at, and brought into the evidence directory, within the quota, so that no file is left where nobody
//! expects one. It does not decide whether Node is asked for one (see `near_end::profile_fits`).

use std::io::Read;
use std::path::{Path, PathBuf};

use super::name::{EvidenceName, Kind, WallMillis};
use super::store::Store;

/// A profile is some KB for each distinct stack; a larger file is left where it is.
const MAX_BYTES: u64 = 64 << 20;

/// The profile that Node wrote for process `pid` into `directory` at `since` or later. Another directory than that of
/// the evidence, where profiles of the guard's own lie.
pub fn find(directory: &Path, pid: u32, since: WallMillis) -> Option<PathBuf> {
    std::fs::read_dir(directory).ok()?.filter_map(Result::ok).find_map(|entry| {
        let name = entry.file_name();
        // Heap.<yyyymmdd>.<hhmmss>.<pid>.<tid>.<seq>.heapprofile, which is our scheme too.
        let name = EvidenceName::parse(name.to_str()?)?;
        let wanted = name.kind() == Kind::Profile && name.pid() == Some(pid);
        // Of the entry itself: a link is not followed.
        let metadata = entry.metadata().ok().filter(|metadata| wanted && metadata.is_file())?;
        // File times are coarser than clocks.
        let written = WallMillis::from(metadata.modified().ok()?);
        (written.0 + 1000 >= since.0).then(|| entry.path())
    })
}

/// Brings the profile into the store and removes it where it was.
///
/// # Errors
/// One sentence, when it cannot be read, is not whole yet, or has no room; the file stays where it is then.
pub fn take(
    store: &Store,
    path: &Path,
    now: WallMillis,
    tid: u64,
) -> Result<(EvidenceName, u64), String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
        .map_err(|error| format!("it is not whole: {error}"))?;
    let name =
        store.write_new(Kind::Profile, now, tid, &bytes).map_err(|error| error.to_string())?;
    // What cannot be removed is there twice, which loses nothing.
    let _ = std::fs::remove_file(path);
    Ok((name, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::StoreOptions;

    #[test]
    fn a_whole_profile_of_this_process_is_brought_in_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = home.path().join("app");
        std::fs::create_dir(&elsewhere).unwrap();
        let store = Store::open(&StoreOptions {
            dir: home.path().join("evidence"),
            max_disk_bytes: 1 << 20,
            temp_dir: home.path().to_owned(),
        })
        .unwrap();
        let write = |pid: u32, text: &str| {
            let name = format!("Heap.20260101.140210.{pid}.0.001.heapprofile");
            std::fs::write(elsewhere.join(&name), text).unwrap();
            elsewhere.join(name)
        };
        write(7, "{}");
        std::fs::write(elsewhere.join("Heap.heapprofile"), "{}").unwrap();
        let find = |pid| find(&elsewhere, pid, WallMillis(0));
        assert_eq!(find(42), None);

        let path = write(42, r#"{"head":{"#);
        assert_eq!(find(42), Some(path.clone()));
        let future = WallMillis(WallMillis::now().0 + 60_000);
        assert_eq!(super::find(&elsewhere, 42, future), None);
        let cut = take(&store, &path, WallMillis(0), 0).unwrap_err();
        assert!(cut.starts_with("it is not whole") && path.exists(), "{cut}");

        write(42, r#"{"head":{}}"#);
        let (name, bytes) = take(&store, &path, WallMillis(0), 0).unwrap();
        assert_eq!((name.kind(), bytes), (Kind::Profile, 11));
        assert_eq!(std::fs::read(store.path_of(&name)).unwrap(), br#"{"head":{}}"#);
        assert!(!path.exists());
    }
}
