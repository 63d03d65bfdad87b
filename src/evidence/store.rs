//! The evidence directory: finding one that is safe to write to, writing files that are whole or
//! absent, listing them, and keeping the sum of them within the quota.
//!
//! It does not decide whether a snapshot is taken (`budget`), what the processes of a directory
//! remember (`ledger`), nor what is in a file.
//!
//! How a file appears: created as `<name>.<pid>.<start>.<home>.<n>.part` (exclusively, 0600, locked by
//! its writer), written, then renamed without overwriting. Small files are flushed to the disk before
//! the rename, so that a power cut too leaves no empty file under a final name; a big snapshot is not:
//! flushing hundreds of megabytes would compete with the app for the disk, and the digest in the
//! metadata tells a damaged one.
//!
//! Left-over parts are removed at the next opening, but only those whose writer is provably gone: its
//! lock is free, and it is dead in our own pid namespace or, on a volume shared with other
//! containers, its part has not grown for ten minutes. The part of a recorder ring (`<ring>.part`) does not say
//! who writes it: its lock and its age decide.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::budget::{Refusal, RefusalReason, Unit, size};
use super::dir::{Dir, DirEntry};
use super::identity::{Liveness, ProcessIdentity};
use super::name::{self, EvidenceName, Kind, WallMillis};
use crate::probe::own;

pub(crate) const STATE_NAME: &str = "leakguard.state";
pub(crate) const LOCK_NAME: &str = "leakguard.lock";
/// Where a state that cannot be read is kept; one, the last.
pub(crate) const BAD_STATE_NAME: &str = "leakguard.state.bad";
const GITIGNORE_NAME: &str = ".gitignore";
const RECORDER_PREFIX: &str = "run.";
const RECORDER_SUFFIX: &str = ".rec";
const PART_SUFFIX: &str = ".part";

/// Files up to this size are flushed to the disk before they get their final name.
pub(crate) const FLUSH_UP_TO_BYTES: u64 = 64 << 20;
/// A part of an unknown process that was not written to for this long is given up by its writer.
const STALE_PART: Duration = Duration::from_secs(600);
/// The same where the file system has no locks.
const STALE_PART_WITHOUT_LOCKS: Duration = Duration::from_secs(24 * 3600);
/// A recorder ring is written to every few seconds while its process lives.
const STALE_RECORDER: Duration = Duration::from_secs(24 * 3600);
/// Larger than any metadata this crate writes.
const MAX_META_BYTES: u64 = 64 << 10;
/// How many numbers are tried for a name that is taken: same pid, second and sequence in another container.
const NAME_TRIES: usize = 64;
const MAX_WARNINGS: usize = 16;

/// Where evidence shall go.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `LEAKGUARD_DIR`, made absolute or relative to the working directory at start.
    pub dir: PathBuf,
    /// `LEAKGUARD_MAX_DISK`, bytes.
    pub max_disk_bytes: u64,
    /// The temp directory of the operating system, for when `dir` cannot be used. Read by the caller on
    /// the JS thread (`os.tmpdir()` or [`std::env::temp_dir`]): it comes from the environment.
    pub temp_dir: PathBuf,
}

/// Something the operator should know; the caller emits it as a process warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreWarning {
    /// The configured directory cannot be used; this one is.
    Fallback {
        /// The directory that was configured.
        wanted: PathBuf,
        /// The one in use.
        used: PathBuf,
        /// Why.
        cause: String,
    },
    /// The configured directory is writable for everybody: a private child of it is used.
    PrivateChild {
        /// The child.
        used: PathBuf,
    },
    /// The state could not be read; counts and cooldowns were reckoned anew from the files.
    StateRebuilt {
        /// What was wrong with it.
        cause: String,
    },
    /// `.gitignore` could not be written.
    NoGitignore {
        /// Why.
        cause: String,
    },
}

impl StoreWarning {
    /// Whether it deserves a process warning; a private child is as documented and only worth a mention.
    #[must_use]
    pub fn is_problem(&self) -> bool {
        !matches!(self, Self::PrivateChild { .. })
    }
}

impl fmt::Display for StoreWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fallback { wanted, used, cause } => write!(
                f,
                "LEAKGUARD_DIR: cannot use {} ({cause}); evidence goes to {}",
                wanted.display(),
                used.display()
            ),
            Self::PrivateChild { used } => write!(
                f,
                "LEAKGUARD_DIR is writable for everybody; evidence goes to {}",
                used.display()
            ),
            Self::StateRebuilt { cause } => write!(
                f,
                "{STATE_NAME} could not be read ({cause}); it is kept as {BAD_STATE_NAME}, snapshots are \
                 counted by their files and the newest finding begins a cooldown for all"
            ),
            Self::NoGitignore { cause } => {
                write!(f, "cannot write {GITIGNORE_NAME} into the evidence directory: {cause}")
            }
        }
    }
}

/// Why a file could not be kept.
#[derive(Debug)]
pub enum StoreError {
    /// Neither the configured directory nor one in the temp directory can be used.
    NoDirectory {
        /// The directory that was configured.
        wanted: PathBuf,
        /// Why it cannot be used.
        cause: String,
        /// Why the temp directory cannot be used either.
        fallback: String,
    },
    /// The quota would be exceeded, even after retention.
    Quota {
        /// Size of the file, bytes.
        needed: u64,
        /// What the quota leaves, bytes.
        available: u64,
        /// The quota, bytes.
        quota: u64,
    },
    /// The file system is full.
    DiskFull {
        /// Which file.
        name: String,
        /// Free bytes now, if known.
        free: Option<u64>,
    },
    /// A file of this name is there already.
    Exists {
        /// Which.
        name: String,
    },
    /// Anything else the operating system said.
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        name: String,
        /// The answer.
        source: io::Error,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> Self {
        let name = name.to_owned();
        move |source| Self::from_io(action, name, source)
    }

    pub(crate) fn from_io(action: &'static str, name: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { name, free: None }
            }
            io::ErrorKind::AlreadyExists => Self::Exists { name },
            _ => Self::Io { action, name, source },
        }
    }

    /// The same as a refusal, for the finding and the event.
    #[must_use]
    pub fn to_refusal(&self) -> Refusal {
        let sentence = self.to_string();
        match self {
            Self::Quota { needed, available, quota } => Refusal::with_numbers(
                RefusalReason::DiskQuota,
                Unit::Bytes,
                (*needed, *available, quota.saturating_add(needed.saturating_sub(*available))),
                sentence,
            ),
            Self::DiskFull { .. } => Refusal::plain(RefusalReason::DiskFree, sentence),
            Self::NoDirectory { .. } | Self::Exists { .. } | Self::Io { .. } => {
                Refusal::plain(RefusalReason::State, sentence)
            }
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory { wanted, cause, fallback } => write!(
                f,
                "no directory for evidence: {} ({cause}), nor one in the temp directory ({fallback})",
                wanted.display()
            ),
            Self::Quota { needed, available, quota } => write!(
                f,
                "a file of {} exceeds the {} left of LEAKGUARD_MAX_DISK {} after retention",
                size(*needed),
                size(*available),
                size(*quota)
            ),
            Self::DiskFull { name, free: Some(free) } => {
                write!(f, "the file system is full while writing {name}: {} free", size(*free))
            }
            Self::DiskFull { name, free: None } => {
                write!(f, "the file system is full while writing {name}")
            }
            Self::Exists { name } => write!(f, "{name} exists already"),
            Self::Io { action, name, source } => write!(f, "cannot {action} {name}: {source}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// One evidence file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its name.
    pub name: EvidenceName,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub modified: WallMillis,
}

/// The evidence directory, held open. Cheap to share; every method may block on the disk.
#[derive(Debug)]
pub struct Store {
    dir: Arc<Dir>,
    on_memory: bool,
    max_disk_bytes: AtomicU64,
    warnings: Mutex<Vec<StoreWarning>>,
    /// The directory's descriptor. A part's is short-lived and counted by who keeps it open.
    _own: own::Fd,
}

impl Store {
    /// Opens the configured directory, or the first of its substitutes that can be written to; writes
    /// `.gitignore` and removes parts that dead processes left. See [`Store::take_warnings`] afterwards.
    ///
    /// # Errors
    /// [`StoreError::NoDirectory`] if there is none.
    pub fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        let mut warnings = Vec::new();
        let dir = match usable(&options.dir, &mut warnings) {
            Ok(dir) => dir,
            Err(cause) => {
                let private = private_name();
                let fallback = Dir::open(&options.temp_dir)
                    .and_then(|temp| temp.private_child(&private))
                    .and_then(|dir| try_writing(&dir).map(|()| dir))
                    .map_err(|fallback| StoreError::NoDirectory {
                        wanted: options.dir.clone(),
                        cause: cause.to_string(),
                        fallback: fallback.to_string(),
                    })?;
                warnings.push(StoreWarning::Fallback {
                    wanted: options.dir.clone(),
                    used: fallback.path().to_owned(),
                    cause: cause.to_string(),
                });
                fallback
            }
        };
        let store = Self {
            on_memory: dir.is_memory(),
            dir: Arc::new(dir),
            max_disk_bytes: AtomicU64::new(options.max_disk_bytes),
            warnings: Mutex::new(warnings),
            _own: own::fd(),
        };
        store.remove_leftovers();
        if let Err(error) = store.write_gitignore() {
            store.warn(StoreWarning::NoGitignore { cause: error.to_string() });
        }
        Ok(store)
    }

    /// Holds a directory that is there open, and changes nothing in it: for a look (see `survey`).
    pub(super) fn look_at(dir: Dir, max_disk_bytes: u64) -> Self {
        Self {
            on_memory: dir.is_memory(),
            dir: Arc::new(dir),
            max_disk_bytes: AtomicU64::new(max_disk_bytes),
            warnings: Mutex::new(Vec::new()),
            _own: own::fd(),
        }
    }

    /// What the operator should be told since the last call.
    #[must_use]
    pub fn take_warnings(&self) -> Vec<StoreWarning> {
        std::mem::take(&mut self.warnings.lock())
    }

    pub(crate) fn warn(&self, warning: StoreWarning) {
        let mut warnings = self.warnings.lock();
        // Nobody may be listening; the first few tell the story.
        if warnings.len() < MAX_WARNINGS {
            warnings.push(warning);
        }
    }

    /// The directory in use, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The full path of a file of this directory.
    #[must_use]
    pub fn path_of(&self, name: &EvidenceName) -> PathBuf {
        self.path().join(name.to_string())
    }

    /// Whether the directory lies in memory (tmpfs): what is written there counts as memory.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.on_memory
    }

    /// Free bytes of its file system.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        self.dir.free_bytes()
    }

    /// `LEAKGUARD_MAX_DISK`, bytes.
    #[must_use]
    pub fn max_disk_bytes(&self) -> u64 {
        self.max_disk_bytes.load(Ordering::Relaxed)
    }

    /// Changes the quota; what is over it goes with the next file.
    pub fn set_max_disk_bytes(&self, bytes: u64) {
        self.max_disk_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Writes a new file and gives its name. Makes room for it first.
    ///
    /// # Errors
    /// Quota, full disk, or what the operating system says. Nothing is left under the final name then.
    pub fn write_new(
        &self,
        kind: Kind,
        now: WallMillis,
        tid: u64,
        bytes: &[u8],
    ) -> Result<EvidenceName, StoreError> {
        self.make_room(bytes.len() as u64)?;
        self.commit_under_free_name(
            EvidenceName::next(kind, now, tid),
            self.filled_part(&kind_label(kind), bytes)?,
            |_| EvidenceName::next(kind, now, tid),
        )
    }

    /// Writes a file of a given name that must not be there yet: metadata beside its snapshot.
    ///
    /// # Errors
    /// As [`Store::write_new`], and [`StoreError::Exists`].
    pub fn write_named(&self, name: &EvidenceName, bytes: &[u8]) -> Result<(), StoreError> {
        self.make_room(bytes.len() as u64)?;
        let name = name.to_string();
        self.filled_part(&name, bytes)?.commit_new(&name).map_err(|(_, error)| error)
    }

    /// Replaces a file as a whole: a reader sees the old one or the new one. Completes a finding; also
    /// works if retention has removed the old one meanwhile.
    ///
    /// # Errors
    /// As [`Store::write_new`]; the old file stays then.
    pub fn replace(&self, name: &EvidenceName, bytes: &[u8]) -> Result<(), StoreError> {
        self.make_room(bytes.len() as u64)?;
        self.replace_internal(&name.to_string(), bytes)
    }

    pub(crate) fn replace_internal(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.filled_part(name, bytes)?.commit_over(name)
    }

    /// Reads a file of ours, no further than `max_bytes`.
    ///
    /// # Errors
    /// What the operating system says; a larger file, a link, or what is no regular file.
    pub fn read(&self, name: &EvidenceName, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        self.read_internal(&name.to_string(), max_bytes)
    }

    pub(crate) fn read_internal(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let read = || {
            let mut bytes = Vec::new();
            self.dir.open_read(name)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > max_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("larger than {max_bytes} bytes"),
                ));
            }
            Ok(bytes)
        };
        read().map_err(StoreError::io("read", name))
    }

    /// The evidence files, oldest first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        let mut files: Vec<StoredFile> = self
            .entries(|name| EvidenceName::parse(name).is_some())?
            .into_iter()
            .filter_map(|entry| {
                Some(StoredFile {
                    name: EvidenceName::parse(&entry.name)?,
                    size_bytes: entry.size_bytes,
                    modified: entry.modified.into(),
                })
            })
            .collect();
        files.sort_by(|a, b| (a.modified, a.name.stem()).cmp(&(b.modified, b.name.stem())));
        Ok(files)
    }

    /// Removes the oldest files until `needed` more bytes fit the quota. Removes nothing if they would not
    /// fit even then.
    ///
    /// # Errors
    /// [`StoreError::Quota`], or if the directory cannot be read.
    pub fn make_room(&self, needed: u64) -> Result<Vec<String>, StoreError> {
        let mut plan = self.retention(needed, &HashSet::new())?;
        if !plan.remove.is_empty() {
            plan = self.retention(needed, &self.baselines()?)?;
        }
        if !plan.fits {
            return Err(StoreError::Quota {
                needed,
                available: self.max_disk_bytes().saturating_sub(plan.kept_bytes),
                quota: self.max_disk_bytes(),
            });
        }
        for name in &plan.remove {
            // Gone already: a sister process was quicker. Anything else shows as quota next time.
            let _ = self.dir.remove(name);
        }
        Ok(plan.remove)
    }

    /// Bytes of our files that would stay even if everything removable went: what a snapshot cannot have.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn unremovable_bytes(&self) -> Result<u64, StoreError> {
        let all = self.retention(u64::MAX, &self.baselines()?)?;
        Ok(all.kept_bytes)
    }

    /// Bytes of all our files, recorders and unfinished ones too.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn used_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.entries(is_ours)?.iter().map(|entry| entry.size_bytes).sum())
    }

    fn retention(
        &self,
        needed: u64,
        baselines: &HashSet<String>,
    ) -> Result<RetentionPlan, StoreError> {
        let entries = self.entries(is_ours)?;
        Ok(plan_retention(&entries, SystemTime::now(), self.max_disk_bytes(), needed, baselines))
    }

    /// Stems of snapshots whose metadata says `baseline`.
    fn baselines(&self) -> Result<HashSet<String>, StoreError> {
        #[derive(serde::Deserialize)]
        struct Reason {
            reason: String,
        }
        Ok(self
            .list()?
            .into_iter()
            .filter(|file| file.name.kind() == Kind::Meta)
            .filter_map(|file| {
                let bytes = self.read(&file.name, MAX_META_BYTES).ok()?;
                let meta: Reason = serde_json::from_slice(&bytes).ok()?;
                (meta.reason == "baseline").then(|| file.name.stem().to_owned())
            })
            .collect())
    }

    fn entries(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<DirEntry>, StoreError> {
        self.dir.entries(wanted).map_err(StoreError::io("list", "the evidence directory"))
    }

    /// Begins a file under a temporary name. Dropping the part removes it.
    pub(crate) fn part(&self, label: &str) -> Result<Part, StoreError> {
        Part::create(&self.dir, label)
    }

    fn filled_part(&self, label: &str, bytes: &[u8]) -> Result<Part, StoreError> {
        let mut part = self.part(label)?;
        part.file
            .write_all(bytes)
            .and_then(|()| part.file.sync_data())
            .map_err(|error| self.with_free(StoreError::io("write", label)(error)))?;
        Ok(part)
    }

    /// Gives a part the final name, or the next that `again` makes while names are taken.
    pub(crate) fn commit_under_free_name(
        &self,
        mut name: EvidenceName,
        mut part: Part,
        again: impl Fn(&EvidenceName) -> EvidenceName,
    ) -> Result<EvidenceName, StoreError> {
        for _ in 0..NAME_TRIES {
            match part.commit_new(&name.to_string()) {
                Ok(()) => return Ok(name),
                Err((unnamed, StoreError::Exists { .. })) => part = unnamed,
                Err((_, error)) => return Err(error),
            }
            name = again(&name);
        }
        Err(StoreError::Exists { name: name.to_string() })
    }

    pub(crate) fn with_free(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::DiskFull { name, .. } => {
                StoreError::DiskFull { name, free: self.free_bytes() }
            }
            other => other,
        }
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    fn write_gitignore(&self) -> Result<(), StoreError> {
        if self.dir.exists(GITIGNORE_NAME) {
            return Ok(());
        }
        match self.filled_part(GITIGNORE_NAME, b"*\n")?.commit_new(GITIGNORE_NAME) {
            Ok(()) | Err((_, StoreError::Exists { .. })) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    fn remove_leftovers(&self) {
        let Ok(parts) = self.entries(is_part) else { return };
        for entry in parts {
            let liveness = match PartName::parse(&entry.name) {
                Some(name) => name.writer.liveness(),
                None => Liveness::Unknown,
            };
            let idle = SystemTime::now().duration_since(entry.modified).unwrap_or_default();
            // A lock is tried for by taking it, and a writer that begins just then would go without its own.
            if liveness == Liveness::Alive || liveness == Liveness::Unknown && idle < STALE_PART {
                continue;
            }
            let Ok(file) = self.dir.open_read(&entry.name) else { continue };
            let gone = match (Dir::try_lock(&file), liveness) {
                (Ok(Some(true) | None), Liveness::Dead) => true,
                (Ok(Some(true)), _) => true,
                (Ok(None), _) => idle >= STALE_PART_WITHOUT_LOCKS,
                (Ok(Some(false)) | Err(_), _) => false,
            };
            if gone {
                let _ = self.dir.remove(&entry.name);
            }
        }
    }
}

/// Opens what the operator configured and proves that it can be written to.
fn usable(path: &Path, warnings: &mut Vec<StoreWarning>) -> io::Result<Dir> {
    let dir = Dir::open_or_create(path)?;
    let dir = if dir.is_world_writable()? {
        let child = dir.private_child(&private_name())?;
        warnings.push(StoreWarning::PrivateChild { used: child.path().to_owned() });
        child
    } else {
        dir
    };
    try_writing(&dir).map(|()| dir)
}

/// Permission bits do not tell of read-only mounts, squashed root or access lists; a file does.
pub(super) fn try_writing(dir: &Dir) -> io::Result<()> {
    let name = PartName::new("probe").to_string();
    match dir.create_new(&name) {
        Ok(file) => {
            drop(file);
            dir.remove(&name)
        }
        // A full disk is still the right disk: it may have room later.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

pub(super) fn private_name() -> String {
    #[cfg(unix)]
    let user = rustix::process::geteuid().as_raw();
    #[cfg(not(unix))]
    let user = 0;
    format!("leakguard-{user}")
}

fn kind_label(kind: Kind) -> String {
    match kind {
        Kind::Snapshot(_) => "heapsnapshot",
        Kind::Profile => "heapprofile",
        Kind::Finding => "finding",
        Kind::Meta => "meta",
    }
    .to_owned()
}

/// The name of an unfinished file: what it is to be, who writes it, and a number.
struct PartName {
    label: String,
    writer: ProcessIdentity,
    sequence: u32,
}

impl PartName {
    fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            writer: ProcessIdentity::current().clone(),
            sequence: name::next_sequence(),
        }
    }

    /// `<label>.<pid>.<start>.<home>.<n>.part`; anything else is not ours to remove.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_suffix(PART_SUFFIX)?.rsplitn(5, '.');
        let sequence = parts.next()?.parse().ok()?;
        let home = parts.next().filter(|home| home.len() == 8)?;
        let home = u32::from_str_radix(home, 16).ok()?;
        let start = parts.next()?.parse().ok()?;
        let pid = parts.next()?.parse().ok()?;
        let label = parts.next()?.to_owned();
        Some(Self { label, writer: ProcessIdentity { pid, start, home }, sequence })
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, writer: ProcessIdentity { pid, start, home }, sequence } = self;
        write!(f, "{label}.{pid}.{start}.{home:08x}.{sequence}{PART_SUFFIX}")
    }
}

/// A file being written. It holds its own lock, has no final name, and is removed on drop.
#[derive(Debug)]
pub struct Part {
    dir: Arc<Dir>,
    name: String,
    pub(crate) file: File,
    renamed: bool,
}

impl Part {
    fn create(dir: &Arc<Dir>, label: &str) -> Result<Self, StoreError> {
        let name = PartName::new(label).to_string();
        let file = dir.create_new(&name).map_err(StoreError::io("create", &name))?;
        let part = Self { dir: Arc::clone(dir), name, file, renamed: false };
        // Without locks (some network file systems) the age of the part protects it.
        let _ = Dir::try_lock(&part.file);
        Ok(part)
    }

    /// The path of the unfinished file, for a writer that can only be given a path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    /// Renames to a name that is free. On failure the part is given back.
    pub(crate) fn commit_new(mut self, name: &str) -> Result<(), (Self, StoreError)> {
        match self.dir.rename_new(&self.name, name) {
            Ok(()) => {
                self.renamed = true;
                Ok(())
            }
            Err(error) => Err((self, StoreError::io("create", name)(error))),
        }
    }

    fn commit_over(mut self, name: &str) -> Result<(), StoreError> {
        self.dir.rename_over(&self.name, name).map_err(StoreError::io("replace", name))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = self.dir.remove(&self.name);
        }
    }
}

/// Names that count against the quota: evidence, state, recorder rings and parts. A directory shared with
/// files of others is not held against us, and theirs are never touched.
pub(super) fn is_ours(name: &str) -> bool {
    EvidenceName::parse(name).is_some()
        || [STATE_NAME, LOCK_NAME, BAD_STATE_NAME, GITIGNORE_NAME].contains(&name)
        || is_recorder(name)
        || is_part(name)
}

/// Names of unfinished files: of evidence, and of recorder rings.
fn is_part(name: &str) -> bool {
    PartName::parse(name).is_some() || name.strip_suffix(PART_SUFFIX).is_some_and(is_recorder)
}

fn is_recorder(name: &str) -> bool {
    name.strip_prefix(RECORDER_PREFIX)
        .and_then(|rest| rest.strip_suffix(RECORDER_SUFFIX))
        .and_then(|rest| rest.rsplit_once('.'))
        .is_some_and(|(_, pid)| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
}

/// What retention would do.
#[derive(Debug, PartialEq, Eq)]
struct RetentionPlan {
    remove: Vec<String>,
    kept_bytes: u64,
    fits: bool,
}

/// Oldest first: snapshots with their metadata, profiles, rings of runs that ended; then findings, which
/// are tiny and say the most per byte. The newest snapshot stays, and one baseline: that of the newest
/// snapshot's process if it has one, else the newest.
fn plan_retention(
    entries: &[DirEntry],
    now: SystemTime,
    quota: u64,
    needed: u64,
    baselines: &HashSet<String>,
) -> RetentionPlan {
    let parsed: Vec<(&DirEntry, Option<EvidenceName>)> =
        entries.iter().map(|entry| (entry, EvidenceName::parse(&entry.name))).collect();
    let snapshots = || {
        parsed.iter().filter_map(|(entry, name)| {
            let name = name.as_ref()?;
            matches!(name.kind(), Kind::Snapshot(_)).then_some((entry.modified, name))
        })
    };
    let newest = snapshots().max_by_key(|(modified, name)| (*modified, name.stem()));
    let baseline = snapshots().filter(|(_, name)| baselines.contains(name.stem())).max_by_key(
        |(modified, name)| {
            (newest.is_some_and(|(_, newest)| newest.pid() == name.pid()), *modified)
        },
    );
    let protected: Vec<&str> =
        [newest, baseline].into_iter().flatten().map(|(_, name)| name.stem()).collect();
    let snapshot_times: std::collections::HashMap<&str, SystemTime> =
        snapshots().map(|(modified, name)| (name.stem(), modified)).collect();

    // (goes last, age, a snapshot's files together, entry)
    let mut removable: Vec<(bool, SystemTime, &str, &DirEntry)> = parsed
        .iter()
        .filter_map(|(entry, name)| match name {
            Some(name) => {
                let stem = name.stem();
                let (last, time) = match name.kind() {
                    Kind::Finding => (true, entry.modified),
                    Kind::Profile => (false, entry.modified),
                    Kind::Snapshot(_) | Kind::Meta if protected.contains(&stem) => return None,
                    // Metadata goes with its snapshot, or alone if that has gone.
                    Kind::Snapshot(_) | Kind::Meta => {
                        (false, snapshot_times.get(stem).copied().unwrap_or(entry.modified))
                    }
                };
                Some((last, time, stem, *entry))
            }
            None => {
                let idle = now.duration_since(entry.modified).unwrap_or_default();
                (is_recorder(&entry.name) && idle >= STALE_RECORDER).then_some((
                    false,
                    entry.modified,
                    entry.name.as_str(),
                    *entry,
                ))
            }
        })
        .collect();
    removable.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));

    let mut kept_bytes =
        entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.size_bytes));
    let fits = |kept: u64| kept.saturating_add(needed) <= quota;
    let mut remove = Vec::new();
    let mut group = None;
    for (_, _, stem, entry) in removable {
        if fits(kept_bytes) && group != Some(stem) {
            break;
        }
        group = Some(stem);
        kept_bytes = kept_bytes.saturating_sub(entry.size_bytes);
        remove.push(entry.name.clone());
    }
    RetentionPlan { fits: fits(kept_bytes), remove, kept_bytes }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::evidence::name::Compression;

    pub(crate) const MIB: u64 = 1 << 20;
    const SNAPSHOT: Kind = Kind::Snapshot(Compression::None);

    pub(crate) fn options(dir: &Path) -> StoreOptions {
        StoreOptions {
            dir: dir.join("evidence"),
            max_disk_bytes: 512 * MIB,
            temp_dir: dir.join("temp"),
        }
    }

    pub(crate) fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&options(root.path())).unwrap();
        assert_eq!(store.take_warnings(), []);
        (root, store)
    }

    pub(crate) fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn now() -> WallMillis {
        WallMillis::now()
    }

    /// Past the test harness, which captures what `println!` says of a test that passes.
    pub(crate) fn skipped(why: &str) {
        let _ = writeln!(io::stderr(), "skipped: {why}");
    }

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[cfg(unix)]
    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn directory_and_files_are_for_their_owner_only() {
        let (_root, store) = store();
        assert_eq!(mode(store.path()), 0o700);
        let name = store.write_new(Kind::Finding, now(), 0, b"{}").unwrap();
        assert_eq!(mode(&store.path_of(&name)), 0o600);
        assert_eq!(store.read(&name, 2).unwrap(), b"{}");
        assert_eq!(names(store.path()), [".gitignore".to_owned(), name.to_string()]);
        assert_eq!(std::fs::read(store.path().join(".gitignore")).unwrap(), b"*\n");
    }

    #[test]
    fn gitignore_is_written_once_and_never_again() {
        let (root, store) = store();
        std::fs::write(store.path().join(".gitignore"), "!mine\n").unwrap();
        Store::open(&options(root.path())).unwrap();
        assert_eq!(std::fs::read(store.path().join(".gitignore")).unwrap(), b"!mine\n");
    }

    #[cfg(unix)]
    #[test]
    fn the_configured_directory_may_be_a_link() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("volume")).unwrap();
        std::os::unix::fs::symlink("volume", root.path().join("evidence")).unwrap();
        let store = Store::open(&options(root.path())).unwrap();
        store.write_new(Kind::Finding, now(), 0, b"{}").unwrap();
        assert_eq!(names(&root.path().join("volume")).len(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_world_writable_directory_gets_a_private_child() {
        let root = tempfile::tempdir().unwrap();
        let shared = root.path().join("evidence");
        std::fs::create_dir(&shared).unwrap();
        set_mode(&shared, 0o777);
        // An earlier child of ours that somebody opened up is closed again.
        std::fs::create_dir(shared.join(private_name())).unwrap();
        set_mode(&shared.join(private_name()), 0o755);
        let store = Store::open(&options(root.path())).unwrap();
        assert_eq!(store.path(), shared.join(private_name()));
        assert_eq!(mode(store.path()), 0o700);
        assert!(matches!(store.take_warnings()[..], [StoreWarning::PrivateChild { .. }]));
        assert_eq!(names(&shared), [private_name()]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_place_of_the_private_child_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let shared = root.path().join("evidence");
        let target = root.path().join("target");
        for dir in [&shared, &target, &root.path().join("temp")] {
            std::fs::create_dir(dir).unwrap();
        }
        set_mode(&shared, 0o1777);
        std::os::unix::fs::symlink(&target, shared.join(private_name())).unwrap();
        let store = Store::open(&options(root.path())).unwrap();
        assert_eq!(store.path(), root.path().join("temp").join(private_name()));
        assert!(matches!(store.take_warnings()[..], [StoreWarning::Fallback { .. }]));
        assert_eq!(names(&target), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn a_private_child_of_somebody_else_is_not_used() {
        if !rustix::process::geteuid().is_root() {
            skipped("giving a directory to another user needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let temp = root.path().join("temp");
        std::fs::create_dir_all(temp.join(private_name())).unwrap();
        std::os::unix::fs::chown(temp.join(private_name()), Some(12345), None).unwrap();
        std::fs::write(root.path().join("evidence"), "a file").unwrap();
        let error = Store::open(&options(root.path())).unwrap_err();
        assert!(error.to_string().contains("belongs to user 12345"), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_replaced_with_a_warning() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("temp")).unwrap();
        std::fs::write(root.path().join("evidence"), "a file").unwrap();
        let store = Store::open(&options(root.path())).unwrap();
        let [StoreWarning::Fallback { wanted, used, .. }] = &store.take_warnings()[..] else {
            panic!("no warning");
        };
        assert_eq!(wanted, &root.path().join("evidence"));
        assert_eq!(used, store.path());
        store.write_new(Kind::Finding, now(), 0, b"{}").unwrap();
    }

    #[test]
    fn without_any_directory_opening_fails_with_both_reasons() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("evidence"), "a file").unwrap();
        let error = Store::open(&options(root.path())).unwrap_err();
        assert!(matches!(error, StoreError::NoDirectory { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn inside_the_directory_no_link_is_followed() {
        let (root, store) = store();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let name = EvidenceName::next(Kind::Finding, now(), 0);
        std::os::unix::fs::symlink(&secret, store.path_of(&name)).unwrap();
        store.read(&name, 100).unwrap_err();
        assert!(matches!(store.write_named(&name, b"x"), Err(StoreError::Exists { .. })));
        assert_eq!(store.list().unwrap(), []);
        // Replacing replaces the link itself.
        store.replace(&name, b"mine").unwrap();
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
        assert_eq!(store.read(&name, 100).unwrap(), b"mine");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fifo_under_one_of_our_names_makes_nobody_wait() {
        let (_root, store) = store();
        let name = EvidenceName::next(Kind::Meta, now(), 0);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            store.path_of(&name),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        store.read(&name, 100).unwrap_err();
    }

    #[test]
    fn a_file_is_never_overwritten_except_by_replace() {
        let (_root, store) = store();
        let name = store.write_new(Kind::Finding, now(), 0, b"first").unwrap();
        assert!(matches!(store.write_named(&name, b"second"), Err(StoreError::Exists { .. })));
        assert_eq!(store.read(&name, 100).unwrap(), b"first");
        store.replace(&name, b"second").unwrap();
        assert_eq!(store.read(&name, 100).unwrap(), b"second");
        assert_eq!(names(store.path()).len(), 2);
    }

    #[test]
    fn a_taken_name_gives_way_to_the_next() {
        let (_root, store) = store();
        let taken = EvidenceName::next(Kind::Finding, now(), 0);
        std::fs::write(store.path_of(&taken), "theirs").unwrap();
        let part = store.filled_part("finding", b"ours").unwrap();
        let name = store
            .commit_under_free_name(taken.clone(), part, |_| {
                EvidenceName::next(Kind::Finding, now(), 0)
            })
            .unwrap();
        assert_ne!(name, taken);
        assert_eq!(store.read(&name, 100).unwrap(), b"ours");
        assert_eq!(store.read(&taken, 100).unwrap(), b"theirs");
    }

    #[test]
    fn a_dropped_part_leaves_nothing() {
        let (_root, store) = store();
        let part = store.part("finding").unwrap();
        assert!(part.path().exists());
        drop(part);
        assert_eq!(names(store.path()), [".gitignore"]);
    }

    #[test]
    fn parts_of_dead_processes_go_and_those_of_live_ones_stay() {
        let (root, store) = store();
        let me = ProcessIdentity::current();
        let part_of = |label: &str, writer: ProcessIdentity| {
            let name = PartName { label: label.into(), writer, sequence: 1 }.to_string();
            std::fs::write(store.path().join(&name), "x").unwrap();
            name
        };
        let live = store.part("heapsnapshot").unwrap();
        part_of("earlier.life", ProcessIdentity { start: me.start ^ 1, ..me.clone() });
        part_of("dead", ProcessIdentity { pid: 4_194_305, start: 1, home: me.home });
        let elsewhere =
            part_of("elsewhere", ProcessIdentity { pid: 4_194_305, start: 1, home: me.home ^ 1 });
        let abandoned =
            part_of("abandoned", ProcessIdentity { pid: 4_194_306, start: 1, home: me.home ^ 1 });
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let set_old = |name: &str| {
            let file = File::options().write(true).open(store.path().join(name)).unwrap();
            file.set_modified(hour_ago).unwrap();
            file
        };
        drop(set_old(&abandoned));
        let locked =
            part_of("locked", ProcessIdentity { pid: 4_194_307, start: 1, home: me.home ^ 1 });
        let lock = set_old(&locked);
        assert_eq!(Dir::try_lock(&lock).unwrap(), Some(true));
        // Rings of the recorder: of a process that was killed before its ring had a name, of one that is at it,
        // and of one that has only begun.
        let ring = |name: &str| {
            std::fs::write(store.path().join(name), "x").unwrap();
            name.to_owned()
        };
        drop(set_old(&ring("run.shop.7.rec.part")));
        let filling = ring("run.shop.7.2.rec.part");
        let filled = set_old(&filling);
        assert_eq!(Dir::try_lock(&filled).unwrap(), Some(true));
        let begun = ring("run.shop.7.3.rec.part");
        std::fs::write(store.path().join("theirs.part"), "x").unwrap();
        std::fs::write(store.path().join("a.b.c.d.e.part"), "x").unwrap();

        Store::open(&options(root.path())).unwrap();
        let live_name = live.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected = vec![
            ".gitignore".to_owned(),
            live_name,
            elsewhere,
            locked,
            filling,
            begun,
            "theirs.part".to_owned(),
            "a.b.c.d.e.part".to_owned(),
        ];
        expected.sort();
        assert_eq!(names(store.path()), expected);
    }

    fn entry(name: &str, size_bytes: u64, age_hours: u64, now: SystemTime) -> DirEntry {
        DirEntry {
            name: name.to_owned(),
            size_bytes,
            modified: now - Duration::from_secs(age_hours * 3600),
        }
    }

    #[test]
    fn retention_takes_the_oldest_keeps_baseline_and_newest_and_findings_to_the_last() {
        let now = SystemTime::now();
        let snapshot = |n: u32| format!("Heap.20260101.000000.1.0.{n:03}.heapsnapshot");
        let meta = |n: u32| format!("Snapshot.20260101.000000.1.0.{n:03}.meta");
        let finding = |n: u32| format!("Finding.20260101.000000.1.0.{n:03}.json");
        let profile = "Heap.20260101.000000.1.0.020.heapprofile".to_owned();
        let entries = vec![
            entry(&snapshot(1), 100, 40, now), // baseline
            entry(&meta(1), 1, 40, now),
            entry(&snapshot(2), 100, 30, now),
            entry(&meta(2), 1, 29, now),
            entry(&profile, 5, 25, now),
            entry(&snapshot(3), 100, 20, now),
            entry(&snapshot(4), 100, 10, now), // newest
            entry(&meta(4), 1, 10, now),
            entry(&finding(5), 2, 50, now),
            entry(&finding(6), 2, 5, now),
            entry("leakguard.state", 10, 0, now),
            entry("run.shop.12.rec", 40, 0, now),
            entry("run.shop.11.rec", 40, 28, now),
        ];
        let total: u64 = entries.iter().map(|e| e.size_bytes).sum();
        let baselines = HashSet::from(["20260101.000000.1.0.001".to_owned()]);
        let plan = |quota, needed| plan_retention(&entries, now, quota, needed, &baselines);

        assert_eq!(plan(total, 0), RetentionPlan { remove: vec![], kept_bytes: total, fits: true });
        assert_eq!(plan(total, 1).remove, [snapshot(2), meta(2)]);
        let mut order = vec![snapshot(2), meta(2), "run.shop.11.rec".into(), profile, snapshot(3)];
        assert_eq!(plan(total, 200).remove, order);
        order.extend([finding(5), finding(6)]);
        let everything = plan(total, u64::MAX);
        assert_eq!(everything.remove, order);
        assert!(!everything.fits);
        assert_eq!(everything.kept_bytes, 100 + 1 + 100 + 1 + 10 + 40);
    }

    #[test]
    fn a_quota_is_kept_by_removing_and_a_file_that_cannot_fit_removes_nothing() {
        let (_root, store) = store();
        store.set_max_disk_bytes(10_000);
        let mut written = Vec::new();
        for age in [3_u64, 2, 1] {
            let name = store.write_new(SNAPSHOT, now(), 0, &[b'x'; 3000]).unwrap();
            let file = File::options().write(true).open(store.path_of(&name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age * 3600)).unwrap();
            written.push(name);
        }
        let error = store.write_new(SNAPSHOT, now(), 0, &[b'x'; 7001]).unwrap_err();
        assert!(matches!(error, StoreError::Quota { available: 6998, .. }), "{error}");
        let refusal = error.to_refusal();
        assert_eq!(refusal.reason, RefusalReason::DiskQuota);
        assert_eq!(refusal.sufficient, Some(10_003));
        assert_eq!(store.list().unwrap().len(), 3, "nothing was removed in vain");

        let fourth = store.write_new(SNAPSHOT, now(), 0, &[b'x'; 3000]).unwrap();
        let left: Vec<EvidenceName> = store.list().unwrap().into_iter().map(|f| f.name).collect();
        assert_eq!(left, [written[1].clone(), written[2].clone(), fourth]);
    }

    #[cfg(unix)]
    #[test]
    fn retention_touches_neither_files_of_others_nor_links() {
        let (root, store) = store();
        let outside = root.path().join("outside");
        std::fs::write(&outside, vec![0; 5000]).unwrap();
        let link = EvidenceName::next(SNAPSHOT, now(), 0);
        std::os::unix::fs::symlink(&outside, store.path_of(&link)).unwrap();
        std::fs::write(store.path().join("notes.txt"), vec![0; 50_000]).unwrap();
        store.write_new(SNAPSHOT, now(), 0, &[b'x'; 3000]).unwrap();
        store.set_max_disk_bytes(4000);
        store.write_new(Kind::Finding, now(), 0, &[b'x'; 100]).unwrap();
        store.make_room(u64::MAX).unwrap_err();
        assert!(outside.exists() && store.path().join("notes.txt").exists());
        assert!(store.path_of(&link).is_symlink());
    }

    /// A tmpfs of `size` bytes, unmounted on drop. Needs root.
    #[cfg(target_os = "linux")]
    pub(crate) struct SmallDisk(pub tempfile::TempDir);

    #[cfg(target_os = "linux")]
    impl SmallDisk {
        pub fn mount(size: u64) -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            let mounted = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "leakguard-test"])
                .arg(dir.path())
                .stderr(std::process::Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
            if !mounted {
                skipped("a small tmpfs cannot be mounted here, it takes root");
                return None;
            }
            Some(Self(dir))
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let unmounted = std::process::Command::new("umount").arg(self.0.path()).status();
            assert!(unmounted.is_ok_and(|status| status.success()));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_with_numbers_and_leaves_no_half_file() {
        let Some(disk) = SmallDisk::mount(1 << 20) else { return };
        let store = Store::open(&options(disk.0.path())).unwrap();
        assert!(store.is_memory());
        assert!(store.free_bytes().unwrap() <= 1 << 20);
        let error = store.write_new(Kind::Finding, now(), 0, &vec![b'x'; 2 << 20]).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { free: Some(_), .. }), "{error}");
        assert_eq!(error.to_refusal().reason, RefusalReason::DiskFree);
        assert_eq!(names(store.path()), [".gitignore"]);
        // A process that another test is just starting may hold the removed part open until its exec.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while store.free_bytes() == Some(0) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        store.write_new(Kind::Finding, now(), 0, b"{}").unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_read_only_directory_is_replaced_even_for_root() {
        let Some(disk) = SmallDisk::mount(1 << 20) else { return };
        let remounted = std::process::Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(disk.0.path())
            .status();
        assert!(remounted.is_ok_and(|status| status.success()));
        let root = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            dir: disk.0.path().to_owned(),
            max_disk_bytes: MIB,
            temp_dir: root.path().to_owned(),
        };
        let store = Store::open(&options).unwrap();
        assert_eq!(store.path(), root.path().join(private_name()));
        assert!(matches!(store.take_warnings()[..], [StoreWarning::Fallback { .. }]));
    }
}
