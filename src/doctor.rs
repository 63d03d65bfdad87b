//! What would go wrong, told before it does: the judgement behind `leakguard doctor`. Pure; what it judges was
//! gathered by `cli::doctor`, and every prediction is that of the code which would act on it (`budget`, `flight`,
//! `sampler`, `collector`): a formula of its own would one day say something else.
//!
//! It repairs nothing. What a check's name stands for, and what to do about it, is in docs/TROUBLESHOOTING.md.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::collector::{both_ways, refused_by_settings, settings_against_fork};
use crate::config::{Config, Given, Origin, Problem, SnapshotMode};
use crate::evidence::budget::{Allowance, Limits, Mode, SnapshotReason, size};
use crate::evidence::survey::Survey;
use crate::evidence::{
    Compression, Decision, Figures, Refusal, RefusalReason, SnapshotRequest, WallMillis,
};
use crate::finding::settings_json;
use crate::flight;
use crate::probe::MemoryCgroup;
use crate::profile::predicted_pause_ms;
use crate::readings::Way;
use crate::sample::ProcessSample;
use crate::sampler::{Ways, fitting_old_space_mb, limits_warning, live_heap_way};
use crate::v8::Epilogue;

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// Oldest Node that is supported: `engines` of package.json.
const OLDEST_NODE: (u32, u32) = (18, 20);

/// Live heap that is assumed when neither `--heap` nor a running app says one.
pub const ASSUMED_HEAP_BYTES: u64 = 64 << 20;

/// Signals that end a process which does not listen to them: listening would keep it from ending.
const ENDING_SIGNALS: [&str; 4] = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"];

/// Every check there is, in the order of the report. docs/TROUBLESHOOTING.md has a section for each.
pub const CHECKS: &[&str] = &[
    "guard",
    "node",
    "setting",
    "signal",
    "hook",
    "directory",
    "links",
    "state",
    "quota",
    "recorder",
    "container",
    "heap-limit",
    "live-heap",
    "fork",
];

/// What JavaScript knows of the process that the command line runs in: the Node and the V8 are those of the app if it
/// is started with the same binary.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// `process.version`.
    pub node: String,
    /// `process.versions.v8`.
    pub v8: String,
    /// `linux-x64`.
    pub platform: String,
    /// Version of leakguard.
    pub leakguard: String,
    /// V8's `heap_size_limit`, bytes.
    pub heap_limit_bytes: f64,
    /// `LEAKGUARD*` variables.
    pub given: Vec<Given>,
    /// Ways to the live heap.
    pub ways: Ways,
    /// Whether V8's GC callbacks could be used.
    pub epilogue: Epilogue,
    /// Names of the signals of this platform.
    pub signals: Vec<String>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            node: String::new(),
            v8: String::new(),
            platform: String::new(),
            leakguard: env!("CARGO_PKG_VERSION").into(),
            heap_limit_bytes: 0.0,
            given: Vec::new(),
            ways: Ways::default(),
            epilogue: Epilogue::Off("V8 was not asked"),
            signals: Vec::new(),
        }
    }
}

/// A guarded app that runs in this container and records into the directory.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppRun {
    /// Its name.
    pub app: String,
    /// Its process.
    pub pid: u32,
    /// Age of the figures, ms.
    pub age_ms: u64,
    /// Live heap as the guard would reckon with it, bytes.
    pub live_heap_bytes: u64,
    /// Resident memory, bytes.
    pub rss_bytes: Option<u64>,
    /// Its V8's heap limit, bytes.
    pub heap_limit_bytes: Option<f64>,
}

/// All that is judged.
#[derive(Debug)]
pub struct Seen {
    /// Now.
    pub now: WallMillis,
    /// The process.
    pub runtime: Runtime,
    /// The settings as understood.
    pub config: Config,
    /// What is wrong with them.
    pub problems: Vec<Problem>,
    /// The directory.
    pub survey: Survey,
    /// Memory of this process and its container.
    pub process: ProcessSample,
    /// Where memory is limited.
    pub cgroup: Option<MemoryCgroup>,
    /// Whether forked snapshots work in this process, or why not.
    pub fork: Result<(), String>,
    /// The app, if one runs here.
    pub app: Option<AppRun>,
    /// Why the hook's program cannot be started.
    pub hook_problem: Option<String>,
    /// `--heap`, bytes.
    pub heap_bytes: Option<u64>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, and is worth knowing.
    Note,
    /// Something does not work, or not as was meant.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// One of [`CHECKS`].
    pub id: &'static str,
    /// How bad.
    pub level: Level,
    /// What was found, without a final dot.
    pub sentence: String,
    /// What to do about it, if something is to be done.
    pub remedy: Option<String>,
}

/// One step of the evidence ladder, as it would go now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// `finding`, `profile`, `snapshot`.
    pub kind: &'static str,
    /// Whether it would be done.
    pub done: bool,
    /// In words, without a final dot.
    pub sentence: String,
    /// `inline`, `fork`.
    pub way: Option<Mode>,
    /// Expected stop of the loop, ms.
    pub pause_ms: Option<u64>,
    /// Memory expected to be needed beyond what is in use now, bytes.
    pub peak_bytes: Option<u64>,
    /// Expected file, bytes.
    pub file_bytes: Option<u64>,
    /// Snapshots of this directory that the prediction was learnt from; 0: a rule of thumb.
    pub learned_from: Option<usize>,
    /// Why not, with numbers.
    pub refusal: Option<Refusal>,
}

/// What would happen at a finding now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AtFinding {
    /// For this live heap, bytes.
    pub live_heap_bytes: u64,
    /// `argument`, `app` (that runs), `assumed`.
    pub live_heap_from: &'static str,
    /// The app, if one runs here.
    pub app: Option<AppRun>,
    /// The steps that would be taken, in their order.
    pub steps: Vec<Forecast>,
    /// What each way of a snapshot would come to, whatever the settings choose: `inline`, then `fork`.
    pub ways: Vec<Forecast>,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When, RFC 3339.
    pub time: String,
    /// Version of leakguard.
    pub leakguard: String,
    /// Version of Node.
    pub node: String,
    /// Version of V8.
    pub v8: String,
    /// Platform.
    pub platform: String,
    /// How many checks found a problem.
    pub problems: usize,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
    /// Every setting with its origin.
    pub settings: Value,
    /// Where evidence goes, if anywhere.
    pub directory: Option<String>,
    /// Memory limit of the container, bytes.
    pub container_limit_bytes: Option<u64>,
    /// Memory in use in the container, bytes.
    pub container_used_bytes: Option<u64>,
    /// V8's heap limit, bytes.
    pub heap_limit_bytes: u64,
    /// The `--max-old-space-size` that fits the container, MB.
    pub fitting_old_space_mb: Option<u64>,
    /// What would happen at a finding now.
    pub at_finding: AtFinding,
}

/// Judges.
#[must_use]
pub fn diagnose(seen: &Seen) -> Diagnosis {
    let mut checks = Checks(Vec::new());
    checks.process(seen);
    checks.settings(seen);
    checks.directory(seen);
    checks.container(seen);
    checks.ways(seen);
    let Checks(checks) = checks;
    Diagnosis {
        schema: SCHEMA,
        time: seen.now.rfc3339(),
        leakguard: seen.runtime.leakguard.clone(),
        node: seen.runtime.node.clone(),
        v8: seen.runtime.v8.clone(),
        platform: seen.runtime.platform.clone(),
        problems: checks.iter().filter(|check| check.level == Level::Problem).count(),
        checks,
        settings: settings_json(&seen.config),
        directory: seen.survey.used.as_ref().map(|path| path.display().to_string()),
        container_limit_bytes: seen.process.cgroup_limit_bytes,
        container_used_bytes: seen.process.cgroup_used_bytes,
        heap_limit_bytes: seen.heap_limit() as u64,
        fitting_old_space_mb: seen.process.cgroup_limit_bytes.map(fitting_old_space_mb),
        at_finding: at_finding(seen),
    }
}

impl Seen {
    /// V8's heap limit: of the app if one runs, which may have flags that this process has not.
    fn heap_limit(&self) -> f64 {
        let app = self.app.as_ref().and_then(|app| app.heap_limit_bytes);
        app.unwrap_or(self.runtime.heap_limit_bytes)
    }

    fn node_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.runtime.node.trim_start_matches('v').split('.');
        let mut next = || numbers.next()?.parse().ok();
        Some((next()?, next()?))
    }
}

struct Checks(Vec<Check>);

impl Checks {
    fn push(&mut self, id: &'static str, level: Level, sentence: String, remedy: Option<String>) {
        self.0.push(Check { id, level, sentence, remedy });
    }

    fn ok(&mut self, id: &'static str, sentence: impl Into<String>) {
        self.push(id, Level::Ok, sentence.into(), None);
    }

    fn note(&mut self, id: &'static str, sentence: impl Into<String>) {
        self.push(id, Level::Note, sentence.into(), None);
    }

    fn problem(
        &mut self,
        id: &'static str,
        sentence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(id, Level::Problem, sentence.into(), Some(remedy.into()));
    }

    fn process(&mut self, seen: &Seen) {
        if seen.config.enabled {
            self.ok("guard", "on: an app started in this environment is guarded");
        } else {
            self.problem(
                "guard",
                "LEAKGUARD switches it off: an app started in this environment is not guarded",
                "unset LEAKGUARD",
            );
        }
        let node = &seen.runtime.node;
        let (major, minor) = OLDEST_NODE;
        match seen.node_version() {
            Some(version) if version >= OLDEST_NODE => {
                self.ok("node", format!("Node {node} on {} is supported", seen.runtime.platform));
            }
            _ => self.problem(
                "node",
                format!("Node {node} is older than {major}.{minor}, the oldest that is supported"),
                format!("use Node {major}.{minor} or later"),
            ),
        }
    }

    fn settings(&mut self, seen: &Seen) {
        for problem in &seen.problems {
            let remedy = match problem.code {
                "LEAKGUARD_UNKNOWN" => "correct the name or unset the variable",
                "LEAKGUARD_SETTINGS" => "change one of them",
                _ => "correct the value; until then the default holds",
            };
            self.problem("setting", problem.message.clone(), remedy);
        }
        let set: Vec<String> = seen
            .config
            .origins
            .iter()
            .filter(|(_, _, origin)| *origin != Origin::Default)
            .map(|(key, ..)| variable(key))
            .collect();
        let all = seen.config.origins.len();
        self.ok(
            "setting",
            match set.len() {
                0 => format!("all {all} settings have their defaults"),
                some => format!(
                    "{some} of {all} settings are set ({}), the others have their defaults",
                    set.join(", ")
                ),
            },
        );
        if let Some(signal) = seen.config.signal.as_deref() {
            self.signal(signal, &seen.runtime.signals);
        }
        match (&seen.config.hook, &seen.hook_problem) {
            (Some(_), Some(why)) => self.problem(
                "hook",
                format!("the program of LEAKGUARD_HOOK cannot be started: {why}"),
                "give its absolute path and make it executable",
            ),
            (Some(hook), None) => {
                let program = hook.first().map_or("", String::as_str);
                self.ok("hook", format!("{program} is started for each new evidence file"));
            }
            (None, _) => {}
        }
    }

    fn signal(&mut self, signal: &str, known: &[String]) {
        if !known.iter().any(|name| name == signal) {
            self.problem(
                "signal",
                format!("LEAKGUARD_SIGNAL: this platform has no {signal}"),
                "use SIGUSR2",
            );
        } else if ENDING_SIGNALS.contains(&signal) {
            self.problem(
                "signal",
                format!(
                    "LEAKGUARD_SIGNAL: {signal} ends a process that does not listen to it, and the guard listens"
                ),
                "use SIGUSR2",
            );
        } else if signal == "SIGUSR1" {
            self.note("signal", "SIGUSR1 takes a snapshot, and opens Node's inspector as well");
        } else {
            self.ok("signal", format!("{signal} takes a snapshot"));
        }
    }

    fn directory(&mut self, seen: &Seen) {
        let survey = &seen.survey;
        let wanted = survey.wanted.display();
        let Some(used) = &survey.used else {
            self.problem(
                "directory",
                format!(
                    "no evidence can be written: {wanted} cannot be used ({})",
                    survey.cause.as_deref().unwrap_or("unknown")
                ),
                "set LEAKGUARD_DIR to a directory that the app's user can write to",
            );
            return;
        };
        let place = used.display();
        if let Some(cause) = &survey.cause {
            self.problem(
                "directory",
                format!("{wanted} cannot be used ({cause}); evidence would go to {place}"),
                format!("let the app's user write to {wanted}, or set LEAKGUARD_DIR to another directory"),
            );
        } else if let Some(link) = &survey.link_to {
            self.note(
                "directory",
                format!("{wanted} is a link to {}; evidence goes there", link.display()),
            );
        } else if survey.private_child {
            self.note(
                "directory",
                format!("{wanted} is writable for everybody: evidence goes to {place}"),
            );
        } else if !survey.exists {
            self.note("directory", format!("{wanted} is not there yet; the guard makes it"));
        } else {
            self.ok("directory", format!("{wanted} can be written to"));
        }
        if let Some(owner) = survey.owner.filter(|owner| owner.uid != owner.me) {
            self.note(
                "directory",
                format!(
                    "{place} belongs to user {}, and this is user {}: run doctor as the app's user",
                    owner.uid, owner.me
                ),
            );
        }
        if let Some(owner) = survey.owner.filter(|owner| owner.mode & 0o077 != 0) {
            self.note(
                "directory",
                format!(
                    "{place} has mode {:04o}: others can see file names, the files themselves are 0600",
                    owner.mode
                ),
            );
        }
        if !survey.links.is_empty() {
            self.note(
                "links",
                format!(
                    "{} in {place}: links, which the guard does not follow",
                    survey.links.join(", ")
                ),
            );
        }
        if let Some(why) = &survey.shared_problem {
            self.problem(
                "state",
                format!("{why}: until then counts and cooldowns are not kept"),
                "remove that file, or give it to the app's user",
            );
        }
        self.room(seen);
    }

    fn room(&mut self, seen: &Seen) {
        let survey = &seen.survey;
        let quota = seen.config.max_disk_bytes;
        let free = survey.free_bytes.map_or_else(|| "unknown".to_owned(), size);
        let memory =
            if survey.is_memory { ", in memory (tmpfs): files count as memory" } else { "" };
        let sentence = format!(
            "{} of {} (LEAKGUARD_MAX_DISK) in use, {} of it not to be removed for new files; {free} free on the file \
             system{memory}",
            size(survey.used_bytes),
            size(quota),
            size(survey.unremovable_bytes),
        );
        if survey.is_memory {
            self.note("quota", sentence);
        } else {
            self.ok("quota", sentence);
        }
        match flight::file_bytes(quota, survey.free_bytes, survey.is_memory, &seen.process) {
            Ok(bytes) => self.ok("recorder", format!("each run records into {}", size(bytes))),
            Err(why) => self.problem(
                "recorder",
                why,
                "give it room: without it nothing is known of a run that was killed",
            ),
        }
    }

    fn container(&mut self, seen: &Seen) {
        let Some(limit) = seen.process.cgroup_limit_bytes else {
            self.note("container", "no memory limit of a container is to be seen");
            return;
        };
        let version = seen.cgroup.as_ref().map_or(String::new(), |cgroup| {
            format!(" (cgroup v{}, {})", cgroup.version, cgroup.directory.display())
        });
        let used = seen.process.cgroup_used_bytes.map_or_else(|| "unknown".to_owned(), size);
        self.ok("container", format!("{used} of {} of memory in use{version}", size(limit)));
        if seen.process.cgroup_oom_group == Some(true) {
            self.note(
                "container",
                "memory.oom.group is set: an OOM kill takes the app with any of its children, so that forked \
                 snapshots keep a wider margin",
            );
        }
        let heap = seen.heap_limit();
        let whose = if seen.app.is_some() {
            "the running app's V8"
        } else {
            "V8, with the flags of this process and NODE_OPTIONS,"
        };
        match limits_warning(heap, limit) {
            Some(warning) => self.problem(
                "heap-limit",
                warning,
                format!(
                    "start node with --max-old-space-size={}, or put it into NODE_OPTIONS",
                    fitting_old_space_mb(limit)
                ),
            ),
            None => self.ok(
                "heap-limit",
                format!(
                    "{whose} may grow its heap to {}, below the container's {}; --max-old-space-size={} fits it",
                    size(heap as u64),
                    size(limit),
                    fitting_old_space_mb(limit)
                ),
            ),
        }
    }

    fn ways(&mut self, seen: &Seen) {
        let without = seen.config.without;
        let ways = Ways {
            external: seen.runtime.ways.external && !without.external,
            pressure: seen.runtime.ways.pressure && !without.pressure,
            force: seen.runtime.ways.force && !without.gc,
            ..seen.runtime.ways
        };
        let off = Epilogue::Off("LEAKGUARD_WITHOUT names it");
        let epilogue = if without.epilogue { &off } else { &seen.runtime.epilogue };
        let (way, why) = live_heap_way(ways, epilogue);
        let sentence = format!("{}: {why}", way.as_str());
        match way {
            Way::External | Way::Pressure => self.ok("live-heap", sentence),
            Way::Forced | Way::Natural => self.note("live-heap", sentence),
        }
        match (&seen.fork, settings_against_fork(&seen.config)) {
            (Ok(()), None) => self.ok("fork", "the self-test passed: snapshots are forked"),
            (Ok(()), Some(why)) => {
                self.ok("fork", format!("forked snapshots work in this process; {why}"));
            }
            (Err(why), _) if seen.config.snapshot == SnapshotMode::Fork => self.problem(
                "fork",
                format!("LEAKGUARD_SNAPSHOT=fork, and forked snapshots do not work here: {why}"),
                "set LEAKGUARD_SNAPSHOT=auto",
            ),
            (Err(why), _) => {
                self.note("fork", format!("forked snapshots do not work here: {why}"));
            }
        }
    }
}

fn variable(key: &str) -> String {
    crate::config::OPTIONS
        .iter()
        .find(|spec| spec.key == key)
        .map_or_else(|| key.to_owned(), crate::config::OptionSpec::variable)
}

fn at_finding(seen: &Seen) -> AtFinding {
    let running = seen.app.as_ref();
    let (heap, from) = match (seen.heap_bytes, running) {
        (Some(heap), _) => (heap, "argument"),
        (None, Some(app)) => (app.live_heap_bytes, "app"),
        (None, None) => (ASSUMED_HEAP_BYTES, "assumed"),
    };
    let snapshot = snapshot(seen, heap, seen.config.snapshot);
    AtFinding {
        live_heap_bytes: heap,
        live_heap_from: from,
        app: seen.app.clone(),
        steps: vec![finding(seen), profile(seen, heap), snapshot],
        ways: vec![
            snapshot_by(seen, heap, SnapshotMode::Inline),
            snapshot_by(seen, heap, SnapshotMode::Fork),
        ],
    }
}

fn finding(seen: &Seen) -> Forecast {
    let kind = "finding";
    if !seen.config.enabled {
        let sentence = "none would be made: the guard is off".into();
        return Forecast { kind, sentence, ..Forecast::default() };
    }
    match &seen.survey.used {
        Some(path) => Forecast {
            kind,
            done: true,
            sentence: format!("written at once to {}", path.display()),
            ..Forecast::default()
        },
        None => Forecast {
            kind,
            sentence: "a line on stderr and an event, and no file: there is no directory".into(),
            ..Forecast::default()
        },
    }
}

fn profile(seen: &Seen, heap: u64) -> Forecast {
    let pause = predicted_pause_ms(heap as f64).ceil() as u64;
    let limit = seen.config.max_gc_pause_ms;
    let done = seen.config.profile && pause <= limit;
    let sentence = if !seen.config.profile {
        "off by LEAKGUARD_PROFILE".into()
    } else if done {
        format!(
            "two readings, each stopping the loop for about {pause} ms of the {limit} ms allowed"
        )
    } else {
        format!(
            "refused: a reading would stop the loop for about {pause} ms, LEAKGUARD_MAX_GC_PAUSE is {limit} ms"
        )
    };
    Forecast { kind: "profile", done, sentence, pause_ms: Some(pause), ..Forecast::default() }
}

/// The snapshot as the settings choose its way.
fn snapshot(seen: &Seen, heap: u64, modes: SnapshotMode) -> Forecast {
    let not_forked = settings_against_fork(&seen.config)
        .map(str::to_owned)
        .or_else(|| seen.fork.as_ref().err().cloned());
    let refused = refused_by_settings(&seen.config).or_else(|| {
        let nowhere = || Refusal::plain(RefusalReason::State, "there is no directory");
        seen.survey.used.is_none().then(nowhere)
    });
    let decision = match refused {
        Some(refusal) => Decision::Refuse(refusal),
        None => match decide(seen, heap, modes, not_forked.is_none()) {
            Decision::Refuse(refusal) => Decision::Refuse(both_ways(refusal, modes, not_forked)),
            taken @ Decision::Take(_) => taken,
        },
    };
    forecast(seen, decision)
}

/// The snapshot as it would be if the settings named this way.
fn snapshot_by(seen: &Seen, heap: u64, way: SnapshotMode) -> Forecast {
    let mode = if way == SnapshotMode::Fork { Mode::Fork } else { Mode::Inline };
    let decision = match (&seen.fork, way) {
        (Err(why), SnapshotMode::Fork) => {
            Decision::Refuse(Refusal::plain(RefusalReason::Disabled, why.clone()))
        }
        _ => decide(seen, heap, way, way == SnapshotMode::Fork),
    };
    Forecast { way: Some(mode), ..forecast(seen, decision) }
}

fn node_major(seen: &Seen) -> u32 {
    seen.node_version().map_or(0, |(major, _)| major)
}

fn decide(seen: &Seen, heap: u64, modes: SnapshotMode, fork_possible: bool) -> Decision {
    let request = SnapshotRequest {
        reason: SnapshotReason::Finding,
        // Which finding is not known, so that no cooldown is either.
        key: None,
        modes,
        fork_possible,
        node_major: node_major(seen),
        compression: Compression::from(seen.config.compress),
        shutting_down: false,
        in_progress: false,
    };
    seen.survey.preview(seen.now, &request, &figures(seen, heap), &Limits::from(&seen.config))
}

/// The figures of this moment, as if the app's live heap were `heap`: what it has not yet is counted as used.
fn figures(seen: &Seen, heap: u64) -> Figures {
    let app = seen.app.as_ref();
    let more = heap.saturating_sub(app.map_or(0, |app| app.live_heap_bytes));
    let process = &seen.process;
    let rss = app.and_then(|app| app.rss_bytes).or(process.rss_bytes);
    Figures {
        v8_heap_limit_bytes: Some(seen.heap_limit() as u64).filter(|limit| *limit > 0),
        rss_bytes: rss.map(|rss| rss.saturating_add(more)),
        cgroup_used_bytes: process.cgroup_used_bytes.map(|used| used.saturating_add(more)),
        cgroup_headroom_bytes: process.cgroup_headroom_bytes.map(|left| left.saturating_sub(more)),
        mem_available_bytes: process.mem_available_bytes.map(|left| left.saturating_sub(more)),
        address_space_bytes: process.address_space_bytes.map(|used| used.saturating_add(more)),
        ..Figures::from_sample(heap, process)
    }
}

fn forecast(seen: &Seen, decision: Decision) -> Forecast {
    let kind = "snapshot";
    match decision {
        Decision::Refuse(refusal) => Forecast {
            kind,
            sentence: format!("refused: {refusal}"),
            refusal: Some(refusal),
            ..Forecast::default()
        },
        Decision::Take(allowance) => {
            let predictions = seen.survey.predictions(node_major(seen));
            let learned = match allowance.mode {
                Mode::Inline => predictions.inline.learned_from,
                Mode::Fork => predictions.fork.learned_from,
            };
            let Allowance {
                mode,
                predicted_pause_millis: pause,
                predicted_peak_bytes: peak,
                predicted_file_bytes: file,
                ..
            } = allowance;
            let how = match mode {
                Mode::Inline => "in the app's process",
                Mode::Fork => "in a forked child",
            };
            let by = match learned {
                0 => "by the rule of thumb, since none was taken here yet".to_owned(),
                1 => "learnt from the one taken here".to_owned(),
                some => format!("learnt from the last {some} taken here"),
            };
            Forecast {
                kind,
                done: true,
                sentence: format!(
                    "{how}: the loop stops for about {}, memory rises by up to {} meanwhile, the file has about {} ({by})",
                    milliseconds(pause),
                    size(peak),
                    size(file)
                ),
                way: Some(mode),
                pause_ms: Some(pause),
                peak_bytes: Some(peak),
                file_bytes: Some(file),
                learned_from: Some(learned),
                refusal: None,
            }
        }
    }
}

fn milliseconds(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

/// The report as a person reads it, worst first within reach of the eye: the last line is the verdict.
#[must_use]
pub fn text(diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    let Diagnosis { leakguard, node, v8, platform, .. } = diagnosis;
    // Writing to a string does not fail.
    let _ = writeln!(out, "leakguard {leakguard} on Node {node}, V8 {v8}, {platform}\n");
    for check in &diagnosis.checks {
        let mark = match check.level {
            Level::Ok => "ok     ",
            Level::Note => "note   ",
            Level::Problem => "PROBLEM",
        };
        let _ = writeln!(out, "{mark}  {:<11}{}", check.id, check.sentence);
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(out, "{:<20}-> {remedy}", "");
        }
    }
    let at = &diagnosis.at_finding;
    let from = match (at.live_heap_from, &at.app) {
        ("argument", _) => "as --heap says".to_owned(),
        (_, Some(app)) => format!("that of {} (pid {}) now", app.app, app.pid),
        _ => "assumed; --heap SIZE says another".to_owned(),
    };
    let _ = writeln!(
        out,
        "\nAt a finding now, with a live heap of {} ({from}):",
        size(at.live_heap_bytes)
    );
    for step in &at.steps {
        let mark = if step.done { "yes    " } else { "no     " };
        let _ = writeln!(out, "{mark}  {:<11}{}", step.kind, step.sentence);
    }
    let verdict = match diagnosis.problems {
        0 => "No problem found.".to_owned(),
        1 => "1 problem. docs/TROUBLESHOOTING.md has a section for each name above.".to_owned(),
        some => {
            format!("{some} problems. docs/TROUBLESHOOTING.md has a section for each name above.")
        }
    };
    let _ = writeln!(out, "\n{verdict}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve;
    use crate::evidence::StoreOptions;
    use std::path::Path;

    const MB: u64 = 1 << 20;

    fn seen(directory: &Path, variables: &[(&str, &str)]) -> Seen {
        let given: Vec<Given> = variables
            .iter()
            .map(|(name, value)| Given {
                name: (*name).into(),
                value: (*value).into(),
                origin: Origin::Environment,
            })
            .collect();
        let (config, problems) = resolve(&given);
        let now = WallMillis::now();
        let options = StoreOptions {
            dir: directory.to_owned(),
            max_disk_bytes: config.max_disk_bytes,
            temp_dir: directory.to_owned(),
        };
        Seen {
            now,
            runtime: Runtime {
                node: "v22.12.0".into(),
                v8: "12.4".into(),
                platform: "linux-x64".into(),
                heap_limit_bytes: 400.0 * MB as f64,
                given,
                ways: Ways { external: true, pressure: true, force: true, observe: true },
                epilogue: Epilogue::On,
                signals: ["SIGUSR1", "SIGUSR2", "SIGTERM"].map(String::from).to_vec(),
                ..Runtime::default()
            },
            survey: Survey::of(&options, now),
            process: ProcessSample {
                rss_bytes: Some(50 * MB),
                cgroup_used_bytes: Some(60 * MB),
                cgroup_limit_bytes: Some(512 * MB),
                cgroup_headroom_bytes: Some(452 * MB),
                mem_available_bytes: Some(4096 * MB),
                ..ProcessSample::default()
            },
            cgroup: Some(MemoryCgroup { version: 2, directory: "/sys/fs/cgroup".into() }),
            fork: Ok(()),
            app: None,
            hook_problem: None,
            heap_bytes: None,
            config,
            problems,
        }
    }

    fn levels(seen: &Seen, id: &str) -> Vec<Level> {
        let Diagnosis { checks, .. } = diagnose(seen);
        checks.iter().filter(|check| check.id == id).map(|check| check.level).collect()
    }

    fn sentence(seen: &Seen, id: &str) -> String {
        let Diagnosis { checks, .. } = diagnose(seen);
        checks.iter().find(|check| check.id == id).unwrap().sentence.clone()
    }

    #[test]
    fn a_healthy_set_up_has_no_problem() {
        let root = tempfile::tempdir().unwrap();
        let healthy = diagnose(&seen(root.path(), &[]));
        assert_eq!(healthy.problems, 0, "{:?}", healthy.checks);
        assert!(text(&healthy).ends_with("\nNo problem found.\n"));
        assert_eq!(healthy.fitting_old_space_mb, Some(384));
    }

    #[test]
    fn every_check_is_in_the_list_and_in_the_document() {
        let root = tempfile::tempdir().unwrap();
        let mut all = seen(
            root.path(),
            &[("LEAKGUARD_SIGNAL", "SIGUSR2"), ("LEAKGUARD_HOOK", "true"), ("LEAKGUARD_X", "1")],
        );
        all.survey.links = vec!["x".into()];
        all.survey.shared_problem = Some("x".into());
        let Diagnosis { checks, .. } = diagnose(&all);
        let mut ids: Vec<&str> = checks.iter().map(|check| check.id).collect();
        ids.dedup();
        assert_eq!(ids, CHECKS);
        let document = include_str!("../docs/TROUBLESHOOTING.md");
        for id in CHECKS {
            assert!(document.contains(&format!("\n## {id}\n")), "{id}");
        }
    }

    #[test]
    fn what_the_settings_mean_is_told() {
        let root = tempfile::tempdir().unwrap();
        let of = |variables| seen(root.path(), variables);
        type Case = (&'static [(&'static str, &'static str)], &'static str, Level);
        let table: [Case; 11] = [
            (&[("LEAKGUARD", "off")], "guard", Level::Problem),
            (&[("LEAKGUARD_WINDOW", "soon")], "setting", Level::Problem),
            (&[("LEAKGUARD_WINDWO", "1h")], "setting", Level::Problem),
            (&[("LEAKGUARD_WINDOW", "1h")], "setting", Level::Ok),
            (&[("LEAKGUARD_SIGNAL", "SIGUSR2")], "signal", Level::Ok),
            (&[("LEAKGUARD_SIGNAL", "SIGUSR1")], "signal", Level::Note),
            (&[("LEAKGUARD_SIGNAL", "SIGTERM")], "signal", Level::Problem),
            (&[("LEAKGUARD_SIGNAL", "SIGNONE")], "signal", Level::Problem),
            (&[("LEAKGUARD_MAX_DISK", "8MB")], "recorder", Level::Problem),
            (&[("LEAKGUARD_WITHOUT", "external")], "live-heap", Level::Ok),
            (&[("LEAKGUARD_WITHOUT", "external,pressure")], "live-heap", Level::Note),
        ];
        for (variables, id, level) in table {
            assert_eq!(levels(&of(variables), id).first(), Some(&level), "{variables:?}");
        }
        let unknown = of(&[("LEAKGUARD_WINDWO", "1h")]);
        assert!(sentence(&unknown, "setting").ends_with("did you mean LEAKGUARD_WINDOW?"));
        let mut hook = of(&[("LEAKGUARD_HOOK", "ship")]);
        assert_eq!(levels(&hook, "hook"), [Level::Ok]);
        hook.hook_problem = Some("ship was not found in PATH".into());
        assert_eq!(levels(&hook, "hook"), [Level::Problem]);
    }

    #[test]
    fn a_secret_in_a_setting_is_not_shown() {
        let root = tempfile::tempdir().unwrap();
        let variables = [("LEAKGUARD_TOKEN", "hunter2"), ("LEAKGUARD_HOOK", "ship hunter2")];
        let diagnosis = diagnose(&seen(root.path(), &variables));
        assert!(!text(&diagnosis).contains("hunter2"));
        assert!(!serde_json::to_string(&diagnosis).unwrap().contains("hunter2"));
    }

    #[test]
    fn an_old_node_and_a_heap_limit_beyond_the_container_are_problems() {
        let root = tempfile::tempdir().unwrap();
        let mut old = seen(root.path(), &[]);
        for (node, level) in [
            ("v18.19.1", Level::Problem),
            ("v18.20.0", Level::Ok),
            ("v26.0.0", Level::Ok),
            ("", Level::Problem),
        ] {
            old.runtime.node = node.into();
            assert_eq!(levels(&old, "node"), [level], "{node}");
        }
        let mut tight = seen(root.path(), &[]);
        tight.process.cgroup_limit_bytes = Some(256 * MB);
        assert_eq!(levels(&tight, "heap-limit"), [Level::Problem]);
        assert!(sentence(&tight, "heap-limit").contains("--max-old-space-size=192"));
        // The running app has its own flags.
        tight.app = Some(AppRun {
            app: "shop".into(),
            pid: 1,
            age_ms: 10,
            live_heap_bytes: 20 * MB,
            rss_bytes: Some(80 * MB),
            heap_limit_bytes: Some(190.0 * MB as f64),
        });
        assert_eq!(levels(&tight, "heap-limit"), [Level::Ok]);
        assert_eq!(diagnose(&tight).at_finding.live_heap_bytes, 20 * MB);
    }

    #[test]
    fn a_heap_too_large_for_the_container_is_refused_with_the_limit_that_would_do() {
        let root = tempfile::tempdir().unwrap();
        let mut seen = seen(root.path(), &[]);
        seen.heap_bytes = Some(10 * MB);
        let fits = diagnose(&seen).at_finding;
        assert_eq!(fits.live_heap_from, "argument");
        let [finding, profile, snapshot] = fits.steps.try_into().unwrap();
        assert!(finding.done && profile.done && snapshot.done, "{snapshot:?}");
        assert_eq!((snapshot.way, snapshot.learned_from), (Some(Mode::Fork), Some(0)));

        // Where it cannot fork, `auto` writes it in the app's process.
        seen.fork = Err("malloc is not glibc's".into());
        let snapshot = diagnose(&seen).at_finding.steps.pop().unwrap();
        assert!(snapshot.done, "{snapshot:?}");
        assert_eq!((snapshot.way, snapshot.learned_from), (Some(Mode::Inline), Some(0)));
        // The rule of thumb of `budget`: 16 times the heap, 115 ms for each MiB.
        assert_eq!((snapshot.peak_bytes, snapshot.pause_ms), (Some(160 * MB), Some(1150)));

        seen.heap_bytes = Some(64 * MB);
        let at = diagnose(&seen).at_finding;
        let refusal = at.steps.last().unwrap().refusal.clone().unwrap();
        assert_eq!(refusal.reason, RefusalReason::Memory);
        // What the app is going to use counts as used: 60 MB now and 64 MB more.
        assert!(refusal.available.unwrap() < (512 - 124) * MB);
        assert!(refusal.sufficient.unwrap() > 1024 * MB);
        assert!(at.ways.iter().all(|way| !way.done));
    }

    #[test]
    fn ways_that_do_not_work_are_told_by_the_settings_that_ask_for_them() {
        let root = tempfile::tempdir().unwrap();
        let with = |mode| {
            let mut seen = seen(root.path(), &[("LEAKGUARD_SNAPSHOT", mode)]);
            seen.fork = Err("malloc is not glibc's".into());
            seen.heap_bytes = Some(10 * MB);
            seen
        };
        assert_eq!(levels(&with("auto"), "fork"), [Level::Note]);
        assert_eq!(levels(&with("fork"), "fork"), [Level::Problem]);
        let last = |seen: &Seen| diagnose(seen).at_finding.steps.pop().unwrap();
        assert!(last(&with("auto")).done);
        assert!(last(&with("fork")).sentence.contains("malloc is not glibc's"));
        assert!(last(&with("off")).sentence.contains("LEAKGUARD_SNAPSHOT=off"));
    }

    #[test]
    fn nowhere_to_write_is_a_problem_and_the_finding_a_line_only() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let nowhere = seen(&file, &[]);
        assert_eq!(levels(&nowhere, "directory"), [Level::Problem]);
        let steps = diagnose(&nowhere).at_finding.steps;
        assert!(!steps.first().unwrap().done && !steps.last().unwrap().done);
    }
}
