//! Linux: what the descriptors and threads are, for the report of a finding. Not for the tick: it costs
//! microseconds per descriptor.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{FdKind, own, procfs};

/// Descriptors looked at. Beyond this many more examples tell nothing new, and the call stays below a second.
const MAX_FDS: usize = 100_000;
/// Threads looked at.
const MAX_THREADS: usize = 10_000;
/// Examples per kind.
const MAX_EXAMPLES: usize = 5;
/// Text of the tables of sockets that is read: some 50,000 sockets.
const MAX_TABLE_BYTES: u64 = 8 << 20;

/// See [`super::fds_by_kind`].
pub fn fds_by_kind() -> Vec<FdKind> {
    let own = own::fd_numbers();
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut links = Vec::new();
    for entry in entries.flatten().take(MAX_FDS) {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if number.is_some_and(|number| own.contains(&number)) {
            continue;
        }
        // Gone since it was listed, like the descriptor of the listing itself after it.
        let Ok(link) = std::fs::read_link(entry.path()) else { continue };
        links.push(link.to_string_lossy().into_owned());
    }
    // The listing's own descriptor shows as this directory.
    let listing = format!("/proc/{}/fd", std::process::id());
    if let Some(at) = links.iter().position(|link| *link == listing) {
        links.swap_remove(at);
    }

    let inodes: FxHashSet<u64> = links.iter().filter_map(|link| socket_inode(link)).collect();
    let sockets = if inodes.is_empty() { FxHashMap::default() } else { tcp_sockets(&inodes) };
    tally(&links, &sockets)
}

/// See [`super::threads_by_name`].
pub fn threads_by_name() -> Vec<(String, u64)> {
    let own = own::with_threads(|threads, _| threads.to_vec());
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let mut names = FxHashMap::default();
    for task in tasks.flatten().take(MAX_THREADS) {
        let id = task.file_name().to_str().and_then(|name| name.parse().ok());
        if id.is_some_and(|id| own.contains(&super::ThreadId(id))) {
            continue;
        }
        let Ok(name) = std::fs::read(task.path().join("comm")) else { continue };
        *names.entry(String::from_utf8_lossy(name.trim_ascii_end()).into_owned()).or_default() += 1;
    }
    most_frequent(names)
}

fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// What the TCP sockets of these inodes are, in words.
fn tcp_sockets(inodes: &FxHashSet<u64>) -> FxHashMap<u64, String> {
    let mut sockets = Vec::new();
    let mut listening = FxHashSet::default();
    // self/net: the network namespace of this process, whatever /proc/net points to.
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let Ok(file) = File::open(table) else { continue };
        for line in BufReader::new(file.take(MAX_TABLE_BYTES)).lines() {
            let Ok(line) = line else { break };
            let Some(socket) = procfs::tcp_socket(&line) else { continue };
            if socket.state == "LISTEN" {
                listening.insert(socket.local_port);
            }
            if inodes.contains(&socket.inode) {
                sockets.push(socket);
            }
        }
    }
    sockets.into_iter().map(|socket| (socket.inode, in_words(&socket, &listening))).collect()
}

/// The port of a client differs for each connection, so connections to our server go by our port.
fn in_words(socket: &procfs::TcpSocket, listening: &FxHashSet<u16>) -> String {
    let procfs::TcpSocket { local_port, remote, state, .. } = socket;
    match *state {
        "LISTEN" => format!("listening on :{local_port}"),
        _ if listening.contains(local_port) => format!("client of :{local_port} {state}"),
        _ => format!("to {remote} {state}"),
    }
}

/// Kinds with their counts and examples, from the link texts.
fn tally(links: &[String], sockets: &FxHashMap<u64, String>) -> Vec<FdKind> {
    let mut kinds: FxHashMap<String, FxHashMap<String, u64>> = FxHashMap::default();
    let mut counts: FxHashMap<String, u64> = FxHashMap::default();
    for link in links {
        let (kind, example) = if let Some(inode) = socket_inode(link) {
            match sockets.get(&inode) {
                Some(words) => ("tcp", Some(words.clone())),
                None => ("socket", None),
            }
        } else if link.starts_with('/') {
            ("file", Some(link.clone()))
        } else if link.starts_with("anon_inode:") {
            (link.as_str(), None)
        } else {
            // pipe:[123], and whatever other pseudo file system names its inodes that way.
            (link.split(':').next().unwrap_or(link), None)
        };
        *counts.entry(kind.to_owned()).or_default() += 1;
        if let Some(example) = example {
            *kinds.entry(kind.to_owned()).or_default().entry(example).or_default() += 1;
        }
    }
    most_frequent(counts)
        .into_iter()
        .map(|(kind, count)| {
            let mut examples = most_frequent(kinds.remove(&kind).unwrap_or_default());
            examples.truncate(MAX_EXAMPLES);
            FdKind { kind, count, examples }
        })
        .collect()
}

/// Most frequent first; equal ones by name, so that two reports of one state are the same.
fn most_frequent(counts: FxHashMap<String, u64>) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_tallied_by_kind() {
        let links = [
            "/var/log/a",
            "/var/log/b",
            "/var/log/b",
            "/tmp/x (deleted)",
            "socket:[1]",
            "socket:[2]",
            "socket:[3]",
            "socket:[4]",
            "socket:[5]",
            "pipe:[9]",
            "anon_inode:[eventpoll]",
            "",
        ]
        .map(str::to_owned);
        let sockets = [
            (1, "to 10.0.0.5:5432 ESTABLISHED"),
            (2, "to 10.0.0.5:5432 ESTABLISHED"),
            (3, "listening on :80"),
        ]
        .map(|(inode, words)| (inode, words.to_owned()))
        .into_iter()
        .collect();
        let kind = |kind: &str, count, examples: &[(&str, u64)]| FdKind {
            kind: kind.to_owned(),
            count,
            examples: examples.iter().map(|(text, count)| (text.to_string(), *count)).collect(),
        };
        assert_eq!(
            tally(&links, &sockets),
            [
                kind("file", 4, &[("/var/log/b", 2), ("/tmp/x (deleted)", 1), ("/var/log/a", 1)]),
                kind("tcp", 3, &[("to 10.0.0.5:5432 ESTABLISHED", 2), ("listening on :80", 1)]),
                kind("socket", 2, &[]),
                kind("", 1, &[]),
                kind("anon_inode:[eventpoll]", 1, &[]),
                kind("pipe", 1, &[]),
            ]
        );
    }

    #[test]
    fn examples_are_bounded() {
        let links: Vec<_> = (0..100).map(|n| format!("/file/{n}")).collect();
        let kinds = tally(&links, &FxHashMap::default());
        assert_eq!((kinds[0].count, kinds[0].examples.len()), (100, MAX_EXAMPLES));
    }

    #[test]
    fn real_connections_are_named_by_their_ends() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let clients: Vec<_> = (0..40)
            .map(|_| {
                let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                (client, server.accept().unwrap())
            })
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leaked");
        let files: Vec<_> = (0..60).map(|_| File::create(&path).unwrap()).collect();

        let kinds = fds_by_kind();
        let example = |kind: &str, text: &str| {
            let kind = kinds.iter().find(|found| found.kind == kind)?;
            Some(kind.examples.iter().find(|(example, _)| example == text)?.1)
        };
        let to = format!("to 127.0.0.1:{port} ESTABLISHED");
        assert_eq!(example("tcp", &to), Some(40), "{kinds:?}");
        assert_eq!(example("tcp", &format!("client of :{port} ESTABLISHED")), Some(40));
        assert_eq!(example("file", path.to_str().unwrap()), Some(60));
        drop((clients, files));
    }

    #[test]
    fn the_guards_own_files_are_not_listed() {
        use std::os::fd::AsRawFd;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("own");
        let files: Vec<_> = (0..60)
            .map(|_| {
                let file = File::create(&path).unwrap();
                let own = own::numbered_fd(file.as_raw_fd());
                (file, own)
            })
            .collect();
        let listed = |kinds: &[FdKind]| {
            kinds
                .iter()
                .flat_map(|kind| &kind.examples)
                .any(|(text, _)| text == path.to_str().unwrap())
        };
        assert!(!listed(&fds_by_kind()));
        // The numbers are free again once dropped: the same files unregistered are listed.
        let (files, owns): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        drop(owns);
        assert!(listed(&fds_by_kind()));
        drop(files);
    }

    #[test]
    fn threads_are_counted_by_name() {
        let wait = std::sync::Barrier::new(5);
        let (started, done) = (&wait, std::sync::Barrier::new(5));
        std::thread::scope(|scope| {
            for at in 0..4 {
                let done = &done;
                let body = move || {
                    let _own = (at == 0).then(own::thread);
                    started.wait();
                    done.wait();
                };
                std::thread::Builder::new()
                    .name("counted".into())
                    .spawn_scoped(scope, body)
                    .unwrap();
            }
            started.wait();
            let names = threads_by_name();
            done.wait();
            assert!(names.contains(&("counted".to_owned(), 3)), "{names:?}");
        });
    }
}
