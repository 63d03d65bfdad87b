//! The runs of this app that are over: finds their files, reads each back once for all processes of the
//! directory, completes their findings, and judges growth across them. The judgement itself is in
//! `postmortem`; runs that go on, known by the lock they hold, are left alone.
//!
//! Bounded: at most eight files a start, 8 MB each; 64 runs are remembered in `leakguard.state`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::Config;
use crate::evidence::{EvidenceName, Kind, ProcessIdentity, Store, WallMillis, at_limit};
use crate::postmortem::{self, AcrossRuns, RunSummary};
use crate::probe::HostIdentity;
use crate::recorder::{self, DEFAULT_KEPT_RUNS};

/// Runs that are read back at one start: the newest.
const MAX_READ: usize = 8;

/// A larger run file is not one that this guard makes.
const MAX_BYTES: u64 = 8 << 20;

/// Larger than any finding's file.
const MAX_FINDING_BYTES: u64 = 4 << 20;

/// A run that was looked at for the first time.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What is left of it.
    pub summary: RunSummary,
    /// Whether it had the memory cgroup that this process has; `None` if that is not known.
    pub same_container: Option<bool>,
    /// Its findings' files that were completed.
    pub completed: Vec<PathBuf>,
}

impl Seen {
    /// The event's payload.
    pub fn to_json(&self) -> Value {
        let mut json = self.summary.to_json(self.same_container);
        json["findingFiles"] = json!(self.completed);
        json
    }
}

/// What the past says at this start.
#[derive(Clone, Debug, Default)]
pub struct Previous {
    /// Runs seen for the first time, oldest first.
    pub seen: Vec<Seen>,
    /// Growth across runs, if one of those just seen makes it known.
    pub across: Option<AcrossRuns>,
}

/// Looks at the runs of `app` in the directory.
///
/// # Errors
/// One sentence, if the directory or its state cannot be read: then nothing is said of the past.
pub fn look_back(
    store: &Store,
    now: WallMillis,
    app: &str,
    app_version: &str,
    host: &HostIdentity,
    config: &Config,
) -> Result<Previous, String> {
    let runs = recorder::runs(store.path()).map_err(|error| error.to_string())?;
    let over: Vec<(PathBuf, String, u64)> = runs
        .into_iter()
        .filter(|run| run.running == Some(false))
        .filter_map(|run| {
            let header = run.header.filter(|header| header.app == app)?;
            let file = run.path.file_name()?.to_str()?.to_owned();
            Some((run.path, file, header.started_unix_ms))
        })
        .take(MAX_READ)
        .collect();
    let me = ProcessIdentity::current();
    let claimed: Vec<(PathBuf, String)> = if over.is_empty() {
        Vec::new()
    } else {
        store
            .update_state(now, |state| {
                let mine = |(path, file, started): (PathBuf, String, u64)| {
                    state.claim_run(now, me, &file, started).then_some((path, file))
                };
                over.into_iter().filter_map(mine).collect()
            })
            .map_err(|refusal| refusal.sentence)?
    };
    let mut seen: Vec<Seen> =
        claimed.iter().filter_map(|(path, file)| read(store, path, file, host)).collect();
    seen.sort_by_key(|seen| seen.summary.ended_ms);
    let mut across = None;
    if !seen.is_empty() {
        let known = store.update_state(now, |state| {
            seen.iter().for_each(|seen| state.record_run(&seen.summary));
            let same = |run: &&RunSummary| run.app == app && run.app_version == app_version;
            state.runs().filter(same).cloned().collect::<Vec<_>>()
        });
        // What was seen is told also where it cannot be kept: the claim makes this the only time.
        across = known
            .ok()
            .and_then(|known| postmortem::across(&known, config))
            // What was known before was said before.
            .filter(|across| {
                let newest = across.runs.last();
                newest.is_some_and(|run| seen.iter().any(|seen| seen.summary == *run))
            });
    }
    let _ = recorder::keep_newest(store.path(), app, DEFAULT_KEPT_RUNS);
    Ok(Previous { seen, across })
}

fn read(store: &Store, path: &Path, file: &str, host: &HostIdentity) -> Option<Seen> {
    if path.symlink_metadata().ok()?.len() > MAX_BYTES {
        return None;
    }
    let history = recorder::read_back(path).ok()?;
    let summary = postmortem::summarize(&history, file);
    let header = &history.header;
    let same_container = match (&header.boot_id, &host.boot_id) {
        (Some(then), Some(now)) if then != now => Some(false),
        (Some(_), Some(_)) => {
            header.cgroup_inode.zip(host.cgroup_inode).map(|(then, now)| then == now)
        }
        _ => None,
    };
    let completed = summary
        .findings
        .iter()
        .filter_map(|name| complete(store, name, &summary, same_container))
        .collect();
    Some(Seen { summary, same_container, completed })
}

/// The step of a finding that stands for the allocation profile Node writes when V8 reaches its heap limit.
pub const AT_LIMIT: &str = "profile_at_limit";

/// What it says once that profile is there.
pub const AT_LIMIT_WRITTEN: &str =
    "allocation profile written by Node as V8 reached its heap limit";

/// Brings in the profile that a run had Node write and did not live to bring in itself.
fn adopt_at_limit(store: &Store, pid: u32, step: &mut Value) {
    let Some(directory) = step["numbers"]["directory"].as_str() else { return };
    let since = WallMillis(step["numbers"]["sinceMs"].as_u64().unwrap_or(u64::MAX));
    let found = at_limit::find(Path::new(directory), pid, since);
    let now = WallMillis::now();
    if let Some((name, bytes)) = found.and_then(|path| at_limit::take(store, &path, now, 0).ok()) {
        step["state"] = json!("written");
        step["file"] = json!(name.to_string());
        step["sentence"] = json!(AT_LIMIT_WRITTEN);
        step["numbers"] = json!({ "fileBytes": bytes });
    }
}

/// Adds how the run ended to the file of a finding it made.
fn complete(
    store: &Store,
    name: &str,
    summary: &RunSummary,
    same_container: Option<bool>,
) -> Option<PathBuf> {
    // The name comes from a file: only one of our scheme is opened, in our directory, and no link.
    let name = EvidenceName::parse(name).filter(|name| name.kind() == Kind::Finding)?;
    let bytes = store.read(&name, MAX_FINDING_BYTES).ok()?;
    let mut finding: Value = serde_json::from_slice(&bytes).ok()?;
    let members = finding.as_object_mut()?;
    let mut postmortem = summary.to_json(same_container);
    if let Some(postmortem) = postmortem.as_object_mut() {
        postmortem.remove("findings");
    }
    members.insert("postmortem".into(), postmortem);
    // What was under way when it died will not come.
    for step in members.get_mut("evidence").and_then(Value::as_array_mut).into_iter().flatten() {
        if step["kind"] == AT_LIMIT && step["state"] == "pending" {
            adopt_at_limit(store, summary.pid, step);
        }
        if step["state"] == "pending" && step.is_object() {
            step["state"] = json!("failed");
            step["sentence"] = json!("the process ended before it was done");
        }
    }
    let bytes = serde_json::to_vec_pretty(&finding).ok()?;
    store.replace(&name, &bytes).ok()?;
    Some(store.path_of(&name))
}
