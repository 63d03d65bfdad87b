//! What the guard left beside a snapshot: findings that name it, and whether its node ids are comparable.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::heap::analysis::FindingFile;
use crate::heap::finding::node_ids_comparable;
use crate::report::{Identity, IdentityMode};

/// The guard's files are some kilobytes; more is none of its.
const MAX_BYTES: u64 = 16 << 20;

/// Findings in the snapshot's folder that name the snapshot in their evidence.
pub fn findings(snapshot: &Path) -> Vec<FindingFile> {
    json_beside(snapshot, "Finding.", ".json")
}

/// What the guard's files say about the ids of these snapshots; `None` when they do not say it of all.
///
/// Ids are comparable only within one thread of one process, which the file names tell.
pub fn stated_identity(snapshots: &[&Path]) -> Option<Identity> {
    let mut threads = Vec::new();
    for snapshot in snapshots {
        let name = snapshot.file_name()?.to_str()?;
        let mut notes = json_beside(snapshot, "Snapshot.", ".meta");
        notes.extend(findings(snapshot));
        let said = notes.iter().find_map(|(file, value)| {
            let evidence = value.get("evidence").and_then(Value::as_array).into_iter().flatten();
            let of_file = evidence.filter(|each| names(each, name)).find_map(node_ids_comparable);
            Some((file.clone(), of_file.or_else(|| node_ids_comparable(value))?))
        });
        match said {
            Some((file, false)) => {
                let reason = format!("{file} says that the node ids of {name} are not comparable");
                return Some(Identity { by: IdentityMode::Signatures, reason });
            }
            Some((_, true)) => threads.push(thread_of(name)?.to_owned()),
            None => return None,
        }
    }
    let same = threads.windows(2).all(|pair| pair[0] == pair[1]);
    same.then(|| Identity {
        by: IdentityMode::NodeIds,
        reason: format!(
            "the guard's files say so, and all are of process and thread {}",
            threads[0]
        ),
    })
}

/// `pid.tid` of `Heap.<yyyymmdd>.<hhmmss>.<pid>.<tid>.<seq>.heapsnapshot`.
fn thread_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("Heap.")?;
    let mut dots = rest.match_indices('.').map(|(at, _)| at);
    let (start, end) = (dots.nth(1)? + 1, dots.nth(1)?);
    rest.get(start..end)
}

fn json_beside(snapshot: &Path, prefix: &str, suffix: &str) -> Vec<FindingFile> {
    let folder = match snapshot.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Some(name) = snapshot.file_name().and_then(OsStr::to_str) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| file.starts_with(prefix) && file.ends_with(suffix))
        .collect();
    files.sort_unstable();
    let read = files.into_iter().filter_map(|file| {
        let mut text = String::new();
        File::open(folder.join(&file)).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        Some((file, value))
    });
    read.filter(|(file, value)| belongs(file, value, name)).collect()
}

/// A finding belongs to the snapshots in its evidence, a note to the one it shares its name with or names.
fn belongs(file: &str, value: &Value, name: &str) -> bool {
    let evidence = value.get("evidence").and_then(Value::as_array).into_iter().flatten();
    let mut named = evidence.chain(std::iter::once(value));
    let middle = |file: &str| -> Option<String> {
        let rest = file.split_once('.')?.1;
        Some(rest.split('.').take(5).collect::<Vec<_>>().join("."))
    };
    named.any(|each| names(each, name))
        || (file.starts_with("Snapshot.") && middle(file) == middle(name))
}

/// True when `file` of this entry is the snapshot, with or without a folder.
fn names(entry: &Value, name: &str) -> bool {
    let file = entry.get("file").and_then(Value::as_str);
    file.is_some_and(|file| Path::new(file).file_name().and_then(OsStr::to_str) == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_and_thread_are_read_from_the_name() {
        assert_eq!(thread_of("Heap.20250102.030405.77.1.002.heapsnapshot"), Some("77.1"));
        assert_eq!(thread_of("heap.heapsnapshot"), None);
    }

    #[test]
    fn ids_are_comparable_only_when_the_guard_says_so_of_one_thread() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let file =
            |seq: &str, pid: &str| format!("Heap.20250102.030405.{pid}.0.{seq}.heapsnapshot");
        let meta = |seq: &str, pid: &str, ids: &str| {
            write(
                &format!("Snapshot.20250102.030405.{pid}.0.{seq}.meta"),
                &format!(r#"{{"nodeIds":"{ids}"}}"#),
            );
        };
        meta("001", "5", "comparable");
        meta("002", "5", "comparable");
        meta("003", "6", "comparable");
        meta("004", "5", "not");
        let mode = |names: &[String]| {
            let paths: Vec<_> = names.iter().map(|name| folder.path().join(name)).collect();
            let paths: Vec<&Path> = paths.iter().map(std::path::PathBuf::as_path).collect();
            stated_identity(&paths).map(|identity| identity.by)
        };
        assert_eq!(mode(&[file("001", "5"), file("002", "5")]), Some(IdentityMode::NodeIds));
        assert_eq!(mode(&[file("001", "5"), file("003", "6")]), None);
        assert_eq!(mode(&[file("001", "5"), file("004", "5")]), Some(IdentityMode::Signatures));
        assert_eq!(mode(&[file("001", "5"), file("009", "5")]), None);
    }

    #[test]
    fn a_finding_belongs_to_the_snapshot_that_its_evidence_names() {
        let folder = tempfile::tempdir().unwrap();
        let finding = r#"{"kind":"finding","evidence":[{"kind":"snapshot","file":"/x/Heap.1.2.3.4.5.heapsnapshot"}]}"#;
        std::fs::write(folder.path().join("Finding.1.2.3.4.5.json"), finding).unwrap();
        assert_eq!(findings(&folder.path().join("Heap.1.2.3.4.5.heapsnapshot")).len(), 1);
        assert_eq!(findings(&folder.path().join("Heap.1.2.3.4.6.heapsnapshot")).len(), 0);
    }
}
