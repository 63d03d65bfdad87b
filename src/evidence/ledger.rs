//! The state of a directory under its one lock: claiming a finding, reserving a snapshot, noting its end.
//! Check and write are one step, so that neither a restart nor a sister process forgets or overspends.
//!
//! It decides nothing itself: the rules are in `state` and `budget`.
//!
//! The lock is `flock` on a file of its own (never on the state, which is replaced at each write): it
//! ends with the process however that ends. It is tried for two seconds and then refused, so call this
//! from native threads only.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use super::budget::{
    self, Allowance, Decision, Figures, Limits, Refusal, RefusalReason, SnapshotRequest, Unit,
};
use super::dir::Dir;
use super::identity::ProcessIdentity;
use super::name::{EvidenceName, Kind, WallMillis};
use super::state::{CooldownKey, Cost, MAX_STATE_BYTES, Outcome, SnapshotRecord, State};
use super::store::{BAD_STATE_NAME, LOCK_NAME, STATE_NAME, Store, StoreError, StoreWarning};

/// How long the lock is tried for. It is held for a few small reads and one small write.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Larger than any finding's file.
const MAX_FINDING_BYTES: u64 = 4 << 20;
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// A snapshot that may begin, and already counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    id: u64,
    /// How, and what it may cost.
    pub allowance: Allowance,
}

/// Held while the state is looked at and changed.
struct DirLock(#[allow(dead_code, reason = "closing the file is the unlocking")] File);

impl Store {
    /// Asks for the right to report a finding, and begins its cooldown. Refused if one of the same key was
    /// reported less than `cooldown_millis` ago, by whichever process and run.
    ///
    /// # Errors
    /// The refusal. Only `cooldown` calls for silence; `lock_busy`, `state` and `disk_free` say that the
    /// directory cannot be asked, and a finding may still be reported by event and log.
    pub fn claim_finding(
        &self,
        now: WallMillis,
        key: &CooldownKey,
        cooldown_millis: u64,
    ) -> Result<(), Refusal> {
        self.update_state(now, |state| match state.cooling(now, key, cooldown_millis) {
            None => {
                state.start_cooldown(now, key);
                Ok(())
            }
            Some(last) => {
                let since = now.0.saturating_sub(last.0);
                Err(Refusal::with_numbers(
                    RefusalReason::Cooldown,
                    Unit::Millis,
                    (cooldown_millis, since, since),
                    format!(
                        "the last finding for {} was {} ago, the cooldown is {}",
                        key.series,
                        budget::duration(since),
                        budget::duration(cooldown_millis)
                    ),
                ))
            }
        })?
    }

    /// Decides on a snapshot and, if it may be taken, counts it and makes room for its file, in one step.
    /// `figures` need not have its disk members: they are filled here. The quota is that of the store.
    ///
    /// # Errors
    /// The refusal, with its numbers.
    pub fn reserve_snapshot(
        &self,
        now: WallMillis,
        request: &SnapshotRequest,
        figures: &Figures,
        limits: &Limits,
    ) -> Result<Grant, Refusal> {
        let (figures, limits) = self.with_disk(figures, limits)?;
        self.update_state(now, |state| {
            let predictions = state.predictions(request.node_major);
            let view = state.view(now, request);
            match budget::decide(now, request, &figures, &predictions, &limits, &view) {
                Decision::Refuse(refusal) => Err(refusal),
                Decision::Take(allowance) => {
                    self.make_room(allowance.predicted_file_bytes)
                        .map_err(|error| error.to_refusal())?;
                    let id = state.begin(SnapshotRecord {
                        id: 0,
                        at: now,
                        by: Some(ProcessIdentity::current().clone()),
                        reason: Some(request.reason),
                        key: request.key.clone(),
                        mode: Some(allowance.mode),
                        node_major: request.node_major,
                        heap_bytes: allowance.heap_bytes,
                        expires: WallMillis(now.0.saturating_add(allowance.timeout_millis)),
                        outcome: Outcome::Started,
                        cost: Cost::default(),
                        file: None,
                    });
                    Ok(Grant { id, allowance })
                }
            }
        })?
    }

    fn with_disk(&self, figures: &Figures, limits: &Limits) -> Result<(Figures, Limits), Refusal> {
        let figures = Figures {
            disk_free_bytes: self.free_bytes(),
            disk_is_memory: self.is_memory(),
            quota_used_bytes: self.unremovable_bytes().map_err(|error| error.to_refusal())?,
            ..figures.clone()
        };
        Ok((figures, Limits { max_disk_bytes: self.max_disk_bytes(), ..limits.clone() }))
    }

    /// Notes that a snapshot became the file `file`, and learns from its cost.
    ///
    /// # Errors
    /// `lock_busy`, `state`, `disk_free`: the snapshot counts all the same, only its cost is forgotten.
    pub fn finish_snapshot(
        &self,
        now: WallMillis,
        grant: &Grant,
        cost: Cost,
        file: &str,
    ) -> Result<(), Refusal> {
        let me = ProcessIdentity::current();
        self.update_state(now, |state| {
            state.finish(grant.id, me, Outcome::Taken, cost, Some(file.to_owned()));
        })
    }

    /// Notes that a snapshot was begun and came to nothing. It counts: its pause was paid.
    ///
    /// # Errors
    /// As [`Store::finish_snapshot`].
    pub fn fail_snapshot(&self, now: WallMillis, grant: &Grant, cost: Cost) -> Result<(), Refusal> {
        let me = ProcessIdentity::current();
        self.update_state(now, |state| {
            state.finish(grant.id, me, Outcome::Failed, cost, None);
        })
    }

    /// Gives back a snapshot that was not begun: it does not count.
    ///
    /// # Errors
    /// As [`Store::finish_snapshot`]; it goes on counting then.
    pub fn cancel_snapshot(&self, now: WallMillis, grant: &Grant) -> Result<(), Refusal> {
        self.update_state(now, |state| state.cancel(grant.id, ProcessIdentity::current()))
    }

    /// Reads the state, lets `change` look at it and change it, and writes it back if it did, all under the
    /// lock. A state that is missing or damaged is rebuilt from the files of the directory; a damaged
    /// one is kept as `leakguard.state.bad` and a warning left for [`Store::take_warnings`].
    ///
    /// # Errors
    /// `lock_busy` if the lock was not to be had within two seconds, `disk_free` or `state` if the state
    /// cannot be written: then nothing was changed, and what was asked for must not happen.
    pub fn update_state<R>(
        &self,
        now: WallMillis,
        change: impl FnOnce(&mut State) -> R,
    ) -> Result<R, Refusal> {
        let _lock = self.lock()?;
        let before = self.load_state()?;
        let mut state = before.clone().unwrap_or_else(|| rebuilt_state(self));
        state.settle(now);
        let result = change(&mut state);
        if before.as_ref() != Some(&state) {
            let bytes =
                state.to_bytes().map_err(|error| Refusal::plain(RefusalReason::State, error))?;
            self.replace_internal(STATE_NAME, &bytes).map_err(|error| error.to_refusal())?;
        }
        Ok(result)
    }

    fn lock(&self) -> Result<DirLock, Refusal> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match self
                .dir()
                .open_lock(LOCK_NAME)
                .and_then(|file| Dir::try_lock(&file).map(|locked| (file, locked)))
            {
                Ok((file, Some(true))) => return Ok(DirLock(file)),
                Ok((_, None)) => {
                    return Err(Refusal::plain(
                        RefusalReason::State,
                        format!(
                            "the file system of {} has no file locks: counts and cooldowns cannot be kept",
                            self.path().display()
                        ),
                    ));
                }
                Ok((_, Some(false))) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    return Err(StoreError::io("lock", LOCK_NAME)(error).to_refusal());
                }
            }
            if Instant::now() >= deadline {
                return Err(Refusal::with_numbers(
                    RefusalReason::LockBusy,
                    Unit::Millis,
                    (1, 0, 1),
                    format!(
                        "the lock {LOCK_NAME} of the evidence directory was held by another process for {}",
                        budget::duration(LOCK_PATIENCE.as_millis().try_into().unwrap_or(u64::MAX))
                    ),
                ));
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    /// The state as written, or `None` if it has to be rebuilt.
    fn load_state(&self) -> Result<Option<State>, Refusal> {
        let cause = match self.read_internal(STATE_NAME, MAX_STATE_BYTES) {
            Ok(bytes) => match State::parse(&bytes) {
                Ok(state) => return Ok(Some(state)),
                Err(cause) => cause,
            },
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => error.to_string(),
        };
        // Renaming moves a link or a directory itself, and touches nothing behind it.
        let _ = self.dir().remove(BAD_STATE_NAME);
        self.dir()
            .rename_over(STATE_NAME, BAD_STATE_NAME)
            .map_err(|error| StoreError::io("set aside", STATE_NAME)(error).to_refusal())?;
        self.warn(StoreWarning::StateRebuilt { cause });
        Ok(None)
    }
}

/// The state as the files of the directory prove it.
pub(super) fn rebuilt_state(store: &Store) -> State {
    // A directory that cannot be listed cannot be written to either: the save will say so.
    let files = store.list().unwrap_or_default();
    let mut findings: Vec<_> =
        files.iter().filter(|file| file.name.kind() == Kind::Finding).collect();
    findings.sort_by_key(|file| std::cmp::Reverse(file.modified));
    let newest_finding = findings
        .into_iter()
        .find(|file| begins_cooldown(store, &file.name))
        .map(|file| file.modified);
    State::from_files(
        files
            .iter()
            .filter(|file| matches!(file.name.kind(), Kind::Snapshot(_)))
            .map(|file| (file.name.to_string(), file.modified)),
        newest_finding,
    )
}

/// Whether a finding that was written kept others silent: one near the end does not. What cannot be read is taken
/// to have done so.
fn begins_cooldown(store: &Store, name: &EvidenceName) -> bool {
    let Ok(bytes) = store.read(name, MAX_FINDING_BYTES) else { return true };
    serde_json::from_slice::<serde_json::Value>(&bytes)
        .map_or(true, |finding| finding["nearLimit"].is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SnapshotMode;
    use crate::evidence::budget::SnapshotReason;
    use crate::evidence::name::{Compression, EvidenceName};
    use crate::evidence::store::tests::{MIB, names, options, store};

    const HOUR: u64 = 3_600_000;

    fn key(series: &str) -> CooldownKey {
        CooldownKey { app: "shop@1".into(), series: series.into(), cause: "app.js:12".into() }
    }

    fn request() -> SnapshotRequest {
        SnapshotRequest {
            reason: SnapshotReason::OnDemand,
            key: None,
            modes: SnapshotMode::Inline,
            fork_possible: false,
            node_major: 22,
            compression: Compression::None,
            shutting_down: false,
            in_progress: false,
        }
    }

    fn figures() -> Figures {
        Figures { live_heap_bytes: 10 * MIB, ..Figures::default() }
    }

    fn reserve(store: &Store) -> Result<Grant, Refusal> {
        store.reserve_snapshot(WallMillis::now(), &request(), &figures(), &Limits::default())
    }

    fn take(store: &Store) -> Result<(), Refusal> {
        let grant = reserve(store)?;
        store.finish_snapshot(WallMillis::now(), &grant, Cost::default(), "Heap")
    }

    fn put_snapshot(store: &Store) -> EvidenceName {
        store.write_new(Kind::Snapshot(Compression::None), WallMillis::now(), 0, b"{}").unwrap()
    }

    #[test]
    fn where_the_state_is_lost_a_finding_near_the_end_silences_nobody_and_any_other_does() {
        for (near, silent) in [(r#"{"limit":"heap"}"#, false), ("null", true)] {
            let (_directory, store) = store();
            let now = WallMillis::now();
            let name = EvidenceName::next(Kind::Finding, now, 0);
            store.write_named(&name, format!(r#"{{"nearLimit":{near}}}"#).as_bytes()).unwrap();
            let claimed = store.claim_finding(now, &key("live_heap"), HOUR);
            assert_eq!(claimed.is_err(), silent, "{near}: {claimed:?}");
        }
    }

    #[test]
    fn the_count_survives_a_restart_and_cancelling_gives_it_back() {
        let (root, store) = store();
        for _ in 0..3 {
            take(&store).unwrap();
        }
        let grant = reserve(&store).unwrap();
        assert_eq!(reserve(&store).unwrap_err().reason, RefusalReason::Busy);
        store.cancel_snapshot(WallMillis::now(), &grant).unwrap();
        let grant = reserve(&store).unwrap();
        store.fail_snapshot(WallMillis::now(), &grant, Cost::default()).unwrap();
        drop(store);
        let again = Store::open(&options(root.path())).unwrap();
        assert_eq!(reserve(&again).unwrap_err().reason, RefusalReason::Count);
    }

    #[test]
    fn a_finding_is_claimed_once_per_cooldown_by_whoever_comes_first() {
        let (root, store) = store();
        let sister = Store::open(&options(root.path())).unwrap();
        let now = WallMillis::now();
        store.claim_finding(now, &key("live_heap"), HOUR).unwrap();
        let refusal = sister.claim_finding(now, &key("live_heap"), HOUR).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Cooldown);
        sister.claim_finding(now, &key("fds"), HOUR).unwrap();
        sister.claim_finding(WallMillis(now.0 + HOUR), &key("live_heap"), HOUR).unwrap();
    }

    #[test]
    fn a_cooldown_from_the_future_ends_one_cooldown_after_it_was_first_seen() {
        let (_root, store) = store();
        let now = WallMillis::now();
        store.claim_finding(WallMillis(now.0 + 1000 * HOUR), &key("fds"), HOUR).unwrap();
        store.claim_finding(now, &key("fds"), HOUR).unwrap_err();
        store.claim_finding(WallMillis(now.0 + HOUR), &key("fds"), HOUR).unwrap();
    }

    #[test]
    fn many_processes_together_take_no_more_than_one_may() {
        let (root, _store) = store();
        let taken = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // A store of its own has its own descriptor of the lock, as a process has.
                    let store = Store::open(&options(root.path())).unwrap();
                    for _ in 0..40 {
                        match take(&store) {
                            Ok(()) => {
                                taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                            Err(refusal) if refusal.reason == RefusalReason::Count => break,
                            Err(refusal) => assert_eq!(refusal.reason, RefusalReason::Busy),
                        }
                    }
                });
            }
        });
        let (_, count) = Store::open(&options(root.path()))
            .unwrap()
            .update_state(WallMillis::now(), |state| ((), state.snapshots().len()))
            .unwrap();
        assert_eq!(count, 4);
        assert_eq!(taken.into_inner(), 4);
    }

    #[test]
    fn a_held_lock_is_a_refusal_and_not_a_wait_for_ever() {
        let (_root, store) = store();
        let held = store.lock().unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(reserve(&store).unwrap_err().reason, RefusalReason::LockBusy);
        drop(held);
        reserve(&store).unwrap();
    }

    #[test]
    fn damage_to_the_state_frees_no_limit() {
        let deep = "[".repeat(100_000);
        let huge = " ".repeat(5 << 20);
        for damage in ["", "{\"schema\":1,\"snapsh", "null", &deep, &huge, "\u{0}\u{0}\u{0}\u{0}"] {
            let (_root, store) = store();
            for _ in 0..4 {
                put_snapshot(&store);
            }
            store.write_new(Kind::Finding, WallMillis::now(), 0, b"{}").unwrap();
            std::fs::write(store.path().join(STATE_NAME), damage).unwrap();
            assert_eq!(reserve(&store).unwrap_err().reason, RefusalReason::Count);
            let refusal =
                store.claim_finding(WallMillis::now(), &key("fds"), 6 * HOUR).unwrap_err();
            assert_eq!(refusal.reason, RefusalReason::Cooldown);
            assert!(matches!(store.take_warnings()[..], [StoreWarning::StateRebuilt { .. }]));
            assert!(store.path().join(BAD_STATE_NAME).exists());
        }
    }

    #[test]
    fn a_state_that_was_removed_frees_no_limit() {
        let (_root, store) = store();
        for _ in 0..4 {
            put_snapshot(&store);
        }
        assert_eq!(reserve(&store).unwrap_err().reason, RefusalReason::Count);
        assert_eq!(store.take_warnings(), []);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_directories_in_place_of_state_and_lock_are_not_followed() {
        let (root, store) = store();
        let outside = root.path().join("outside");
        std::fs::write(&outside, r#"{"schema":1}"#).unwrap();
        std::os::unix::fs::symlink(&outside, store.path().join(STATE_NAME)).unwrap();
        take(&store).unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), br#"{"schema":1}"#);
        std::fs::remove_file(store.path().join(STATE_NAME)).unwrap();
        std::fs::create_dir_all(store.path().join(STATE_NAME).join("full")).unwrap();
        take(&store).unwrap();

        std::fs::remove_file(store.path().join(LOCK_NAME)).unwrap();
        std::os::unix::fs::symlink(&outside, store.path().join(LOCK_NAME)).unwrap();
        assert_eq!(take(&store).unwrap_err().reason, RefusalReason::State);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn on_a_full_disk_nothing_is_granted() {
        use crate::evidence::store::tests::SmallDisk;
        let Some(disk) = SmallDisk::mount(256 << 10) else { return };
        let store = Store::open(&options(disk.0.path())).unwrap();
        let filler = disk.0.path().join("filler");
        std::fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
        let refusal = store.claim_finding(WallMillis::now(), &key("fds"), HOUR).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::DiskFree);
        assert_eq!(reserve(&store).unwrap_err().reason, RefusalReason::DiskFree);
        std::fs::remove_file(filler).unwrap();
        store.claim_finding(WallMillis::now(), &key("fds"), HOUR).unwrap();
        assert!(!names(store.path()).iter().any(|name| name.ends_with(".part")));
    }

    #[test]
    fn a_reservation_makes_room_for_its_file() {
        let (_root, store) = store();
        let big = vec![0; 3 * MIB as usize];
        let kind = Kind::Snapshot(Compression::None);
        let old: Vec<_> =
            (0..3).map(|_| store.write_new(kind, WallMillis::now(), 0, &big).unwrap()).collect();
        store.update_state(WallMillis::now(), |state| state.snapshots.clear()).unwrap();
        store.set_max_disk_bytes(27 * MIB); // predicted: 22 MiB
        let grant = reserve(&store).unwrap();
        assert_eq!(grant.allowance.predicted_file_bytes, 22 * MIB);
        let left: Vec<_> = store.list().unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(left.len(), 1);
        assert!(old.contains(&left[0]));
        assert!(grant.allowance.max_file_bytes <= 24 * MIB);
    }
}
