//! The memory cgroup of this process: use, limit, pressure; version 1, 2 and the mix of both.
//!
//! [`locate`] decides from `/proc/self/cgroup` and `/proc/self/mountinfo` which directory it is; [`Cgroup`]
//! keeps the files open and reads them. It follows the process when that is moved, and takes the lowest limit
//! of all ancestors up to the root of the mount: inside a container that root is the container. Swap and
//! `memory.high` are not looked at.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::kept::{BUFFER_BYTES, KeptFile};
use super::procfs::{decimal, flat_value, pressure_some_avg10};

/// Readings between two looks at where the process is. A move is rare and a failing read is acted on at once,
/// so this only bounds how long a moved process is read at its old place.
const READINGS_PER_LOOK: u32 = 60;

/// Limits from here on mean none: version 1 writes 2^63 less a page for "no limit".
const NO_LIMIT: u64 = 1 << 62;

/// Deepest ancestry looked at. Kubernetes with systemd has six.
const MAX_LEVELS: usize = 32;

/// Which hierarchy the memory controller is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `memory.usage_in_bytes` and so on.
    V1,
    /// `memory.current` and so on.
    V2,
}

/// Where the memory cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Hierarchy of the memory controller.
    pub version: Version,
    /// Where that hierarchy is mounted.
    pub mount_point: PathBuf,
    /// The cgroup below it; empty for the root of the mount.
    pub relative: PathBuf,
}

/// Finds the memory cgroup from the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
///
/// `None` if no memory controller is mounted. A path that cannot be under the mount (a container that has its
/// cgroup mounted as root, or one seen from another cgroup namespace) is taken as the root of the mount.
pub fn locate(cgroup: &[u8], mountinfo: &[u8]) -> Option<Location> {
    let mut v1_path = None;
    let mut v2_path = None;
    for line in cgroup.split(|&b| b == b'\n') {
        // id:controllers:path; the path may hold colons.
        let mut fields = line.splitn(3, |&b| b == b':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if id == b"0" && controllers.is_empty() {
            v2_path = Some(path);
        } else if controllers.split(|&b| b == b',').any(|name| name == b"memory") {
            v1_path = Some(path);
        }
    }

    let mut v2_mount = None;
    for line in mountinfo.split(|&b| b == b'\n') {
        let Some(mount) = Mount::parse(line) else { continue };
        match (mount.kind, v1_path) {
            (b"cgroup", Some(path)) if mount.has_memory() => {
                // Version 1 wins: the memory controller is in one hierarchy only.
                return Some(mount.location(Version::V1, path));
            }
            // The first is the one that matters; later ones are bind mounts of other tools.
            (b"cgroup2", _) if v2_mount.is_none() => v2_mount = Some(mount),
            _ => {}
        }
    }
    if v1_path.is_some() {
        // The memory controller is in version 1 and that is not mounted here: version 2 knows nothing of it.
        return None;
    }
    Some(v2_mount?.location(Version::V2, v2_path?))
}

/// One line of mountinfo: `id parent major:minor root mount-point options [optional...] - type source super-options`.
struct Mount<'a> {
    root: &'a [u8],
    mount_point: &'a [u8],
    kind: &'a [u8],
    super_options: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.split(|&b| b == b' ');
        let root = words.nth(3)?;
        let mount_point = words.next()?;
        words.by_ref().find(|&word| word == b"-")?;
        let kind = words.next()?;
        let super_options = words.nth(1)?;
        Some(Mount { root, mount_point, kind, super_options })
    }

    fn has_memory(&self) -> bool {
        self.super_options.split(|&b| b == b',').any(|option| option == b"memory")
    }

    fn location(&self, version: Version, cgroup: &[u8]) -> Location {
        let root = unescape(self.root);
        let cgroup = Path::new(OsStr::from_bytes(cgroup));
        let relative = cgroup
            .strip_prefix(&root)
            .ok()
            .filter(|path| path.components().all(|part| matches!(part, Component::Normal(_))))
            .unwrap_or(Path::new(""));
        Location {
            version,
            mount_point: unescape(self.mount_point),
            relative: relative.to_path_buf(),
        }
    }
}

/// mountinfo writes space, tab, line feed and backslash as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let octal = tail
            .get(..3)
            .filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)))
            .and_then(|digits| {
                let value = digits.iter().fold(0u32, |sum, &d| sum * 8 + u32::from(d - b'0'));
                u8::try_from(value).ok()
            });
        match octal {
            Some(byte) => {
                path.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => path.push(first),
        }
    }
    PathBuf::from(OsStr::from_bytes(&path))
}

/// What one reading of the cgroup gives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Use less inactive file cache, bytes: what kubelet calls the working set.
    pub used_bytes: Option<u64>,
    /// Lowest limit of the cgroup and its ancestors, bytes.
    pub limit_bytes: Option<u64>,
    /// Smallest limit minus use over the levels that have a limit, bytes.
    pub headroom_bytes: Option<u64>,
    /// Whether an OOM kill takes a whole cgroup that holds this process. Refreshed once in
    /// 60 readings.
    pub oom_group: Option<bool>,
    /// PSI `some avg10` of the cgroup, percent (version 2).
    pub pressure_percent: Option<f64>,
}

/// The memory cgroup with its files kept open.
#[derive(Debug)]
pub struct Cgroup {
    proc_cgroup: KeptFile,
    proc_mountinfo: PathBuf,
    /// What `proc_cgroup` said at the last look.
    seen: Vec<u8>,
    location: Option<Location>,
    /// The process' own cgroup first, then those ancestors that have a limit.
    levels: Vec<Level>,
    pressure: Option<KeptFile>,
    oom_group: Option<bool>,
    until_look: u32,
}

impl Cgroup {
    /// Finds and opens the cgroup of the process that `proc_self` (`/proc/self`) describes.
    pub fn open(proc_self: &Path) -> Self {
        let mut cgroup = Cgroup {
            proc_cgroup: KeptFile::new(proc_self.join("cgroup")),
            proc_mountinfo: proc_self.join("mountinfo"),
            seen: Vec::new(),
            location: None,
            levels: Vec::new(),
            pressure: None,
            oom_group: None,
            until_look: READINGS_PER_LOOK,
        };
        cgroup.look(&mut vec![0; BUFFER_BYTES], Force::Yes);
        cgroup
    }

    /// The hierarchy that is read, if there is one.
    pub fn version(&self) -> Option<Version> {
        self.levels.first()?;
        self.location.as_ref().map(|location| location.version)
    }

    /// The directory that is read, if there is one.
    pub fn directory(&self) -> Option<PathBuf> {
        self.levels.first().map(|level| level.directory.clone())
    }

    /// Reads everything once.
    pub fn read(&mut self, buffer: &mut [u8]) -> Reading {
        self.until_look = self.until_look.saturating_sub(1);
        if self.until_look == 0 {
            self.look(buffer, Force::No);
        }
        let reading = self.read_levels(buffer);
        if reading.used_bytes.is_some() || self.levels.is_empty() {
            return reading;
        }
        // The directory went away under us: the process is somewhere else by now.
        self.look(buffer, Force::Yes);
        self.read_levels(buffer)
    }

    fn read_levels(&mut self, buffer: &mut [u8]) -> Reading {
        let mut reading = Reading { oom_group: self.oom_group, ..Reading::default() };
        for (depth, level) in self.levels.iter_mut().enumerate() {
            let (used, limit) = level.read(buffer);
            if depth == 0 {
                reading.used_bytes = used;
            }
            reading.limit_bytes = lowest(reading.limit_bytes, limit);
            if let (Some(used), Some(limit)) = (used, limit) {
                reading.headroom_bytes =
                    lowest(reading.headroom_bytes, Some(limit.saturating_sub(used)));
            }
        }
        if let Some(pressure) = &mut self.pressure {
            reading.pressure_percent = pressure.read(buffer).and_then(pressure_some_avg10);
        }
        reading
    }

    /// Looks where the process is, and which ancestors have a limit now.
    fn look(&mut self, buffer: &mut [u8], force: Force) {
        self.until_look = READINGS_PER_LOOK;
        let Some(text) = self.proc_cgroup.read(buffer) else {
            // Out of descriptors, or no /proc: what is open stays.
            return;
        };
        let moved = text != self.seen;
        if moved || matches!(force, Force::Yes) || self.levels.is_empty() {
            self.seen = text.to_vec();
            let mountinfo = std::fs::read(&self.proc_mountinfo).unwrap_or_default();
            self.location = locate(&self.seen, &mountinfo);
            self.levels.clear();
            self.pressure = None;
        }
        self.open_levels(buffer);
    }

    fn open_levels(&mut self, buffer: &mut [u8]) {
        let Some(location) = &self.location else { return };
        let version = location.version;
        let full = location.mount_point.join(&location.relative);
        let directory = if has_memory_files(version, &full) {
            full
        } else if has_memory_files(version, &location.mount_point) {
            location.mount_point.clone()
        } else {
            self.levels.clear();
            return;
        };

        let mut levels = std::mem::take(&mut self.levels);
        if levels.first().map(|own| &own.directory) == Some(&directory) {
            levels.truncate(1);
        } else {
            levels = vec![Level::open(version, directory.clone())];
            self.pressure = (version == Version::V2)
                .then(|| directory.join("memory.pressure"))
                .filter(|path| path.exists())
                .map(KeptFile::new);
        }
        self.oom_group = None;
        for (depth, ancestor) in directory.ancestors().take(MAX_LEVELS).enumerate() {
            if !ancestor.starts_with(&location.mount_point) {
                break;
            }
            if version == Version::V2
                && let Some(group) = number(&ancestor.join("memory.oom.group"))
            {
                self.oom_group = Some(self.oom_group.unwrap_or(false) || group != 0);
            }
            if depth > 0 && limit_file(version, ancestor).is_some() {
                let mut level = Level::open(version, ancestor.to_path_buf());
                if level.read(buffer).1.is_some() {
                    levels.push(level);
                }
            }
        }
        self.levels = levels;
    }
}

/// Whether to look for the mount again although the process seems not to have moved.
enum Force {
    Yes,
    No,
}

/// One directory of the ancestry.
#[derive(Debug)]
struct Level {
    version: Version,
    directory: PathBuf,
    usage: KeptFile,
    stat: KeptFile,
    limit: KeptFile,
}

impl Level {
    fn open(version: Version, directory: PathBuf) -> Self {
        let (usage, limit) = match version {
            Version::V1 => ("memory.usage_in_bytes", "memory.limit_in_bytes"),
            Version::V2 => ("memory.current", "memory.max"),
        };
        Level {
            version,
            usage: KeptFile::new(directory.join(usage)),
            stat: KeptFile::new(directory.join("memory.stat")),
            limit: KeptFile::new(directory.join(limit)),
            directory,
        }
    }

    /// Working set and limit, bytes.
    fn read(&mut self, buffer: &mut [u8]) -> (Option<u64>, Option<u64>) {
        let usage = self.usage.read(buffer).and_then(single_number);
        let mut limit = self.limit.read(buffer).and_then(limit_value);
        let mut inactive_file = None;
        if let Some(stat) = self.stat.read(buffer) {
            inactive_file = match self.version {
                Version::V1 => flat_value(stat, b"total_inactive_file"),
                Version::V2 => flat_value(stat, b"inactive_file"),
            };
            if self.version == Version::V1 {
                let inherited = flat_value(stat, b"hierarchical_memory_limit");
                limit = lowest(limit, inherited.filter(|&bytes| bytes < NO_LIMIT));
            }
        }
        // The two are read one after the other: the cache may have shrunk below what was charged before.
        let used = usage.zip(inactive_file).map(|(usage, cache)| usage.saturating_sub(cache));
        (used, limit)
    }
}

fn has_memory_files(version: Version, directory: &Path) -> bool {
    let name = match version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    };
    directory.join(name).exists()
}

/// The limit of a directory as it is now, without keeping the file open.
fn limit_file(version: Version, directory: &Path) -> Option<u64> {
    let name = match version {
        Version::V1 => "memory.limit_in_bytes",
        Version::V2 => "memory.max",
    };
    limit_value(&std::fs::read(directory.join(name)).ok()?)
}

fn number(path: &Path) -> Option<u64> {
    single_number(&std::fs::read(path).ok()?)
}

fn single_number(text: &[u8]) -> Option<u64> {
    decimal(text.strip_suffix(b"\n")?)
}

/// `max` and numbers that mean none are `None`.
fn limit_value(text: &[u8]) -> Option<u64> {
    single_number(text).filter(|&bytes| bytes < NO_LIMIT)
}

fn lowest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Inode of a directory.
pub fn inode(directory: &Path) -> Option<u64> {
    Some(std::fs::metadata(directory).ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn location(version: Version, mount_point: &str, relative: &str) -> Option<Location> {
        Some(Location { version, mount_point: mount_point.into(), relative: relative.into() })
    }

    const V1_HOST: &[u8] = b"22 1 0:20 / / rw - ext4 /dev/sda rw\n\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const V2_HOST: &[u8] =
        b"26 1 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_mixed_machine_with_memory_in_version_1_is_read_there() {
        let cgroup = b"9:name=systemd:/\n4:memory:/process_api/1d43\n0::/\n";
        assert_eq!(
            locate(cgroup, V1_HOST),
            location(Version::V1, "/sys/fs/cgroup/memory", "process_api/1d43")
        );
    }

    #[test]
    fn a_mixed_machine_with_memory_in_version_2_is_read_there() {
        let mounts = b"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            locate(b"2:cpu:/a\n0::/user.slice/a\n", mounts),
            location(Version::V2, "/sys/fs/cgroup/unified", "user.slice/a")
        );
    }

    #[test]
    fn version_2_paths_lie_below_the_mount() {
        let cgroup = b"0::/kubepods.slice/pod1/cri-containerd-a:b.scope\n";
        assert_eq!(
            locate(cgroup, V2_HOST),
            location(Version::V2, "/sys/fs/cgroup", "kubepods.slice/pod1/cri-containerd-a:b.scope")
        );
    }

    #[test]
    fn a_container_with_its_cgroup_as_mount_root_is_that_root() {
        let mounts = b"40 39 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let root = location(Version::V1, "/sys/fs/cgroup/memory", "");
        assert_eq!(locate(b"4:memory:/docker/abc\n", mounts), root);
        assert_eq!(locate(b"4:memory:/docker/other\n", mounts), root, "not below the mount");
        assert_eq!(locate(b"4:memory:/\n", mounts), root, "cgroup namespace");
        assert_eq!(
            locate(b"4:memory:/docker/abc/child\n", mounts),
            location(Version::V1, "/sys/fs/cgroup/memory", "child")
        );
        // Mounted from outside the cgroup namespace, or the process left it.
        let outside = b"40 39 0:32 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(locate(b"0::/\n", outside), location(Version::V2, "/sys/fs/cgroup", ""));
        assert_eq!(
            locate(b"0::/../sibling\n", V2_HOST),
            location(Version::V2, "/sys/fs/cgroup", "")
        );
    }

    #[test]
    fn no_memory_controller_is_no_cgroup() {
        assert_eq!(locate(b"", b""), None);
        assert_eq!(locate(b"0::/\n", b"22 1 0:20 / / rw - ext4 /dev/sda rw\n"), None);
        assert_eq!(
            locate(b"4:memory:/a\n0::/\n", V2_HOST),
            None,
            "memory is in version 1, unmounted"
        );
        assert_eq!(locate(b"2:cpu:/\n", V1_HOST), None);
        for end in 0..V1_HOST.len() {
            let _ = locate(b"4:memory:/a\n0::/", &V1_HOST[..end]);
        }
    }

    #[test]
    fn escaped_mount_points_are_read() {
        let mounts = b"26 1 0:23 / /mnt/a\\040b\\134 rw - cgroup2 none rw\n";
        assert_eq!(locate(b"0::/\n", mounts), location(Version::V2, "/mnt/a b\\", ""));
        assert_eq!(unescape(b"a\\04"), PathBuf::from("a\\04"));
        assert_eq!(unescape(b"a\\777"), PathBuf::from("a\\777"), "no byte");
    }

    /// A made-up `/proc/self` and cgroup tree in a directory of its own.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn v2(cgroup: &str) -> Tree {
            Tree::new(&format!("0::{cgroup}\n"), "cgroup2 cgroup2 rw")
        }

        fn new(cgroup: &str, kind: &str) -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            let mount = tree.0.path().join("mount");
            tree.write("proc/cgroup", cgroup);
            tree.write("proc/mountinfo", &format!("26 1 0:23 / {} rw - {kind}\n", mount.display()));
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// `current`, `inactive_file` and `max` of a version 2 directory.
        fn level(&self, path: &str, current: u64, inactive: u64, max: &str) {
            self.write(&format!("mount/{path}/memory.current"), &format!("{current}\n"));
            self.write(
                &format!("mount/{path}/memory.stat"),
                &format!("anon 5\ninactive_file {inactive}\n"),
            );
            self.write(&format!("mount/{path}/memory.max"), &format!("{max}\n"));
        }

        fn open(&self) -> Cgroup {
            Cgroup::open(&self.0.path().join("proc"))
        }
    }

    fn read(cgroup: &mut Cgroup) -> Reading {
        cgroup.read(&mut vec![0; BUFFER_BYTES])
    }

    #[test]
    fn nested_version_2_takes_the_lowest_limit_and_the_smallest_headroom() {
        let tree = Tree::v2("/pod/app");
        tree.level("pod/app", 100, 20, "500");
        tree.level("pod", 380, 0, "400");
        tree.write("mount/pod/memory.oom.group", "1\n");
        tree.write("mount/pod/app/memory.oom.group", "0\n");
        tree.write("mount/pod/app/memory.pressure", "some avg10=2.50 avg60=0 avg300=0 total=1\n");
        assert_eq!(
            read(&mut tree.open()),
            Reading {
                used_bytes: Some(80),
                limit_bytes: Some(400),
                headroom_bytes: Some(20),
                oom_group: Some(true),
                pressure_percent: Some(2.5),
            }
        );
    }

    #[test]
    fn max_at_every_level_is_no_limit() {
        let tree = Tree::v2("/pod/app");
        tree.level("pod/app", 100, 200, "max");
        tree.level("pod", 380, 0, "max");
        let reading = read(&mut tree.open());
        assert_eq!((reading.limit_bytes, reading.headroom_bytes), (None, None));
        assert_eq!(reading.used_bytes, Some(0), "more cache than use is nothing used");
        assert_eq!(reading.pressure_percent, None);
        assert_eq!(reading.oom_group, None);
    }

    #[test]
    fn limits_are_read_anew_at_every_reading() {
        let tree = Tree::v2("/app");
        tree.level("app", 100, 0, "max");
        let mut cgroup = tree.open();
        assert_eq!(read(&mut cgroup).limit_bytes, None);
        fs::write(tree.0.path().join("mount/app/memory.max"), "300\n").unwrap();
        assert_eq!(read(&mut cgroup).limit_bytes, Some(300));
    }

    #[test]
    fn an_ancestor_that_gets_a_limit_later_is_found() {
        let tree = Tree::v2("/pod/app");
        tree.level("pod/app", 100, 0, "max");
        tree.level("pod", 100, 0, "max");
        let mut cgroup = tree.open();
        assert_eq!(read(&mut cgroup).limit_bytes, None);
        tree.level("pod", 100, 0, "250");
        let found = (0..=READINGS_PER_LOOK).find(|_| read(&mut cgroup).limit_bytes == Some(250));
        assert!(found.is_some());
    }

    #[test]
    fn a_path_that_is_not_there_falls_back_to_the_mount_root() {
        let tree = Tree::v2("/system.slice/docker-abc.scope");
        tree.level("", 70, 0, "700");
        let mut cgroup = tree.open();
        assert_eq!(read(&mut cgroup).limit_bytes, Some(700));
        assert_eq!(cgroup.directory(), Some(tree.0.path().join("mount/")));
    }

    #[test]
    fn the_root_of_a_machine_has_no_figures() {
        let tree = Tree::v2("/");
        tree.write("mount/cgroup.procs", "1\n");
        assert_eq!(read(&mut tree.open()), Reading::default());
    }

    #[test]
    fn a_process_moved_to_another_cgroup_is_followed() {
        let tree = Tree::v2("/old");
        tree.level("old", 10, 0, "100");
        tree.level("new", 20, 0, "200");
        let mut cgroup = tree.open();
        assert_eq!(read(&mut cgroup).used_bytes, Some(10));
        fs::write(tree.0.path().join("proc/cgroup"), "0::/new\n").unwrap();
        let followed = (0..=READINGS_PER_LOOK).find(|_| read(&mut cgroup).used_bytes == Some(20));
        assert!(followed.is_some());
        assert_eq!(read(&mut cgroup).limit_bytes, Some(200));
    }

    #[test]
    fn a_cgroup_whose_files_fail_is_looked_for_at_once() {
        let tree = Tree::v2("/old");
        tree.level("old", 10, 0, "100");
        tree.level("new", 20, 0, "200");
        let mut cgroup = tree.open();
        fs::write(tree.0.path().join("proc/cgroup"), "0::/new\n").unwrap();
        // A removed cgroup answers ENODEV; an unreadable text stands in for it here.
        fs::write(tree.0.path().join("mount/old/memory.current"), "").unwrap();
        assert_eq!(read(&mut cgroup).used_bytes, Some(20));
    }

    #[test]
    fn version_1_takes_the_hierarchical_limit_too() {
        let tree = Tree::new("4:memory:/docker/abc\n", "cgroup cgroup rw,memory");
        let at = "mount/docker/abc";
        tree.write(&format!("{at}/memory.usage_in_bytes"), "1000\n");
        tree.write(&format!("{at}/memory.limit_in_bytes"), "9223372036854771712\n");
        tree.write(
            &format!("{at}/memory.stat"),
            "inactive_file 1\nhierarchical_memory_limit 5000\ntotal_inactive_file 300\n",
        );
        let mut cgroup = tree.open();
        let want = Reading {
            used_bytes: Some(700),
            limit_bytes: Some(5000),
            headroom_bytes: Some(4300),
            ..Reading::default()
        };
        assert_eq!(read(&mut cgroup), want);
        tree.write(&format!("{at}/memory.limit_in_bytes"), "4000\n");
        assert_eq!(read(&mut cgroup).limit_bytes, Some(4000));
    }

    #[test]
    fn version_1_without_a_limit_has_none() {
        let tree = Tree::new("4:memory:/\n", "cgroup cgroup rw,memory");
        tree.write("mount/memory.usage_in_bytes", "1000\n");
        tree.write("mount/memory.limit_in_bytes", "9223372036854771712\n");
        tree.write(
            "mount/memory.stat",
            "hierarchical_memory_limit 9223372036854771712\ntotal_inactive_file 0\n",
        );
        let reading = read(&mut tree.open());
        assert_eq!((reading.used_bytes, reading.limit_bytes), (Some(1000), None));
    }

    #[test]
    fn odd_contents_are_absent() {
        let tree = Tree::v2("/app");
        tree.level("app", 100, 0, "5x");
        tree.write("mount/app/memory.stat", "inactive_file 4");
        tree.write("mount/app/memory.oom.group", "perhaps\n");
        tree.write("mount/app/memory.pressure", "\n");
        assert_eq!(read(&mut tree.open()), Reading::default());
    }
}
