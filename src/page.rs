//! The model of the status page: what `status()` knows, trimmed to what may leave the process, and the points
//! of its charts. Pure; the sampler hands in what it owns, the page itself is in `report/assets/status.js`, and
//! who may see it is decided in `lib/page.js`.
//!
//! What goes out is named here field by field. A field that a finding or a snapshot gains is not on the page until
//! somebody has looked at what it can hold: nothing of the heap's contents may.

use serde_json::{Map, Value, json};

use crate::finding::listener_json;
use crate::metric::{SeriesId, Unit};
use crate::pipeline::{Drawn, Past};
use crate::sample::{IsolateId, Millis};
use crate::series::Point;

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// Points of one series. A chart is at most some 600 pixels wide; with thirty series it is 200 KB.
pub const MAX_POINTS: usize = 300;

/// Findings, refusals, snapshots and earlier runs that are listed, newest last.
const MAX_LISTED: usize = 20;

/// Isolates that are listed; the series are those of one.
const MAX_ISOLATES: usize = 64;

/// What the page asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// How far back the charts go, milliseconds.
    pub span_ms: u64,
    /// Whose series; that of the isolate that asks where it is not given or not known.
    pub isolate: Option<u32>,
}

/// What stands around the status at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The charts.
    pub past: &'a Past,
    /// Whose they are.
    pub isolate: IsolateId,
    /// Where they begin.
    pub from: Millis,
    /// And end.
    pub now: Millis,
    /// Unix time, in milliseconds, at which the monotonic clock showed zero.
    pub wall_ms_at_start: u64,
    /// Name and version of the app.
    pub app: (&'a str, &'a str),
    /// V8's limit for that isolate, bytes.
    pub heap_limit_bytes: Option<f64>,
    /// As `ready()` has it.
    pub ready: bool,
}

/// The page's JSON; the fields are described in docs/STATUS-PAGE.md.
pub fn model(status: &Value, around: &Around<'_>) -> Value {
    let shift = around.wall_ms_at_start;
    let process = &status["process"];
    json!({
        "schema": SCHEMA,
        "version": status["version"],
        "time": around.now.0 + shift,
        "state": status["state"],
        "failure": status["failure"],
        "ready": around.ready,
        "snapshotInProgress": status["snapshotInProgress"],
        "uptimeMs": status["uptimeMs"],
        "sampleAgeMs": status["sampleAgeMs"],
        "pid": status["pid"],
        "node": status["node"],
        "app": { "name": around.app.0, "version": around.app.1 },
        "directory": status["directory"],
        "directoryProblem": status["directoryProblem"],
        "span": { "from": around.from.0 + shift, "to": around.now.0 + shift },
        "limits": {
            "containerBytes": process["containerLimitBytes"],
            "heapBytes": around.heap_limit_bytes,
        },
        "process": { "series": with_points(&process["series"], &around.past.process, shift) },
        "isolate": isolate(status, around),
        "isolates": each(&status["isolates"], MAX_ISOLATES, |one| json!({
            "id": one["id"],
            "tid": one["tid"],
            "heartbeatAgeMs": one["heartbeatAgeMs"],
            "liveHeapBytes": one["liveHeap"]["lastBytes"],
        })),
        "findings": each(&status["findings"], MAX_LISTED, finding),
        "refusals": each(&status["refusals"], MAX_LISTED, |one| only(one, &[
            "kind", "finding", "reason", "sentence", "unit", "needed", "available", "sufficient",
        ])),
        "snapshots": each(&status["snapshots"], MAX_LISTED, |one| json!({
            "file": one["file"],
            "finding": one["finding"],
            "reason": one["reason"],
            "pauseMs": one["pauseMs"],
            "mode": one["meta"]["mode"],
            "fileBytes": one["meta"]["file_bytes"],
            "ended": one["meta"]["ended"],
        })),
        "previousRuns": each(&status["previousRuns"], MAX_LISTED, |one| only(one, &[
            "pid", "startedMs", "endedMs", "verdict", "sentence",
        ])),
        "settings": status["settings"],
        "losses": status["losses"],
        "cost": status["cost"],
    })
}

fn isolate(status: &Value, around: &Around<'_>) -> Value {
    let all = status["isolates"].as_array();
    let Some(one) = all.and_then(|all| all.iter().find(|one| one["id"] == around.isolate.0)) else {
        // It has come or gone since the last tick.
        return Value::Null;
    };
    let past = around.past;
    let mut isolate = only(one, &["id", "tid", "heartbeatAgeMs", "stalls", "liveHeap", "handles"]);
    isolate["series"] = with_points(&one["series"], &past.isolate, around.wall_ms_at_start);
    isolate["listeners"] = past
        .listeners
        .iter()
        .map(|(line, drawn)| {
            let mut value = listener_json(line);
            value["points"] = points(SeriesId::Listeners, drawn, around.wall_ms_at_start);
            value
        })
        .collect();
    isolate
}

fn finding(one: &Value) -> Value {
    let mut value = only(one, &["id", "time", "sentence"]);
    value["file"] = one["path"]
        .as_str()
        .and_then(|path| path.rsplit(['/', '\\']).next())
        .map_or(Value::Null, Value::from);
    value["cause"] = only(
        &one["cause"],
        &[
            "kind",
            "series",
            "emitter",
            "event",
            "count",
            "perMinute",
            "site",
            "via",
            "share",
            "bytesPerHour",
        ],
    );
    value["series"] = each(&one["series"], MAX_LISTED, |piece| {
        only(
            piece,
            &[
                "id",
                "isolate",
                "emitter",
                "unit",
                "confirmed",
                "slopePerHour",
                "windowMs",
                "firstValue",
                "lastValue",
                "since",
                "pValue",
            ],
        )
    });
    value["evidence"] = each(&one["evidence"], MAX_LISTED, |step| {
        only(step, &["kind", "state", "file", "reason", "sentence"])
    });
    value["timeToLimit"] = one["timeToLimit"].clone();
    // Names of routes and figures; null where no traffic is known.
    value["routes"] = one["routes"].clone();
    value
}

/// The series of `status()` with their points; one without a value has none.
fn with_points(series: &Value, drawn: &Drawn, shift: u64) -> Value {
    let told = series.as_object();
    drawn
        .iter()
        .filter_map(|(id, past)| {
            let mut value = only(told?.get(id.as_str())?, &["unit", "last", "ageMs", "growing"]);
            value["points"] = points(*id, past, shift);
            Some((id.as_str().to_owned(), value))
        })
        .collect::<Map<_, _>>()
        .into()
}

/// `[[Unix ms, mean], ...]`, oldest first. Bytes are whole, things have a decimal, shares four.
fn points(id: SeriesId, drawn: &[Point], shift: u64) -> Value {
    let round = match id.metric().unit {
        Unit::Bytes => 1.0,
        Unit::Count => 10.0,
        Unit::Ratio => 10_000.0,
    };
    let drawn = drawn.iter().map(|point| {
        let value = (point.mean * round).round() / round;
        let whole = value.fract() == 0.0 && value.abs() < 9e15;
        let value = if whole { json!(value as i64) } else { json!(value) };
        json!([point.at.0 + shift, value])
    });
    drawn.collect()
}

/// The last `most` members of a list, each as `show` has it.
fn each(list: &Value, most: usize, show: impl Fn(&Value) -> Value) -> Value {
    let all = list.as_array().map_or(&[][..], Vec::as_slice);
    all.iter().skip(all.len().saturating_sub(most)).map(show).collect()
}

/// The named members of an object; a null stays null, and an absent member is absent.
fn only(value: &Value, names: &[&str]) -> Value {
    match value {
        Value::Object(members) => names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), members.get(*name)?.clone())))
            .collect::<Map<_, _>>()
            .into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ListenerLine;

    fn point(at: u64, mean: f64) -> Point {
        Point { at: Millis(at), min: mean, mean, max: mean, count: 1 }
    }

    fn past() -> Past {
        let line = ListenerLine {
            emitter: "<script>".into(),
            event: "change".into(),
            spread: false,
            count: 12,
            per_minute: 3.0,
            site: None,
        };
        Past {
            process: vec![(SeriesId::Rss, vec![point(10, 1.5e6 + 0.25), point(20, 1.6e6)])],
            isolate: vec![(SeriesId::LoopUtilization, vec![point(10, 0.123_456)])],
            listeners: vec![(line, vec![point(10, 11.25)])],
        }
    }

    fn shown(status: &Value) -> Value {
        let past = past();
        model(
            status,
            &Around {
                past: &past,
                isolate: IsolateId(3),
                from: Millis(5),
                now: Millis(25),
                wall_ms_at_start: 1000,
                app: ("shop", "1.2.3"),
                heap_limit_bytes: Some(4e9),
                ready: true,
            },
        )
    }

    fn status() -> Value {
        json!({
            "state": "armed",
            "process": { "series": { "rss": { "unit": "bytes", "last": 1, "growing": null } } },
            "isolates": [
                { "id": 1, "tid": 0, "liveHeap": { "lastBytes": 7 }, "series": {} },
                {
                    "id": 3,
                    "tid": 2,
                    "liveHeap": { "lastBytes": 9 },
                    "series": { "loop_utilization": { "unit": "ratio", "last": 0.1 } },
                },
            ],
            "findings": [{
                "id": "a",
                "path": "/evidence/Finding.1.json",
                "sentence": "it grows",
                "analysis": { "sentence": "a string of the heap" },
                "cause": { "kind": "memory", "strings": ["secret"] },
                "series": [{ "id": "live_heap", "slopePerHour": 1.0, "points": [[1, 2]] }],
                "evidence": [{ "kind": "snapshot", "state": "written", "numbers": { "a": 1 } }],
            }],
        })
    }

    #[test]
    fn times_are_wall_times_and_values_are_rounded_by_their_unit() {
        let model = shown(&status());
        assert_eq!(
            model["process"]["series"]["rss"]["points"],
            json!([[1010, 1_500_000], [1020, 1_600_000]])
        );
        let isolate = &model["isolate"];
        assert_eq!(isolate["series"]["loop_utilization"]["points"], json!([[1010, 0.1235]]));
        assert_eq!(isolate["listeners"][0]["points"], json!([[1010, 11.3]]));
        assert_eq!(isolate["listeners"][0]["emitter"], "<script>");
        assert_eq!(model["span"], json!({ "from": 1005, "to": 1025 }));
        assert_eq!(model["isolates"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn what_is_not_named_stays_inside() {
        let model = shown(&status());
        assert_eq!(
            model["findings"][0],
            json!({
                "id": "a",
                "sentence": "it grows",
                "file": "Finding.1.json",
                "cause": { "kind": "memory" },
                "series": [{ "id": "live_heap", "slopePerHour": 1.0 }],
                "evidence": [{ "kind": "snapshot", "state": "written" }],
                "timeToLimit": null,
                "routes": null,
            })
        );
    }

    #[test]
    fn an_isolate_that_has_gone_and_a_status_of_nothing_make_a_page_too() {
        let model = shown(&json!({}));
        assert_eq!(model["isolate"], Value::Null);
        assert_eq!(model["findings"], json!([]));
        assert_eq!(model["process"]["series"], json!({}));
    }

    #[test]
    fn the_newest_of_a_long_list_are_shown() {
        let runs: Vec<Value> = (0..50).map(|pid| json!({ "pid": pid })).collect();
        let model = shown(&json!({ "previousRuns": runs }));
        assert_eq!(model["previousRuns"].as_array().map(Vec::len), Some(MAX_LISTED));
        assert_eq!(model["previousRuns"][MAX_LISTED - 1]["pid"], 49);
    }
}
