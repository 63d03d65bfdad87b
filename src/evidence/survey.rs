//! A look at an evidence directory that leaves it as it was: what the guard of an app would find there, for
//! `leakguard doctor`. Whoever looks may be another user than the app, so nothing is created that stays: a file
//! of root's in the way would do the harm that the look is to find.
//!
//! It decides nothing about growth and names no remedy; the decision on a snapshot is that of [`budget`].

use std::io;
use std::path::{Path, PathBuf};

use super::budget::{self, Decision, Figures, Limits, SnapshotRequest};
use super::dir::Dir;
use super::ledger::rebuilt_state;
use super::name::WallMillis;
use super::state::{MAX_STATE_BYTES, State};
use super::store::{
    LOCK_NAME, STATE_NAME, Store, StoreError, StoreOptions, private_name, try_writing,
};

/// Entries of a directory that are looked at for links.
const MAX_ENTRIES: usize = 10_000;
/// Links that are named.
const MAX_LINKS: usize = 8;

/// What was found.
#[derive(Debug)]
pub struct Survey {
    /// The configured directory, absolute.
    pub wanted: PathBuf,
    /// Where it leads, if it is a link. That is allowed: the operator set it.
    pub link_to: Option<PathBuf>,
    /// Why evidence cannot go there.
    pub cause: Option<String>,
    /// Where evidence goes instead of `wanted`, or in it if everybody may write there; `None` if nowhere.
    pub used: Option<PathBuf>,
    /// Whether `used` is there already; if not, the guard can make it.
    pub exists: bool,
    /// Whether `wanted` is writable for everybody, so that a private child of it is used.
    pub private_child: bool,
    /// Owner and permission bits of `used`, where the platform has them.
    pub owner: Option<Owner>,
    /// Names of links inside `used`; the guard follows none.
    pub links: Vec<String>,
    /// What is wrong with the state or the lock that all processes of the directory share.
    pub shared_problem: Option<String>,
    /// Bytes of the guard's files.
    pub used_bytes: u64,
    /// Bytes of them that retention keeps in any case.
    pub unremovable_bytes: u64,
    /// Bytes that can still be written to the file system.
    pub free_bytes: Option<u64>,
    /// Whether that file system is memory.
    pub is_memory: bool,
    state: State,
}

/// Whose a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its owner.
    pub uid: u32,
    /// Who looks.
    pub me: u32,
    /// Permission bits.
    pub mode: u32,
}

/// A place for evidence.
enum Place {
    There(Dir, bool),
    ToMake(PathBuf, PathBuf),
}

impl Survey {
    /// Looks at the directory that these settings lead to. A probe file is written and removed at once.
    #[must_use]
    pub fn of(options: &StoreOptions, now: WallMillis) -> Self {
        let wanted = std::path::absolute(&options.dir).unwrap_or_else(|_| options.dir.clone());
        let link_to = std::fs::read_link(&wanted).ok();
        let mut survey = Self {
            link_to,
            wanted,
            cause: None,
            used: None,
            exists: false,
            private_child: false,
            owner: None,
            links: Vec::new(),
            shared_problem: None,
            used_bytes: 0,
            unremovable_bytes: 0,
            free_bytes: None,
            is_memory: false,
            state: State::default(),
        };
        let place = place(&survey.wanted).or_else(|cause| {
            survey.cause = Some(cause.to_string());
            fallback(&options.temp_dir)
        });
        match place {
            Ok(Place::There(dir, private_child)) => {
                survey.private_child = private_child;
                survey.look_into(dir, options.max_disk_bytes, now);
            }
            Ok(Place::ToMake(path, below)) => {
                let disk = crate::probe::disk_free(&below);
                survey.free_bytes = disk.map(|disk| disk.free_bytes);
                survey.is_memory = disk.is_some_and(|disk| disk.is_memory);
                survey.private_child = survey.cause.is_none() && path != survey.wanted;
                survey.used = Some(path);
            }
            Err(error) => {
                let first = survey.cause.take().unwrap_or_default();
                survey.cause = Some(format!("{first}; nor one in the temp directory: {error}"));
            }
        }
        survey
    }

    fn look_into(&mut self, dir: Dir, max_disk_bytes: u64, now: WallMillis) {
        self.exists = true;
        self.used = Some(dir.path().to_owned());
        self.owner = owner(dir.path());
        self.links = links(dir.path());
        let store = Store::look_at(dir, max_disk_bytes);
        self.free_bytes = store.free_bytes();
        self.is_memory = store.is_memory();
        self.used_bytes = store.used_bytes().unwrap_or(0);
        self.unremovable_bytes = store.unremovable_bytes().unwrap_or(0);
        let (state, problem) = read_state(&store);
        self.state = state;
        self.state.settle(now);
        self.shared_problem = problem;
    }

    /// What the decision on a snapshot would be now. `figures` need not have its disk members. Reserves nothing.
    #[must_use]
    pub fn preview(
        &self,
        now: WallMillis,
        request: &SnapshotRequest,
        figures: &Figures,
        limits: &Limits,
    ) -> Decision {
        let figures = Figures {
            disk_free_bytes: self.free_bytes,
            disk_is_memory: self.is_memory,
            quota_used_bytes: self.unremovable_bytes,
            ..figures.clone()
        };
        let predictions = self.predictions(request.node_major);
        budget::decide(now, request, &figures, &predictions, limits, &self.state.view(now, request))
    }

    /// What the directory has learnt of the cost of snapshots.
    #[must_use]
    pub fn predictions(&self, node_major: u32) -> budget::Predictions {
        self.state.predictions(node_major)
    }
}

/// Finds what [`Store::open`] would use, without making it.
fn place(wanted: &Path) -> io::Result<Place> {
    let dir = match Dir::open(wanted) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return to_make(wanted),
        Err(error) => return Err(error),
    };
    if !dir.is_world_writable()? {
        return try_writing(&dir).map(|()| Place::There(dir, false));
    }
    private_child(dir.path(), true)
}

fn fallback(temp: &Path) -> io::Result<Place> {
    private_child(&std::path::absolute(temp)?, false)
}

/// The child of `parent` that only this user may use.
fn private_child(parent: &Path, of_wanted: bool) -> io::Result<Place> {
    let path = parent.join(private_name());
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            may_make_in(parent)?;
            return Ok(Place::ToMake(path, parent.to_owned()));
        }
        Err(error) => return Err(error),
    };
    if !found.is_dir() {
        let what = format!("{} is a link or a file", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    if let Some(owner) = owner(&path).filter(|owner| owner.uid != owner.me) {
        let what = format!("{} belongs to user {}", path.display(), owner.uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let dir = Dir::open(&path)?;
    try_writing(&dir).map(|()| Place::There(dir, of_wanted))
}

/// A directory that is not there yet: whether it can be made below the nearest one that is.
fn to_make(wanted: &Path) -> io::Result<Place> {
    let below = wanted.ancestors().skip(1).find(|path| path.exists()).unwrap_or(Path::new("/"));
    if !below.is_dir() {
        let what = format!("{} is not a directory", below.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, what));
    }
    may_make_in(below)?;
    Ok(Place::ToMake(wanted.to_owned(), below.to_owned()))
}

#[cfg(unix)]
fn may_make_in(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let needed = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, directory, needed, AtFlags::EACCESS).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(
            error.kind(),
            format!("it is not there, and {}: {error}", directory.display()),
        )
    })
}

#[cfg(not(unix))]
fn may_make_in(_directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn owner(path: &Path) -> Option<Owner> {
    use std::os::unix::fs::MetadataExt;
    let found = path.metadata().ok()?;
    Some(Owner {
        uid: found.uid(),
        me: rustix::process::geteuid().as_raw(),
        mode: found.mode() & 0o7777,
    })
}

#[cfg(not(unix))]
fn owner(_path: &Path) -> Option<Owner> {
    None
}

fn links(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut links: Vec<String> = entries
        .take(MAX_ENTRIES)
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    links.sort();
    links.truncate(MAX_LINKS);
    links
}

/// The state without its lock: it is replaced whole at each write, so what is read is one of its versions.
fn read_state(store: &Store) -> (State, Option<String>) {
    let absent = |error: &StoreError| matches!(error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
    let lock = match store.read_internal(LOCK_NAME, MAX_STATE_BYTES) {
        Err(error) if !absent(&error) => Some(error.to_string()),
        _ => None,
    };
    let (state, problem) = match store.read_internal(STATE_NAME, MAX_STATE_BYTES) {
        Ok(bytes) => match State::parse(&bytes) {
            Ok(state) => (state, None),
            Err(cause) => {
                let words = format!(
                    "{STATE_NAME} could not be read ({cause}); the next start sets it aside and reckons counts \
                     and cooldowns anew from the files"
                );
                (rebuilt_state(store), Some(words))
            }
        },
        Err(error) if absent(&error) => (rebuilt_state(store), None),
        Err(error) => (rebuilt_state(store), Some(error.to_string())),
    };
    (state, lock.or(problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SnapshotMode;
    use crate::evidence::budget::SnapshotReason;
    use crate::evidence::name::Compression;
    use crate::evidence::store::tests::names;

    fn options(dir: &Path, temp: &Path) -> StoreOptions {
        StoreOptions { dir: dir.to_owned(), max_disk_bytes: 512 << 20, temp_dir: temp.to_owned() }
    }

    fn survey(dir: &Path) -> Survey {
        Survey::of(&options(dir, dir), WallMillis::now())
    }

    #[test]
    fn a_look_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let found = survey(root.path());
        assert_eq!((found.exists, found.cause, found.used_bytes), (true, None, 0));
        assert_eq!(names(root.path()), [""; 0]);
        let absent = survey(&root.path().join("a/b"));
        assert_eq!((absent.exists, absent.cause.as_deref()), (false, None));
        assert_eq!(absent.used.unwrap(), root.path().join("a/b"));
        assert!(absent.free_bytes.unwrap() > 0);
        assert_eq!(names(root.path()), [""; 0]);
    }

    #[test]
    fn it_finds_what_the_store_will_use() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("evidence");
        let before = survey(&dir);
        let store = Store::open(&options(&dir, root.path())).unwrap();
        assert_eq!(before.used.as_deref(), Some(store.path()));
        let after = survey(&dir);
        assert_eq!(after.used.as_deref(), Some(store.path()));
        assert!(after.exists && after.shared_problem.is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_for_everybody_leads_to_the_private_child() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let before = survey(root.path());
        assert!(before.private_child && !before.exists);
        let store = Store::open(&options(root.path(), root.path())).unwrap();
        assert_eq!(before.used.as_deref(), Some(store.path()));
        let after = survey(root.path());
        assert!(after.private_child && after.exists);
        assert_eq!(after.owner.unwrap().mode, 0o700);
    }

    #[test]
    fn what_is_no_directory_leads_to_the_temp_directory_with_the_cause() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        for wanted in [file.clone(), file.join("below")] {
            let found = Survey::of(&options(&wanted, root.path()), WallMillis::now());
            assert!(found.cause.is_some(), "{wanted:?}");
            assert_eq!(found.used.unwrap(), root.path().join(private_name()));
            assert!(!found.private_child);
        }
        let nowhere = Survey::of(&options(&file, &file), WallMillis::now());
        assert_eq!(nowhere.used, None);
        assert!(nowhere.cause.unwrap().contains("nor one in the temp directory"));
    }

    #[cfg(unix)]
    #[test]
    fn links_inside_are_named_and_a_linked_state_is_a_problem() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join(STATE_NAME)).unwrap();
        let found = survey(root.path());
        assert_eq!(found.links, [STATE_NAME]);
        assert!(found.shared_problem.unwrap().contains(STATE_NAME));
    }

    #[test]
    fn a_damaged_state_is_told_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(STATE_NAME), "{").unwrap();
        let found = survey(root.path());
        assert!(found.shared_problem.unwrap().contains("set"));
        assert_eq!(names(root.path()), [STATE_NAME]);
    }

    #[test]
    fn a_preview_says_what_a_reservation_would_and_reserves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&options(root.path(), root.path())).unwrap();
        let request = SnapshotRequest {
            reason: SnapshotReason::OnDemand,
            key: None,
            modes: SnapshotMode::Inline,
            fork_possible: false,
            node_major: 22,
            compression: Compression::None,
            shutting_down: false,
            in_progress: false,
        };
        let figures = Figures { live_heap_bytes: 10 << 20, ..Figures::default() };
        let limits = Limits { max_snapshots: 1, ..Limits::default() };
        let now = WallMillis::now();
        let preview = || survey(root.path()).preview(now, &request, &figures, &limits);
        let Decision::Take(first) = preview() else { panic!("refused") };
        assert_eq!(preview(), Decision::Take(first.clone()));
        let grant = store.reserve_snapshot(now, &request, &figures, &limits).unwrap();
        assert_eq!(first.predicted_peak_bytes, grant.allowance.predicted_peak_bytes);
        let Decision::Refuse(refusal) = preview() else { panic!("granted twice") };
        assert_eq!(refusal.reason, budget::RefusalReason::Busy);
    }
}
