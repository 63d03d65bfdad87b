//! The model of a whole evidence directory: findings, snapshots and runs, for `leakguard report DIR`.
//!
//! It reads what lies there and orders it; it judges nothing, opens no snapshot and changes no file.
//! Findings and metadata are kept as the guard wrote them, because they may come from another version.
//! Everything in the directory is untrusted: links are not followed, sizes and counts are bounded, and a
//! file that cannot be read becomes a sentence in [`History::problems`].

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::evidence::dir::{Dir, DirEntry};
use crate::evidence::name::{EvidenceName, Kind};
use crate::heap::suspects::bytes;
use crate::metric::Unit;
use crate::recorder::{self, Event, Field, RunFile, RunHeader, RunHistory, What};
use crate::stats;

/// The version of the model as JSON. It rises when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Findings that are read, newest first. A guard's quota allows far fewer.
const MAX_FINDINGS: usize = 200;
/// Snapshots and profiles that are listed, newest first.
const MAX_SNAPSHOTS: usize = 500;
/// Runs that are read back, newest first: what a picture can hold side by side.
const MAX_RUNS: usize = 24;
/// The largest finding or metadata file that is read; the guard's own are some 100 KB at most.
const MAX_JSON_BYTES: u64 = 4 << 20;
/// Points of one series of one run: twice what a chart of a phone's or half a desktop's width resolves.
const MAX_POINTS: usize = 480;
/// Points among which a slope is looked for; the method is quadratic.
const SLOPE_POINTS: usize = 60;
/// Events of one run that are kept, the last ones.
const MAX_EVENTS: usize = 300;

/// Everything in an evidence directory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct History {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The directory as it was named on the command line.
    pub directory: String,
    /// Findings, newest first.
    pub findings: Vec<FindingFile>,
    /// How many findings there are in all.
    pub finding_count: usize,
    /// Snapshots and allocation profiles, newest first.
    pub snapshots: Vec<SnapshotFile>,
    /// How many there are in all.
    pub snapshot_count: usize,
    /// Recorded runs, newest first.
    pub runs: Vec<Run>,
    /// How many there are in all.
    pub run_count: usize,
    /// Files that could not be read, and why; one sentence each without a final dot.
    pub problems: Vec<String>,
}

/// A `Finding.*.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FindingFile {
    /// Its name.
    pub file: String,
    /// Its content, as the guard wrote it.
    pub content: Value,
}

/// A snapshot or a profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SnapshotFile {
    /// Its name.
    pub file: String,
    /// Bytes on disk.
    pub file_bytes: u64,
    /// `snapshot` or `profile`.
    pub what: &'static str,
    /// The metadata beside it, as the guard wrote it.
    pub meta: Option<Value>,
}

/// How a recorded run ended, as far as the file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// Its process lives.
    Running,
    /// The process said so itself.
    InOrder,
    /// The records stop without an end.
    CutOff,
    /// There is no end, and whether the process lives cannot be told on this file system.
    Unknown,
}

/// A `run.*.rec`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Its name.
    pub file: String,
    /// What the run was.
    pub header: RunHeader,
    /// How it ended.
    pub end: RunEnd,
    /// The same in words with numbers, without a final dot.
    pub ending: String,
    /// Wall time of the last record, milliseconds since 1970.
    pub last_unix_ms: u64,
    /// Growth of the live heap over the run, bytes per hour; `None` with too few readings.
    pub live_heap_per_hour: Option<f64>,
    /// Figures of the main isolate and the process over time; those that were recorded.
    pub series: Vec<RunSeries>,
    /// Isolates beside the main one, whose series are not shown.
    pub other_isolates: usize,
    /// What happened, oldest first.
    pub events: Vec<RunEvent>,
    /// Records whose checksum is wrong.
    pub torn_records: u64,
    /// Records the file lacks because it was truncated.
    pub missing_records: u64,
}

/// One figure of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSeries {
    /// Its series id, or the recorder's name for a figure that is no series.
    pub id: Field,
    /// `bytes`, `count` or `ratio`.
    pub unit: &'static str,
    /// `[milliseconds since 1970, value]` in order of time, thinned to what a chart resolves: of each stretch of
    /// time the smallest and the largest value.
    pub points: Vec<(u64, f64)>,
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunEvent {
    /// Milliseconds since 1970.
    pub at: u64,
    /// Thread id of the isolate; 0 for the main thread and the process.
    pub isolate: u32,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// The figures of a run that are shown, in this order.
const SHOWN: &[Field] = &[
    Field::LiveHeap,
    Field::ArrayBuffers,
    Field::External,
    Field::Native,
    Field::Rss,
    Field::CgroupUsed,
    Field::Listeners,
    Field::Handles,
    Field::Fds,
    Field::Timers,
    Field::Threads,
];

impl History {
    /// The report in one sentence without a final dot: the newest finding, or that there is none.
    pub fn headline(&self) -> String {
        let newest =
            self.findings.first().and_then(|finding| finding.content.get("sentence")?.as_str());
        match newest {
            Some(sentence) => sentence.to_owned(),
            None if self.runs.is_empty() && self.snapshots.is_empty() => {
                "No evidence lies in this directory".to_owned()
            }
            None => "No finding lies in this directory".to_owned(),
        }
    }
}

/// Reads an evidence directory. Where the guard had to use its private child `leakguard-<uid>` of a directory
/// that others may write to, naming the parent is enough.
///
/// # Errors
/// When the directory cannot be read; single files that cannot are listed in the result.
pub fn read(directory: &Path) -> io::Result<History> {
    let named = directory.to_string_lossy().into_owned();
    let history = read_one(directory, &named)?;
    let empty =
        history.findings.is_empty() && history.snapshots.is_empty() && history.runs.is_empty();
    if !empty {
        return Ok(history);
    }
    let children = std::fs::read_dir(directory)?.filter_map(Result::ok).filter(|entry| {
        let own = entry.file_name().to_str().is_some_and(|name| name.starts_with("leakguard-"));
        // The type of the entry itself: a link is not followed.
        own && entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    let mut children: Vec<_> = children.map(|entry| entry.path()).collect();
    children.sort();
    match children.first() {
        Some(child) => read_one(child, &child.to_string_lossy()),
        None => Ok(history),
    }
}

fn read_one(path: &Path, named: &str) -> io::Result<History> {
    let directory = Dir::open(path)?;
    let mut named_files: Vec<(EvidenceName, DirEntry)> = directory
        .entries(|name| EvidenceName::parse(name).is_some())?
        .into_iter()
        .filter_map(|entry| Some((EvidenceName::parse(&entry.name)?, entry)))
        .collect();
    // The stem begins with the time; within one second the sequence decides.
    named_files.sort_by(|(a, _), (b, _)| b.stem().cmp(a.stem()));

    let mut problems = Vec::new();
    let of =
        |wanted: fn(Kind) -> bool| named_files.iter().filter(move |(name, _)| wanted(name.kind()));

    let is_finding = |kind| kind == Kind::Finding;
    let findings: Vec<_> = of(is_finding)
        .take(MAX_FINDINGS)
        .filter_map(|(_, entry)| {
            let content = read_json(&directory, entry).map_err(|why| problems.push(why)).ok()?;
            Some(FindingFile { file: entry.name.clone(), content })
        })
        .collect();

    let is_heap = |kind| matches!(kind, Kind::Snapshot(_) | Kind::Profile);
    let snapshots: Vec<_> = of(is_heap)
        .take(MAX_SNAPSHOTS)
        .map(|(name, entry)| {
            let meta_name = name.with_kind(Kind::Meta).to_string();
            let meta = of(|kind| kind == Kind::Meta).find(|(_, meta)| meta.name == meta_name);
            SnapshotFile {
                file: entry.name.clone(),
                file_bytes: entry.size_bytes,
                what: if name.kind() == Kind::Profile { "profile" } else { "snapshot" },
                meta: meta.and_then(|(_, meta)| {
                    read_json(&directory, meta).map_err(|why| problems.push(why)).ok()
                }),
            }
        })
        .collect();

    let files = recorder::runs(path)?;
    let run_count = files.len();
    let runs = files.into_iter().take(MAX_RUNS).filter_map(|file| {
        let name = file
            .path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        match recorder::read_back(&file.path) {
            Ok(history) => Some(run(name, &file, &history)),
            Err(error) => {
                problems.push(format!("{name}: {error}"));
                None
            }
        }
    });
    let runs = runs.collect();
    Ok(History {
        schema: SCHEMA,
        directory: named.to_owned(),
        findings,
        finding_count: of(is_finding).count(),
        snapshots,
        snapshot_count: of(is_heap).count(),
        runs,
        run_count,
        problems,
    })
}

fn read_json(directory: &Dir, entry: &DirEntry) -> Result<Value, String> {
    let name = &entry.name;
    let file = directory.open_read(name).map_err(|error| format!("{name}: {error}"))?;
    let mut text = Vec::new();
    file.take(MAX_JSON_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| format!("{name}: {error}"))?;
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(format!("{name}: larger than the {} that are read", bytes(MAX_JSON_BYTES)));
    }
    let value: Value = serde_json::from_slice(&text).map_err(|error| format!("{name}: {error}"))?;
    if value.is_object() { Ok(value) } else { Err(format!("{name}: expected an object")) }
}

fn run(file: String, found: &RunFile, history: &RunHistory) -> Run {
    let start = history.header.started_unix_ms;
    let wall = |ms: u64| start.saturating_add(ms);
    let series: Vec<RunSeries> = SHOWN
        .iter()
        .filter_map(|&field| {
            let points = series_of(history, field);
            let thinned = thin(&points, MAX_POINTS);
            let unit = field.series().map_or(Unit::Bytes, |series| series.metric().unit);
            (points.len() > 1).then(|| RunSeries {
                id: field,
                unit: unit.as_str(),
                points: thinned.into_iter().map(|(at, value)| (wall(at), value)).collect(),
            })
        })
        .collect();
    let live_heap = series_of(history, Field::LiveHeap);
    let others: BTreeSet<u32> = history
        .samples
        .iter()
        .map(|sample| sample.isolate)
        .filter(|&isolate| isolate != 0)
        .collect();
    let shown_from = history.events.len().saturating_sub(MAX_EVENTS);
    let events = history.events.iter().skip(shown_from).map(|event| RunEvent {
        at: wall(event.at.0),
        isolate: event.isolate,
        what: event.what.clone(),
    });
    let (end, ending) = ending(found, history);
    Run {
        file,
        header: history.header.clone(),
        end,
        ending,
        last_unix_ms: wall(history.last_at().map_or(0, |at| at.0)),
        live_heap_per_hour: slope_per_hour(&live_heap),
        series,
        other_isolates: others.len(),
        events: events.collect(),
        torn_records: history.torn_records,
        missing_records: history.missing_records,
    }
}

/// A figure of the main isolate over time, `[ms since the start, value]`. The live heap and what is read with it
/// come from the readings after a GC, where there are any.
fn series_of(history: &RunHistory, field: Field) -> Vec<(u64, f64)> {
    let reading = |event: &Event| match &event.what {
        What::LiveHeap { live_bytes, array_buffers_bytes, external_bytes }
            if event.isolate == 0 =>
        {
            match field {
                Field::LiveHeap => Some(*live_bytes),
                Field::ArrayBuffers => *array_buffers_bytes,
                Field::External => *external_bytes,
                _ => None,
            }
        }
        _ => None,
    };
    let readings: Vec<_> =
        history.readings.iter().filter_map(|event| Some((event.at.0, reading(event)?))).collect();
    if readings.len() > 1 {
        return readings;
    }
    let main = history.samples.iter().filter(|sample| sample.isolate == 0);
    main.filter_map(|sample| Some((sample.at.0, sample.values.get(field)?))).collect()
}

/// At most `limit` points: of each of `limit / 2` equal stretches of points the smallest and the largest.
fn thin(points: &[(u64, f64)], limit: usize) -> Vec<(u64, f64)> {
    if points.len() <= limit {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil((limit / 2).max(1));
    let mut kept = Vec::with_capacity(limit);
    for part in points.chunks(stretch) {
        let by_value = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
        let (Some(&low), Some(&high)) =
            (part.iter().min_by(by_value), part.iter().max_by(by_value))
        else {
            continue;
        };
        kept.push(if low.0 <= high.0 { low } else { high });
        if low != high {
            kept.push(if low.0 <= high.0 { high } else { low });
        }
    }
    kept
}

/// Theil-Sen slope of a series, per hour.
fn slope_per_hour(points: &[(u64, f64)]) -> Option<f64> {
    if points.len() < 4 {
        return None;
    }
    let step = points.len().div_ceil(SLOPE_POINTS);
    let few: Vec<_> =
        points.iter().step_by(step).map(|&(at, value)| (at as f64 / 3.6e6, value)).collect();
    stats::theil_sen(&few).map(|line| line.slope)
}

/// How the run ended, and how near a limit: what is known, and no cause that is not.
fn ending(found: &RunFile, history: &RunHistory) -> (RunEnd, String) {
    if let Some(What::Exit { code, reason }) = history.exit().map(|event| &event.what) {
        let code = code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        return (RunEnd::InOrder, format!("ended in order ({reason}{code})"));
    }
    let near = nearest_limit(history);
    match found.running {
        Some(true) => (RunEnd::Running, format!("is running{near}")),
        Some(false) => (RunEnd::CutOff, format!("ended without exit{near}")),
        None => (
            RunEnd::Unknown,
            format!("has no exit record{near}; whether it runs cannot be told here"),
        ),
    }
}

/// `, at 498 MB of the container's 512 MB`, from the last sample; empty where no limit is known.
fn nearest_limit(history: &RunHistory) -> String {
    let last = |field| {
        history
            .samples
            .iter()
            .rev()
            .find_map(|sample| sample.values.get(field).filter(|_| sample.isolate == 0))
    };
    let header = &history.header;
    let number = |value: Option<u64>| value.map(|value| value as f64);
    let container = last(Field::CgroupUsed).or_else(|| last(Field::Rss));
    let container_limit = last(Field::CgroupLimit).or(number(header.cgroup_limit_bytes));
    let heap = last(Field::HeapUsed).or_else(|| last(Field::LiveHeap));
    let heap_limit = last(Field::HeapLimit).or(number(header.heap_limit_bytes));
    let pairs = [(container, container_limit, "the container's"), (heap, heap_limit, "V8's")];
    let known = pairs
        .into_iter()
        .filter_map(|(used, limit, whose)| Some((used?, limit.filter(|&l| l > 0.0)?, whose)));
    let nearest = known.max_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    nearest.map_or_else(String::new, |(used, limit, whose)| {
        format!(", at {} of {whose} {}", bytes(used.max(0.0) as u64), bytes(limit as u64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Recorder, RecorderOptions, Sample, Values};
    use crate::sample::Millis;
    use serde_json::json;

    const MB: f64 = 1_048_576.0;

    fn recorder(directory: &Path, pid: u32) -> Recorder {
        let header = RunHeader {
            app: "shop".into(),
            pid,
            started_unix_ms: 1_700_000_000_000,
            cgroup_limit_bytes: Some(512 << 20),
            ..RunHeader::default()
        };
        let options =
            RecorderOptions { directory: directory.to_path_buf(), file_bytes: 1 << 20, header };
        Recorder::create(&options).unwrap()
    }

    fn fill(recorder: &mut Recorder, minutes: u64) {
        for minute in 0..minutes {
            let at = Millis(minute * 60_000);
            let mut values = Values::default();
            values.set(Field::CgroupUsed, Some((440.0 + minute as f64) * MB));
            recorder.append_sample(&Sample { at, isolate: 0, values }).unwrap();
            recorder.append_sample(&Sample { at, isolate: 3, values }).unwrap();
            let what = What::LiveHeap {
                live_bytes: (50.0 + 2.0 * minute as f64) * MB,
                array_buffers_bytes: None,
                external_bytes: None,
            };
            recorder.append_event(&Event { at, isolate: 0, what }).unwrap();
        }
    }

    #[test]
    fn a_run_that_was_cut_off_says_how_near_its_limit_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let mut running = recorder(directory.path(), 7);
        fill(&mut running, 58);
        let history = read(directory.path()).unwrap();
        assert_eq!(history.runs[0].end, RunEnd::Running);
        drop(running);
        let history = read(directory.path()).unwrap();
        let run = &history.runs[0];
        assert_eq!(run.end, RunEnd::CutOff);
        assert_eq!(run.ending, "ended without exit, at 497 MB of the container's 512 MB");
        assert_eq!(run.live_heap_per_hour.map(|slope| (slope / MB).round()), Some(120.0));
        assert_eq!(run.other_isolates, 1);
        let shown: Vec<_> =
            run.series.iter().map(|series| (series.id, series.points.len())).collect();
        assert_eq!(shown, [(Field::LiveHeap, 58), (Field::CgroupUsed, 58)]);
        assert_eq!(run.series[0].points[1].0, 1_700_000_060_000);
    }

    #[test]
    fn a_run_that_ended_in_order_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let mut ended = recorder(directory.path(), 8);
        fill(&mut ended, 3);
        ended.close(Millis(180_000), Some(0), "exit").unwrap();
        drop(ended);
        let history = read(directory.path()).unwrap();
        assert_eq!(history.runs[0].end, RunEnd::InOrder);
        assert_eq!(history.runs[0].ending, "ended in order (exit, exit code 0)");
    }

    #[test]
    fn findings_come_newest_first_and_broken_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let put =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        put("Finding.20260101.000000.1.0.001.json", r#"{"sentence":"older"}"#);
        put("Finding.20260102.000000.1.0.001.json", r#"{"sentence":"newer"}"#);
        put("Finding.20260103.000000.1.0.001.json", "{");
        put("Finding.20260103.000000.1.0.002.json", "[]");
        put("Heap.20260102.000000.1.0.002.heapsnapshot", "{}");
        put("Snapshot.20260102.000000.1.0.002.meta", r#"{"reason":"finding"}"#);
        put("Finding.txt", "not ours");
        #[cfg(unix)]
        std::os::unix::fs::symlink(
            "/etc/hostname",
            directory.path().join("Finding.20260104.000000.1.0.001.json"),
        )
        .unwrap();
        let history = read(directory.path()).unwrap();
        assert_eq!(history.headline(), "newer");
        assert_eq!(history.findings.len(), 2);
        assert_eq!(history.finding_count, 4);
        assert_eq!(history.problems.len(), 2);
        assert_eq!(history.snapshots[0].meta, Some(json!({ "reason": "finding" })));
    }

    #[test]
    fn the_private_child_of_a_shared_directory_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let child = directory.path().join("leakguard-1000");
        std::fs::create_dir(&child).unwrap();
        std::fs::write(
            child.join("Finding.20260101.000000.1.0.001.json"),
            r#"{"sentence":"here"}"#,
        )
        .unwrap();
        assert_eq!(read(directory.path()).unwrap().headline(), "here");
    }

    #[test]
    fn an_empty_directory_is_no_error_and_a_missing_one_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            read(directory.path()).unwrap().headline(),
            "No evidence lies in this directory"
        );
        assert!(read(&directory.path().join("nowhere")).is_err());
    }

    #[test]
    fn thinning_keeps_the_peaks() {
        let mut points: Vec<_> = (0..10_000).map(|at| (at, 5.0)).collect();
        points[4_321].1 = 99.0;
        points[7_777].1 = 1.0;
        let kept = thin(&points, MAX_POINTS);
        assert!(kept.len() <= MAX_POINTS);
        assert!(kept.contains(&(4_321, 99.0)) && kept.contains(&(7_777, 1.0)));
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
