//! The analysis of new snapshots, as a process of its own beside the app: the command line under the app's own node
//! binary, at the lowest priority, the first to be killed when memory runs out, one at a time. It decides
//! whether there is memory for it, starts it, watches it, and sums up what it said; what becomes of the answer
//! is the collector's affair. A gigabyte of columns has no place in the app, nor has a second core.
//!
//! The process cannot outlive the app: it is killed with the thread that started it (Linux), after
//! [`TIMEOUT`], when the guard stops, when it takes more memory than it was granted, and when memory runs
//! short for the app. It writes no file; its answer comes through a pipe.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use serde_json::{Value, json};

use crate::child::{self, Ended};
use crate::cli::{Exit, predicted_memory};
use crate::evidence::budget::{self, size_words};
use crate::evidence::{Figures, Refusal, RefusalReason};
use crate::probe::own;
use crate::sample::IsolateId;

/// Snapshots waiting for their analysis; the oldest is given up when more come. The quota lets few be there.
const MAX_WAITING: usize = 4;

/// How long an analysis may take: some seconds for a gigabyte, and many times that on a machine that is busy with
/// the app.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What node and the command line take before the first byte of a snapshot is read: 45 MB resident, and room.
const PROGRAM_BYTES: u64 = 64 << 20;

/// An answer is tens of KB; this is where something is wrong.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// Of what it says on stderr, the beginning.
const MAX_COMPLAINT_BYTES: u64 = 4 << 10;

/// Suspects that go into a finding.
const SUSPECTS: usize = 3;
/// Steps of a retaining path in words: both ends of a longer one.
const PATH_STEPS: usize = 12;

/// Variables the process needs of the app's: to be found and loaded, nothing that configures node or the guard, and
/// no secret.
const VARIABLES: [&str; 5] = ["PATH", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "SystemRoot"];

/// The node binary of the app and the script of the command line.
#[derive(Clone, Debug)]
pub struct Program {
    /// `process.execPath`
    pub node: PathBuf,
    /// bin/leakguard.js
    pub script: PathBuf,
}

/// A snapshot to be analysed.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Its file name.
    pub file: String,
    /// Its path.
    pub path: PathBuf,
    /// An earlier snapshot of the same finding, to compare it with.
    pub earlier: Option<PathBuf>,
    /// The finding's number, if it has one.
    pub finding: Option<u32>,
    /// The isolate whose heap it is.
    pub isolate: IsolateId,
}

/// What an analysis said.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// The leading suspect, or that there is none: one line.
    pub sentence: String,
    /// The leading suspects: what, where, how many, how much, and what holds it.
    pub suspects: Value,
    /// What the snapshot says about the finding, if it belongs to one.
    pub verdict: Option<String>,
    /// How long it took, wall time.
    pub took: Duration,
    /// The most memory it was seen to take, bytes; `None` where that cannot be read.
    pub peak_bytes: Option<u64>,
}

/// How an errand ended.
pub type Outcome = Result<Analysis, Refusal>;

/// Carries errands out, one at a time.
pub struct Analyst {
    program: Result<Program, String>,
    environment: Arc<Vec<(OsString, OsString)>>,
    enabled: bool,
    waiting: VecDeque<Errand>,
    /// The errand under way; dropping the sender ends it, a message says why.
    running: Option<(Errand, Sender<String>)>,
    outcomes: (Sender<Outcome>, Receiver<Outcome>),
}

impl Analyst {
    /// `program` is `Err` with the reason where this process cannot start node, `variables` the app's
    /// environment, read on the JS thread.
    pub fn new(program: Result<Program, String>, variables: &[(OsString, OsString)]) -> Self {
        let wanted = variables.iter().filter(|(name, _)| VARIABLES.iter().any(|one| name == one));
        let mut environment: Vec<_> = wanted.cloned().collect();
        // It is not to guard itself, whatever a file of settings says.
        environment.push(("LEAKGUARD".into(), "off".into()));
        Self {
            program,
            environment: Arc::new(environment),
            enabled: false,
            waiting: VecDeque::new(),
            running: None,
            outcomes: bounded(1),
        }
    }

    /// `LEAKGUARD_ANALYZE`. Switching it off ends what is under way.
    pub fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
        if !enabled {
            self.waiting.clear();
            self.stop("LEAKGUARD_ANALYZE was switched off");
        }
    }

    /// How errands ended, for the sampler's select loop.
    pub fn outcomes(&self) -> &Receiver<Outcome> {
        &self.outcomes.1
    }

    /// Takes an errand on; false if analyses are switched off. An errand that is given up for it is returned.
    pub fn offer(&mut self, errand: Errand) -> (bool, Option<Errand>) {
        if !self.enabled {
            return (false, None);
        }
        let given_up =
            if self.waiting.len() == MAX_WAITING { self.waiting.pop_front() } else { None };
        self.waiting.push_back(errand);
        (true, given_up)
    }

    /// Starts the next errand if none is under way. `Err` with the errand and the refusal if it may not be.
    pub fn start_next(&mut self, figures: &Figures) -> Result<(), Box<(Errand, Refusal)>> {
        if self.running.is_some() {
            return Ok(());
        }
        let Some(errand) = self.waiting.pop_front() else { return Ok(()) };
        let program = match &self.program {
            Ok(program) => program.clone(),
            Err(why) => {
                let refusal = Refusal::plain(RefusalReason::Unavailable, why.clone());
                return Err(Box::new((errand, refusal)));
            }
        };
        let environment = Arc::clone(&self.environment);
        let (stop, stopped) = bounded(1);
        let outcomes = self.outcomes.0.clone();
        let work = (errand.clone(), figures.clone());
        let thread = std::thread::Builder::new().name("leakguard-analyze".into());
        let started = thread.spawn(move || {
            let _own = own::thread();
            let (errand, figures) = work;
            let outcome = run(&program, &environment, &errand, &figures, &stopped, TIMEOUT);
            let _ = outcomes.try_send(outcome);
        });
        match started {
            Ok(_) => {
                self.running = Some((errand, stop));
                Ok(())
            }
            Err(error) => {
                let sentence = format!("its thread could not be started: {error}");
                Err(Box::new((errand, Refusal::plain(RefusalReason::Failed, sentence))))
            }
        }
    }

    /// An outcome came: the errand it is of.
    pub fn ended(&mut self) -> Option<Errand> {
        self.running.take().map(|(errand, _)| errand)
    }

    /// Once a tick: ends what is under way if memory has become short for the app.
    pub fn watch(&self, figures: &Figures) {
        if let (Some(_), Some(why)) = (&self.running, budget::below_floor(figures)) {
            self.stop(&format!("{SHORT_OF_MEMORY}: {why}"));
        }
    }

    fn stop(&self, why: &str) {
        if let Some((_, stop)) = &self.running {
            // A first reason may be on its way already.
            let _ = stop.try_send(why.to_owned());
        }
    }

    /// For `status()`.
    pub fn to_json(&self) -> Value {
        json!({
            "running": self.running.as_ref().map(|(errand, _)| &errand.file),
            "waiting": self.waiting.len(),
            "problem": self.program.as_ref().err(),
        })
    }
}

/// Begins the reason of an analysis that was ended for the app's sake.
const SHORT_OF_MEMORY: &str = "memory ran short for the app";

/// Carries one errand out, on a thread of its own.
fn run(
    program: &Program,
    environment: &[(OsString, OsString)],
    errand: &Errand,
    figures: &Figures,
    stopped: &Receiver<String>,
    timeout: Duration,
) -> Outcome {
    let failed = |sentence: String| Refusal::plain(RefusalReason::Failed, sentence);
    let files = || errand.earlier.iter().chain([&errand.path]);
    let mut needed = 0;
    for file in files() {
        // Two snapshots are read one after the other.
        needed = needed.max(predicted_memory(file).map_err(|error| failed(error.to_string()))?);
    }
    let granted = budget::analysis_memory(figures, needed.saturating_add(PROGRAM_BYTES))?;
    // On Linux the priority is the thread's, and the process inherits it from its first instruction on.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 19);
    let began = Instant::now();
    let mut command = child::command(&program.node, environment);
    command
        .arg(&program.script)
        .arg(if errand.earlier.is_some() { "diff" } else { "analyze" })
        .args(files())
        .args(["--json", "--top", "1", "--threads", "1", "--memory"])
        .arg(granted.saturating_sub(PROGRAM_BYTES).to_string())
        .args(["--for-pid", &std::process::id().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| failed(format!("node could not be started: {error}")))?;
    first_to_be_killed(&child);
    let stdout = child.stdout.take().map(|pipe| (own_fd(&pipe), pipe));
    let stderr = child.stderr.take().map(|pipe| (own_fd(&pipe), pipe));
    let mut peak = None;
    let (ended, answer, complaint) = std::thread::scope(|scope| {
        // Read while it runs: an answer may be larger than a pipe.
        let reader = scope.spawn(|| {
            let _own = own::thread();
            read(stdout.map(|(own, pipe)| (pipe, own)), MAX_ANSWER_BYTES)
        });
        let ended = child::wait(&mut child, timeout, |child| {
            let bytes = anonymous_bytes(child);
            peak = peak.max(bytes);
            match stopped.try_recv() {
                Ok(why) => return Some(why),
                Err(TryRecvError::Disconnected) => return Some("the guard was stopped".into()),
                Err(TryRecvError::Empty) => {}
            }
            bytes.filter(|&bytes| bytes > granted).map(|bytes| {
                format!(
                    "it took {} of memory, and {} were granted",
                    size_words(bytes),
                    size_words(granted)
                )
            })
        });
        let complaint = read(stderr.map(|(own, pipe)| (pipe, own)), MAX_COMPLAINT_BYTES);
        (ended, reader.join().unwrap_or_default(), complaint)
    });
    let status = match ended.map_err(failed)? {
        Ended::Exited(status) => status.code(),
        Ended::Unknown => Some(0),
        Ended::TimedOut => {
            return Err(failed(format!("it was ended after {} s", timeout.as_secs())));
        }
        Ended::Stopped(why) if why.starts_with(SHORT_OF_MEMORY) => {
            return Err(Refusal::plain(RefusalReason::Memory, why));
        }
        Ended::Stopped(why) => return Err(failed(why)),
    };
    let complaint = String::from_utf8_lossy(&complaint);
    let complaint = complaint.lines().next().unwrap_or_default();
    let complaint = complaint.trim_start_matches("leakguard: ").trim_start_matches("refused: ");
    match status {
        Some(0) => summary(&answer, began.elapsed(), peak)
            .ok_or_else(|| failed("it gave no answer that can be read".into())),
        Some(code) if code == Exit::Refused.code() => {
            Err(Refusal::plain(RefusalReason::Memory, complaint))
        }
        Some(code) => Err(failed(format!("it ended with exit code {code}: {complaint}"))),
        None => Err(failed("it was killed".into())),
    }
}

/// Reads no further than `most`, and the rest away, so that the writer is not stopped.
fn read(pipe: Option<(impl Read, own::Fd)>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some((mut pipe, _own)) = pipe {
        let _ = pipe.by_ref().take(most).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        // Closed before it is taken off the count of our own.
        drop(pipe);
    }
    bytes
}

#[cfg(unix)]
fn own_fd(pipe: &impl std::os::fd::AsRawFd) -> own::Fd {
    own::numbered_fd(pipe.as_raw_fd())
}

#[cfg(not(unix))]
fn own_fd<T>(_: &T) -> own::Fd {
    own::fd()
}

/// The kernel's OOM killer takes it before the app.
fn first_to_be_killed(child: &Child) {
    #[cfg(target_os = "linux")]
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "1000");
    #[cfg(not(target_os = "linux"))]
    let _ = child;
}

/// Anonymous memory of a process, bytes: resident minus what it shares with files.
fn anonymous_bytes(child: &Child) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", child.id())).ok()?;
        let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
        Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = child;
        None
    }
}

/// What of the command line's JSON (docs/SNAPSHOT-JSON.md) goes into a finding; `None` if it is none.
fn summary(answer: &[u8], took: Duration, peak_bytes: Option<u64>) -> Option<Analysis> {
    let report: Value = serde_json::from_slice(answer).ok()?;
    let suspects = report.get("suspects")?.as_array()?;
    let compared = report.get("kind")? == "comparison";
    let sentence = match suspects.first() {
        Some(first) => first.get("sentence")?.as_str()?.to_owned(),
        None if compared => "nothing grew between the snapshots that looks like a leak".into(),
        None => "nothing in it looks like a leak".into(),
    };
    let findings = report.get("findings").and_then(Value::as_array);
    let verdict = findings.and_then(|findings| findings.last()?.get("verdict_sentence")?.as_str());
    Some(Analysis {
        sentence,
        suspects: suspects.iter().take(SUSPECTS).map(suspect).collect(),
        verdict: verdict.map(str::to_owned),
        took,
        peak_bytes,
    })
}

fn suspect(suspect: &Value) -> Value {
    json!({
        "sentence": suspect["sentence"],
        "pattern": suspect["pattern"],
        "holder": suspect["holder"],
        "site": suspect["site"],
        "itemSites": suspect["item_sites"],
        "itemClass": suspect["item_class"],
        "count": suspect["count"],
        "retainedBytes": suspect["retained_bytes"],
        "share": suspect["share"],
        "path": path_words(suspect["path"].as_array().map(Vec::as_slice).unwrap_or_default()),
    })
}

/// A retaining path, one line each step, from the root.
fn path_words(steps: &[Value]) -> Vec<String> {
    let words = |step: &Value| {
        let label = step["node"]["label"].as_str().unwrap_or_default();
        let id = step["node"]["id"].as_u64().unwrap_or(0);
        let edge = step["edge"].as_str().unwrap_or_default();
        let repeats = step["repeats"].as_u64().filter(|&repeats| repeats > 1);
        let repeats = repeats.map(|repeats| format!(" (x {repeats})")).unwrap_or_default();
        let arrow = if edge.is_empty() { "" } else { " -> " };
        format!("{edge}{arrow}{label} @{id}{repeats}")
    };
    if steps.len() <= PATH_STEPS {
        return steps.iter().map(words).collect();
    }
    let (first, rest) = steps.split_at(PATH_STEPS / 2);
    let (middle, last) = rest.split_at(rest.len().saturating_sub(PATH_STEPS / 2));
    let left_out = format!("... {} more ...", middle.len());
    first.iter().map(words).chain([left_out]).chain(last.iter().map(words)).collect()
}

/// The reason why this program cannot start an analysis, or where it is.
///
/// # Errors
/// The reason, in words.
pub fn program(node: &str, script: Option<&str>) -> Result<Program, String> {
    let Some(script) = script else {
        return Err("this process may not or cannot start node".into());
    };
    let (node, script) = (Path::new(node), Path::new(script));
    if !node.is_absolute() {
        return Err(format!("the path of node is not known: {}", node.display()));
    }
    Ok(Program { node: node.into(), script: script.into() })
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const NOTHING: &str = r#"{"snapshot":{"meta":{},"node_count":0,"edge_count":0},"nodes":[],"edges":[],"strings":[]}"#;

    /// Runs `script` as if it were node and the command line, on a snapshot without nodes.
    fn run_script(script: &str, figures: &Figures, timeout: Duration) -> Outcome {
        let (stop, stopped) = bounded(1);
        let outcome = run_stoppable(script, figures, timeout, &stopped);
        drop(stop);
        outcome
    }

    fn run_stoppable(
        script: &str,
        figures: &Figures,
        timeout: Duration,
        stopped: &Receiver<String>,
    ) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = folder.path().join("a.heapsnapshot");
        std::fs::write(&snapshot, NOTHING).unwrap();
        let file = folder.path().join("script");
        std::fs::write(&file, script).unwrap();
        let program = Program { node: "/bin/sh".into(), script: file };
        let errand = Errand {
            file: "a.heapsnapshot".into(),
            path: snapshot,
            earlier: None,
            finding: None,
            isolate: IsolateId(0),
        };
        run(&program, &[], &errand, figures, stopped, timeout)
    }

    fn sentence(outcome: Outcome) -> (RefusalReason, String) {
        let refusal = outcome.unwrap_err();
        (refusal.reason, refusal.sentence)
    }

    #[test]
    fn an_answer_is_summed_up_with_its_leading_suspects() {
        let step = |edge: &str, label: &str| json!({ "edge": edge, "node": { "label": label, "id": 7 }, "repeats": 1 });
        let suspect = json!({
            "sentence": "Map held by `cache`",
            "holder": "cache",
            "item_class": "Object",
            "retained_bytes": 9,
            "path": [step("", "(GC roots)"), step("cache", "Map")],
        });
        let report = json!({
            "kind": "analysis",
            "suspects": vec![suspect; 5],
            "findings": [{ "verdict_sentence": "the snapshot holds 9 of them" }],
        });
        let script = format!("cat <<'end'\n{report}\nend");
        let analysis = run_script(&script, &Figures::default(), MINUTE).unwrap();
        assert_eq!(analysis.sentence, "Map held by `cache`");
        assert_eq!(analysis.verdict.unwrap(), "the snapshot holds 9 of them");
        let suspects = analysis.suspects.as_array().unwrap();
        assert_eq!(suspects.len(), SUSPECTS);
        assert_eq!(suspects[0]["itemClass"], "Object");
        assert_eq!(suspects[0]["retainedBytes"], 9);
        assert_eq!(suspects[0]["path"], json!(["(GC roots) @7", "cache -> Map @7"]));
    }

    #[test]
    fn a_long_path_keeps_its_ends() {
        let steps: Vec<Value> = (0..40)
            .map(|id| json!({ "edge": "next", "node": { "label": "Link", "id": id } }))
            .collect();
        let words = path_words(&steps);
        assert_eq!(words.len(), PATH_STEPS + 1);
        assert_eq!(words[0], "next -> Link @0");
        assert_eq!(words[PATH_STEPS / 2], "... 28 more ...");
        assert_eq!(words[PATH_STEPS], "next -> Link @39");
    }

    #[test]
    fn it_is_refused_with_numbers_where_memory_is_too_small() {
        const MIB: u64 = 1 << 20;
        let figures = Figures {
            cgroup_limit_bytes: Some(256 * MIB),
            cgroup_used_bytes: Some(180 * MIB),
            ..Figures::default()
        };
        let refusal = run_script("exit 1", &figures, MINUTE).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Memory);
        let (needed, available) = (refusal.needed.unwrap(), refusal.available.unwrap());
        assert_eq!(needed, PROGRAM_BYTES + predicted_of_nothing());
        // A tenth of the limit is kept.
        assert_eq!(available, 256 * MIB - 180 * MIB - (25.6 * MIB as f64).ceil() as u64);
        let enough = Figures { cgroup_limit_bytes: refusal.sufficient, ..figures };
        assert_eq!(sentence(run_script("exit 1", &enough, MINUTE)).0, RefusalReason::Failed);
    }

    fn predicted_of_nothing() -> u64 {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), NOTHING).unwrap();
        predicted_memory(file.path()).unwrap()
    }

    #[test]
    fn what_goes_wrong_is_said_in_its_own_words() {
        let run = |script| sentence(run_script(script, &Figures::default(), MINUTE));
        let refused = run("echo 'leakguard: refused: it takes more' >&2; exit 3");
        assert_eq!(refused, (RefusalReason::Memory, "it takes more".into()));
        let failed = run("echo 'leakguard: it is no snapshot' >&2; exit 2");
        let expected = "it ended with exit code 2: it is no snapshot";
        assert_eq!(failed, (RefusalReason::Failed, expected.into()));
        assert_eq!(run("echo nonsense").1, "it gave no answer that can be read");
        assert_eq!(run("kill -9 $$").1, "it was killed");
    }

    #[test]
    fn it_is_ended_when_its_time_is_over_or_the_guard_stops() {
        let none = Figures::default();
        let timed_out = sentence(run_script("sleep 600", &none, Duration::from_secs(1)));
        assert_eq!(timed_out, (RefusalReason::Failed, "it was ended after 1 s".into()));

        let (stop, stopped) = bounded(1);
        stop.send(format!("{SHORT_OF_MEMORY}: 3 MiB were left")).unwrap();
        let short = sentence(run_stoppable("sleep 600", &none, MINUTE, &stopped));
        let expected = "memory ran short for the app: 3 MiB were left";
        assert_eq!(short, (RefusalReason::Memory, expected.into()));
        drop(stop);
        let dropped = sentence(run_stoppable("sleep 600", &none, MINUTE, &stopped));
        assert_eq!(dropped, (RefusalReason::Failed, "the guard was stopped".into()));
    }

    #[test]
    fn only_what_it_needs_of_the_environment_goes_with_it() {
        let variable = |name: &str| (OsString::from(name), OsString::from("x"));
        let names =
            ["PATH", "NODE_OPTIONS", "LEAKGUARD_DIR", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"];
        let analyst = Analyst::new(Err("none".into()), &names.map(variable));
        let kept: Vec<_> = analyst.environment.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(kept, ["PATH", "LEAKGUARD"]);
    }
}
