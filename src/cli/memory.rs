//! What reading a snapshot will take, and what the machine or container has left.

use std::path::Path;

use crate::heap::{Error, file, parse};

/// Bytes of the text in which the header must lie.
const HEAD_BYTES: u64 = 1 << 20;
/// Anonymous memory at the peak, for each node: columns 17, retainers and dominators 16, sizes and distance 20, dominator
/// tree downwards, classes and groups 21.
const BYTES_PER_NODE: u64 = 74;
/// For each edge: columns 9, retainers 4, essential bit.
const BYTES_PER_EDGE: u64 = 14;
/// For each byte of the text, the places of strings.
const STRING_TABLE_SHARE: u64 = 10;
/// What the program itself takes.
const BASE_BYTES: u64 = 32 << 20;
/// How much larger a text is than its compressed file, at most by experience; the text itself is then kept too.
const COMPRESSION: u64 = 14;

/// Anonymous memory that reading and analysing a file takes at its peak, in bytes.
///
/// # Errors
/// When the file cannot be read.
pub fn predicted(path: &Path) -> Result<u64, Error> {
    let size = std::fs::metadata(path)
        .map_err(|source| Error::Io { file: path.to_path_buf(), source })?
        .len();
    let head = file::head(path, HEAD_BYTES)?;
    let compressed = !head.starts_with(b"{") || {
        let plain = std::fs::File::open(path).and_then(|mut opened| {
            let mut first = [0; 1];
            std::io::Read::read_exact(&mut opened, &mut first).map(|()| first[0])
        });
        plain.ok() != Some(b'{') && head.starts_with(b"{")
    };
    let text = if compressed { size.saturating_mul(COMPRESSION) } else { size };
    // A header may promise anything; the text holds no more than this.
    let (nodes, edges) = parse::declared(&head).unwrap_or((0, 0));
    let nodes = nodes.min(text / 12);
    let edges = edges.min(text / 6);
    let columns =
        nodes.saturating_mul(BYTES_PER_NODE).saturating_add(edges.saturating_mul(BYTES_PER_EDGE));
    let kept_text = if compressed { text } else { 0 };
    Ok(BASE_BYTES + columns + text / STRING_TABLE_SHARE + kept_text)
}

/// Bytes that can still be taken: the least of what the machine and each memory cgroup have left. `None` where the
/// platform does not tell.
pub fn available() -> Option<u64> {
    let machine =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let cgroup =
        std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| cgroup_left(&text));
    [machine, cgroup].into_iter().flatten().min()
}

/// `MemAvailable` of /proc/meminfo.
fn mem_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the memory cgroup of this process has left, v2 or v1.
fn cgroup_left(text: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            if controllers.is_empty() {
                left("/sys/fs/cgroup", path, "memory.max", "memory.current")
            } else if controllers.split(',').any(|each| each == "memory") {
                let root = "/sys/fs/cgroup/memory";
                left(root, path, "memory.limit_in_bytes", "memory.usage_in_bytes")
            } else {
                None
            }
        })
        .min()
}

/// Limit minus usage; a container sees its own cgroup at the root.
fn left(root: &str, path: &str, limit: &str, usage: &str) -> Option<u64> {
    [format!("{root}{path}"), root.to_owned()].iter().find_map(|folder| {
        let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).ok();
        let limit: u64 = read(limit)?.trim().parse().ok()?;
        let usage: u64 = read(usage)?.trim().parse().ok()?;
        Some(limit.saturating_sub(usage))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_meminfo() {
        assert_eq!(mem_available("MemTotal: 8 kB\nMemAvailable:     2048 kB\n"), Some(2 << 20));
        assert_eq!(mem_available("MemTotal: 8 kB\n"), None);
    }
}
