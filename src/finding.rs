//! A finding as it is written: the schema of `Finding.*.json`, and the sentence that names the cause. Pure:
//! it is given what was found and says it; it reads no clock and writes no file.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::{Bytes, Config};
use crate::detect::{NativeKind, NativeVerdict};
use crate::metric::{SeriesId, Unit};
use crate::near_end::NearLimit;
use crate::pipeline::{Cause, Draft, ListenerLine, Piece};
use crate::postmortem::{self, RunSummary};
use crate::probe::FdKind;
use crate::profile::Allocation;
use crate::routes::{Explanation, Share, Traffic, TrafficView, Verdict};
use crate::sample::{Millis, Site};

/// From here on the silence of an event loop is worth a word: three ticks of the default interval.
const SILENT_MS: u64 = 3_000;

/// Version of the schema of `Finding.*.json`; raised when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// From this rate on sentences speak of minutes.
const FAST_BYTES_PER_HOUR: f64 = 120.0 * 1_048_576.0;

/// Who found it: the same for every finding of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// Thread id of the environment that started the guard.
    pub tid: u32,
    /// `process.version`
    pub node: String,
    /// `process.versions.v8`
    pub v8: String,
    /// `linux-x64`
    pub platform: String,
    /// Name of the app.
    pub app_name: String,
    /// Its version.
    pub app_version: String,
    /// Working directory: paths below it are shown relative to it in sentences.
    pub cwd: String,
    /// Version of leakguard.
    pub leakguard: String,
    /// Age of the process when the guard started, milliseconds.
    pub uptime_ms: u64,
}

impl Identity {
    /// Major version of Node; 0 if it cannot be read.
    pub fn node_major(&self) -> u32 {
        self.node
            .trim_start_matches('v')
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .unwrap_or(0)
    }

    /// What runs are keyed by.
    pub fn app(&self, config: &Config) -> String {
        match &config.app {
            Some(app) => app.clone(),
            None => format!("{}@{}", self.app_name, self.app_version),
        }
    }
}

/// One step of evidence: taken, refused, under way or failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `snapshot`, `profile`, `followup`, `analysis`.
    pub kind: &'static str,
    /// `written`, `refused`, `pending`, `failed`.
    pub state: &'static str,
    /// File name within the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Code of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// In words, with numbers.
    pub sentence: String,
    /// The refusal's or the file's numbers.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub numbers: Value,
}

/// A finding with all that is known of it so far.
#[derive(Clone, Debug)]
pub struct Finding {
    /// File stem, the id.
    pub id: String,
    /// Unix milliseconds.
    pub wall_ms: u64,
    /// Age of the process, milliseconds.
    pub process_age_ms: u64,
    /// The thread id of the isolate concerned.
    pub tid: u32,
    /// The draft it was opened with; series that join are appended.
    pub draft: Draft,
    /// Libuv handles by type.
    pub handles: Vec<(String, u64)>,
    /// Descriptors by kind.
    pub fds: Vec<FdKind>,
    /// Threads by name.
    pub threads: Vec<(String, u64)>,
    /// Memory limits and use around it, by name.
    pub limits: Map<String, Value>,
    /// Steps of evidence.
    pub steps: Vec<Step>,
    /// Pair of snapshots, once there is one.
    pub pair: Option<String>,
    /// Who allocates what grows, once a profile knows.
    pub allocation: Option<Allocation>,
    /// What an analysis of its snapshot says; null before.
    pub analysis: Value,
    /// For growth that was found across runs: those runs, oldest first. Empty otherwise.
    pub runs: Vec<RunSummary>,
}

/// Turns monotonic time into text; given by the caller, who has the clock.
pub type ShowTime<'a> = &'a dyn Fn(Millis) -> String;

impl Finding {
    /// The file's content.
    pub fn to_json(&self, identity: &Identity, config: &Config, time: ShowTime<'_>) -> Value {
        json!({
            "schema": SCHEMA,
            "kind": "finding",
            "id": self.id,
            "time": time(self.draft.at),
            "pid": identity.pid,
            "tid": self.tid,
            "app": { "name": identity.app_name, "version": identity.app_version, "key": identity.app(config) },
            "node": identity.node,
            "v8": identity.v8,
            "leakguard": identity.leakguard,
            "platform": identity.platform,
            "processAgeMs": self.process_age_ms,
            "sentence": self.sentence(identity, time),
            "cause": self.cause_json(),
            "series": self.draft.pieces.iter().map(|piece| self.piece_json(piece, time)).collect::<Vec<_>>(),
            "listeners": self.draft.listeners.iter().map(listener_json).collect::<Vec<_>>(),
            "routes": self.draft.routes.as_ref().map(explanation_json),
            "handles": self.handles.iter().map(|(kind, count)| (kind.clone(), json!(count))).collect::<Map<_, _>>(),
            "fds": self.fds.iter().map(|of| json!({
                "kind": of.kind,
                "count": of.count,
                "examples": of.examples.iter().map(|(what, count)| json!({ "what": what, "count": count })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "threads": self.threads.iter().map(|(name, count)| json!({ "name": name, "count": count })).collect::<Vec<_>>(),
            "context": self.draft.context.iter().map(|(id, value)| (id.as_str().to_owned(), json!(value.round()))).collect::<Map<_, _>>(),
            "limits": self.limits,
            "timeToLimit": self.draft.limit.map(|(ms, kind, bytes)| json!({ "ms": ms, "limit": kind.words(), "bytes": bytes })),
            "nearLimit": self.draft.near.as_ref().map(|near| json!({
                "limit": near.kind.words(),
                "usedBytes": near.used_bytes,
                "bytes": near.limit_bytes,
                "leftMs": near.left_ms,
                "loopSilentMs": near.silent_ms,
            })),
            "settings": settings_json(config),
            "evidence": self.steps,
            "pair": self.pair,
            "analysis": self.analysis,
            "runs": self.runs,
        })
    }

    /// What leaks, at what rate, since when, what holds it, and when it will be too late: one line.
    pub fn sentence(&self, identity: &Identity, time: ShowTime<'_>) -> String {
        let mut parts = Vec::new();
        parts.extend(self.draft.near.as_ref().map(near_words));
        if let (false, Some(piece)) = (self.runs.is_empty(), self.draft.pieces.first()) {
            parts.push(postmortem::across_words(&self.runs, piece.source.series));
            return parts.join("; ");
        }
        match &self.draft.cause {
            Cause::Listeners(line) => parts.push(listeners_words(line, identity)),
            Cause::Timers { count } => parts.push(format!("timers pile up: {count} are pending")),
            Cause::Count { series, count } => {
                parts.push(self.count_words(*series, *count));
            }
            Cause::Memory { .. } => {}
        }
        // The fastest memory series, and when there is none the one that opened the finding.
        let memory = self
            .draft
            .pieces
            .iter()
            .filter(|piece| piece.source.series.metric().unit == Unit::Bytes)
            .max_by(|a, b| {
                (a.confirmed, a.evidence.slope_per_hour)
                    .partial_cmp(&(b.confirmed, b.evidence.slope_per_hour))
                    .unwrap_or(std::cmp::Ordering::Equal)
            });
        if let Some(piece) = memory.or(self.draft.pieces.first()) {
            parts.push(growth_words(piece, self.age_at(piece.since), time));
        }
        let native = self.draft.pieces.iter().filter(|piece| piece.confirmed);
        if let Some(verdict) = native.filter_map(|piece| piece.native.as_ref()).next() {
            parts.push(native_words(verdict));
        }
        parts.extend(self.draft.routes.as_ref().and_then(routes_words));
        if let Some(allocation) = self.allocation.as_ref().filter(|one| self.is_news(one)) {
            parts.push(allocation_words(allocation, identity));
        }
        let told = |kind| self.draft.near.as_ref().is_some_and(|near| near.kind == kind);
        if let Some((ms, kind, bytes)) = self.draft.limit.filter(|(_, kind, _)| !told(*kind)) {
            parts.push(format!(
                "at this rate the {} of {} is reached in {}",
                kind.words(),
                Bytes(bytes),
                duration_words(ms)
            ));
        }
        parts.join("; ")
    }

    /// Age of the process at a moment of the guard's clock.
    fn age_at(&self, at: Millis) -> u64 {
        self.process_age_ms.saturating_sub(self.draft.at.0.saturating_sub(at.0))
    }

    /// Unix milliseconds of a moment of the guard's clock.
    fn wall_at(&self, at: Millis) -> u64 {
        (self.wall_ms + at.0).saturating_sub(self.draft.at.0)
    }

    fn piece_json(&self, piece: &Piece, time: ShowTime<'_>) -> Value {
        let evidence = &piece.evidence;
        let metric = piece.source.series.metric();
        json!({
            "id": metric.name,
            "isolate": piece.source.isolate.map(|id| id.0),
            "emitter": piece.source.emitter,
            "unit": metric.unit.as_str(),
            "confirmed": piece.confirmed,
            "slopePerHour": round(evidence.slope_per_hour),
            "slopeBetween": [round(evidence.slope_between.0), round(evidence.slope_between.1)],
            "laterSlopePerHour": round(evidence.later_slope_per_hour),
            "windowMs": evidence.window_ms,
            "until": time(evidence.at),
            "readings": evidence.readings,
            "evaluations": evidence.agreed,
            "firstValue": evidence.first.round(),
            "lastValue": evidence.last.round(),
            "since": time(piece.since),
            "fromStart": piece.from_start,
            "loadFactor": round(evidence.load_factor),
            "guardBytes": evidence.own.round(),
            "pValue": evidence.p_value,
            "confidence": round(1.0 - evidence.p_value),
            "threshold": { "ratePerHour": round(evidence.threshold_per_hour), "amount": round(evidence.amount) },
            "malloc": piece.native.as_ref().map(|verdict| json!({
                "kind": verdict.kind.as_str(),
                "grownBytes": verdict.grown.round(),
                "usedBytes": verdict.used.last.round(),
                "usedGrownBytes": verdict.used.growth().round(),
                "usedHighestBytes": verdict.used.highest.round(),
                "freeBytes": verdict.free.last.round(),
                "freeGrownBytes": verdict.free.growth().round(),
            })),
            "points": piece.points.iter().map(|(at, value)| json!([self.wall_at(*at), value.round()])).collect::<Vec<_>>(),
        })
    }

    fn count_words(&self, series: SeriesId, count: u64) -> String {
        let kinds: Vec<String> = match series {
            SeriesId::Fds => self
                .fds
                .iter()
                .take(2)
                .map(|of| match of.examples.first() {
                    Some((what, _)) => format!("{} {} ({what})", of.count, of.kind),
                    None => format!("{} {}", of.count, of.kind),
                })
                .collect(),
            SeriesId::Handles => {
                self.handles.iter().take(2).map(|(kind, count)| format!("{count} {kind}")).collect()
            }
            SeriesId::Threads => {
                self.threads.iter().take(2).map(|(name, count)| format!("{count} {name}")).collect()
            }
            _ => Vec::new(),
        };
        let mut words = format!("{} pile up: {count}", series.metric().words);
        if !kinds.is_empty() {
            words.push_str(", most of them ");
            words.push_str(&kinds.join(" and "));
        }
        words
    }

    /// Whether the profile names other code than the cause does already.
    fn is_news(&self, allocation: &Allocation) -> bool {
        match &self.draft.cause {
            Cause::Listeners(ListenerLine { site: Some(site), .. }) => {
                site.file != allocation.site.file || site.function != allocation.site.function
            }
            _ => true,
        }
    }

    fn cause_json(&self) -> Value {
        let mut cause = self.own_cause_json();
        if let Some(allocation) = &self.allocation {
            let allocation = json!({
                "site": allocation.site,
                "via": allocation.via,
                "share": round(allocation.share),
                "bytesPerHour": allocation.bytes_per_hour.round(),
                "bytes": allocation.bytes.round(),
                "sampledGrowthBytes": allocation.total_bytes.round(),
                "samples": allocation.samples,
                "windowMs": allocation.window_ms,
                "stack": allocation.stack,
            });
            match (&self.draft.cause, &mut cause, allocation) {
                // Nothing else is known of it: the profile's answer is the cause.
                (Cause::Memory { .. }, Value::Object(cause), Value::Object(allocation)) => {
                    cause.insert("kind".into(), json!("allocation"));
                    cause.extend(allocation);
                }
                (_, cause, allocation) => cause["allocation"] = allocation,
            }
        }
        cause
    }

    fn own_cause_json(&self) -> Value {
        match &self.draft.cause {
            Cause::Listeners(line) => json!({
                "kind": "listeners",
                "emitter": line.emitter,
                "event": line.event,
                "spread": line.spread,
                "count": line.count,
                "perMinute": round(line.per_minute),
                "site": line.site,
            }),
            Cause::Timers { count } => json!({ "kind": "timers", "count": count }),
            Cause::Count { series, count } => json!({ "kind": series.as_str(), "count": count }),
            Cause::Memory { series } => json!({ "kind": "memory", "series": series.as_str() }),
        }
    }
}

/// A path as a person wants it: relative where it lies below the working directory.
pub fn short_site(site: &Site, cwd: &str) -> String {
    let file = site.file.strip_prefix("file://").unwrap_or(&site.file);
    let file = match file.strip_prefix(cwd).and_then(|rest| rest.strip_prefix(['/', '\\'])) {
        Some(relative) if !cwd.is_empty() => relative,
        _ => file,
    };
    format!("{file}:{}", site.line)
}

fn near_words(near: &NearLimit) -> String {
    let mut words = format!(
        "the {} is near: {} of {} used",
        near.kind.words(),
        Bytes(near.used_bytes),
        Bytes(near.limit_bytes)
    );
    if let Some(ms) = near.left_ms {
        words.push_str(&format!(", full in {} at this rate", duration_words(ms.max(1000))));
    }
    if near.silent_ms >= SILENT_MS {
        words.push_str(&format!(
            ", and the event loop has not answered for {}",
            duration_words(near.silent_ms)
        ));
    }
    words
}

fn listeners_words(line: &ListenerLine, identity: &Identity) -> String {
    let ListenerLine { emitter, event, count, per_minute, .. } = line;
    let of = if event == "*" { String::new() } else { format!(" of '{event}'") };
    let mut words = if line.spread {
        format!(
            "listeners{of} pile up, a few on each of ever more {emitter} objects that are never dropped: about {count}, \
             +{per_minute:.0}/min"
        )
    } else {
        format!("listeners{of} on {emitter} pile up: {count}, +{per_minute:.0}/min")
    };
    if let Some(site) = &line.site {
        words.push_str(&format!(", added at {}", short_site(site, &identity.cwd)));
        if !site.function.is_empty() {
            words.push_str(&format!(" ({})", site.function));
        }
    }
    words
}

/// Who allocates what stays, in words; the same in the finding's sentence and in the line that completes it.
pub fn allocation_words(allocation: &Allocation, identity: &Identity) -> String {
    let mut names = Vec::new();
    if !allocation.site.function.is_empty() {
        names.push(allocation.site.function.clone());
    }
    names.extend(allocation.via.as_ref().map(|via| format!("via {via}")));
    let mut at = short_site(&allocation.site, &identity.cwd);
    if !names.is_empty() {
        at.push_str(&format!(" ({})", names.join(", ")));
    }
    let percent = 100.0 * allocation.share;
    if allocation.share >= 0.5 {
        format!("most of what stays is allocated at {at}, {percent:.0} % of the growth sampled")
    } else {
        // The rest was allocated without app code on the stack, or by many.
        format!(
            "of the app's code, {at} allocates most of what stays, {percent:.0} % of the growth sampled"
        )
    }
}

/// Which requests the growth goes with, in words; `None` where nothing is known of it.
pub fn routes_words(of: &Explanation) -> Option<String> {
    let each = of.bytes_per_request.map(|bytes| format!("about {} a request", handy_bytes(bytes)));
    let with = match (of.verdict, of.with.as_slice()) {
        (Verdict::Routes, [first, others @ ..]) => {
            let mut words = format!(
                "it goes with {} ({} for each of its {} requests/s, r {:.2})",
                first.traffic.route,
                handy_bytes(first.bytes_per_request),
                handy_rate(first.traffic.per_second),
                first.r
            );
            for other in others {
                words.push_str(&format!(
                    " and, for {:.0} %, with {} (r {:.2})",
                    100.0 * other.share,
                    other.traffic.route,
                    other.r
                ));
            }
            Some(words)
        }
        (Verdict::OneOf, [_, ..]) => {
            let names: Vec<&str> = of.with.iter().map(|of| of.traffic.route.as_str()).collect();
            let names = names.join(" or ");
            Some(format!("it goes with {names}, whose traffic does not tell them apart"))
        }
        (Verdict::Traffic, _) => Some("it goes with all requests alike".into()),
        (Verdict::Time, _) => Some("it goes on whatever the traffic".into()),
        _ => None,
    };
    match (each, with) {
        (None, None) => None,
        (each, with) => Some([each, with].into_iter().flatten().collect::<Vec<_>>().join("; ")),
    }
}

/// Bytes as a handy number: `412 bytes`, `14 KB`.
fn handy_bytes(bytes: f64) -> String {
    if bytes < 1024.0 {
        return format!("{bytes:.0} bytes");
    }
    Bytes(bytes as u64).to_string()
}

fn handy_rate(per_second: f64) -> String {
    if per_second >= 10.0 { format!("{per_second:.0}") } else { format!("{per_second:.1}") }
}

fn growth_words(piece: &Piece, age_ms: u64, time: ShowTime<'_>) -> String {
    let metric = piece.source.series.metric();
    let (rate, first, last) = match metric.unit {
        Unit::Bytes => (
            byte_rate_words(piece.evidence.slope_per_hour),
            Bytes(piece.evidence.first.max(0.0) as u64).to_string(),
            Bytes(piece.evidence.last.max(0.0) as u64).to_string(),
        ),
        _ => (
            format!("{:.1}/min", piece.evidence.slope_per_hour / 60.0),
            format!("{:.0}", piece.evidence.first.max(0.0)),
            format!("{:.0}", piece.evidence.last),
        ),
    };
    let since = if piece.from_start {
        format!("from the first reading on, {} after start-up", duration_words(age_ms))
    } else {
        format!("since {}, {} after start-up", time(piece.since), duration_words(age_ms))
    };
    let verb = if metric.words.ends_with('s') { "grow" } else { "grows" };
    format!(
        "{} {verb} {rate} {since} ({first} to {last} within {})",
        metric.words,
        duration_words(piece.evidence.window_ms)
    )
}

/// What native memory that grows is, and what helps.
fn native_words(verdict: &NativeVerdict) -> String {
    let bytes = |value: f64| Bytes(value.max(0.0) as u64);
    let grown = bytes(verdict.grown);
    let (used, free) = (bytes(verdict.used.growth()), bytes(verdict.free.growth()));
    match verdict.kind {
        NativeKind::Leak => {
            format!("a native leak: of {grown} more, {used} are handed out by malloc and not freed")
        }
        NativeKind::Fragmentation => format!(
            "fragmentation, not a leak: of {grown} more, malloc has {used} handed out and {free} free, in pieces that do \
             not fit; MALLOC_ARENA_MAX=2 in the app's environment is the cure, or another malloc (jemalloc)"
        ),
        NativeKind::Cache => format!(
            "malloc's cache, not a leak: of {grown} more, {free} were freed after a peak and are kept for the next; \
             the peak is what to lower, or MALLOC_TRIM_THRESHOLD_"
        ),
        NativeKind::Mapped => format!(
            "not malloc's: of {grown} more, malloc has {used} handed out and {free} free; the rest is mapped by a \
             library, threads or code"
        ),
    }
}

/// A rate in the unit in which it is a handy number: `11.8 MB/h`, `4.2 MB/min`.
fn byte_rate_words(per_hour: f64) -> String {
    let per_hour = per_hour.max(0.0);
    if per_hour >= FAST_BYTES_PER_HOUR {
        format!("{}/min", Bytes((per_hour / 60.0) as u64))
    } else {
        format!("{}/h", Bytes(per_hour as u64))
    }
}

/// A duration in two units at most: `9 h 40 min`.
pub fn duration_words(ms: u64) -> String {
    let seconds = (ms + 500) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (100.., ..) => "more than 100 days".into(),
        (1.., ..) => format!("{days} d {hours} h"),
        (0, 1.., _) => format!("{hours} h {minutes} min"),
        (0, 0, 2..) => format!("{minutes} min"),
        _ => format!("{seconds} s"),
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn explanation_json(of: &Explanation) -> Value {
    json!({
        "series": of.series.as_str(),
        "readings": of.readings,
        "overMs": of.over_ms,
        "requests": of.requests.round(),
        "requestsPerSecond": round(of.per_second),
        "bytesPerRequest": of.bytes_per_request.map(f64::round),
        "verdict": of.verdict.as_str(),
        "with": of.with.iter().map(share_json).collect::<Vec<_>>(),
        "traffic": of.traffic.iter().map(route_json).collect::<Vec<_>>(),
    })
}

fn share_json(of: &Share) -> Value {
    json!({
        "route": of.traffic.route,
        "requests": of.traffic.requests.round(),
        "requestsPerSecond": round(of.traffic.per_second),
        "bytesPerRequest": of.bytes_per_request.round(),
        "share": round(of.share),
        "r": round(of.r),
        "certainty": round(of.certainty),
    })
}

fn route_json(of: &Traffic) -> Value {
    json!({
        "route": of.route,
        "requests": of.requests.round(),
        "requestsPerSecond": round(of.per_second),
    })
}

/// An isolate's traffic, for `status()`.
pub fn traffic_json(view: &TrafficView) -> Value {
    json!({
        "routes": view.routes,
        "requests": view.requests.round(),
        "requestsPerSecond": round(view.per_second),
        "top": view.top.iter().map(route_json).collect::<Vec<_>>(),
    })
}

/// One listener line, for findings and `status()`.
pub fn listener_json(line: &ListenerLine) -> Value {
    json!({
        "emitter": line.emitter,
        "event": line.event,
        "spread": line.spread,
        "count": line.count,
        "growthPerMin": round(line.per_minute),
        "site": line.site,
    })
}

/// Every setting in the user's notation and where it came from. Of the token `Config` knows only that it is set.
pub fn settings_json(config: &Config) -> Value {
    config
        .origins
        .iter()
        .map(|(key, text, origin)| {
            let shown = match *key {
                // Its arguments may hold the address of a webhook, which is a secret too.
                "hook" => config.hook.as_ref().and_then(|hook| hook.first()).unwrap_or(text),
                _ => text,
            };
            ((*key).to_owned(), json!({ "value": shown, "origin": origin.as_str() }))
        })
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Evidence;
    use crate::pipeline::LimitKind;
    use crate::trigger::Source;
    use expect_test::expect;

    const MB: f64 = 1_048_576.0;

    fn piece(series: SeriesId, slope_per_hour: f64, first: f64, last: f64) -> Piece {
        Piece {
            source: Source { series, isolate: None, emitter: None },
            evidence: Evidence {
                series,
                window_ms: 1_920_000,
                slope_per_hour,
                slope_between: (0.9 * slope_per_hour, 1.1 * slope_per_hour),
                later_slope_per_hour: slope_per_hour,
                threshold_per_hour: MB,
                amount: 6.0 * MB,
                p_value: 0.001,
                readings: 32,
                first,
                last,
                load_factor: 1.0,
                own: 0.0,
                agreed: 2,
                at: Millis(2_400_000),
            },
            window_ms: 1_920_000,
            confirmed: true,
            native: None,
            since: Millis(300_000),
            from_start: false,
            points: vec![(Millis(300_000), first), (Millis(2_400_000), last)],
        }
    }

    fn finding(cause: Cause, pieces: Vec<Piece>) -> Finding {
        Finding {
            id: "Finding.20260101.140210.42.0.001".into(),
            wall_ms: 0,
            process_age_ms: 2_460_000,
            tid: 0,
            draft: Draft {
                finding: 1,
                at: Millis(2_400_000),
                isolate: None,
                cause,
                pieces,
                listeners: vec![],
                context: vec![],
                limit: Some((34_800_000, LimitKind::Container, 512 << 20)),
                routes: None,
                near: None,
            },
            handles: vec![],
            fds: vec![FdKind {
                kind: "file".into(),
                count: 46,
                examples: vec![("/data/upload.tmp".into(), 40)],
            }],
            threads: vec![],
            limits: Map::new(),
            steps: vec![],
            pair: None,
            allocation: None,
            analysis: Value::Null,
            runs: vec![],
        }
    }

    fn allocation(share: f64) -> Allocation {
        let site = Site {
            function: "getUser".into(),
            file: "/app/src/cache.js".into(),
            line: 12,
            column: 3,
        };
        Allocation {
            site: site.clone(),
            via: None,
            share,
            bytes_per_hour: share * 11.8 * MB,
            bytes: share * MB,
            total_bytes: MB,
            samples: 50,
            window_ms: 60_000,
            stack: vec![site],
        }
    }

    fn say(finding: &Finding) -> String {
        let identity = Identity { cwd: "/app".into(), ..Identity::default() };
        finding.sentence(&identity, &|_| "14:02:10Z".into())
    }

    #[test]
    fn listeners_are_named_with_the_line_that_adds_them() {
        let line = ListenerLine {
            emitter: "EventEmitter".into(),
            event: "update".into(),
            spread: false,
            count: 1012,
            per_minute: 31.5,
            site: Some(Site {
                function: "handler".into(),
                file: "/app/src/app.js".into(),
                line: 12,
                column: 7,
            }),
        };
        let heap = piece(SeriesId::LiveHeap, 11.8 * MB, 20.0 * MB, 26.3 * MB);
        expect![[r#"listeners of 'update' on EventEmitter pile up: 1012, +32/min, added at src/app.js:12 (handler); the live heap grows 11.8 MB/h since 14:02:10Z, 6 min after start-up (20.0 MB to 26.3 MB within 32 min); at this rate the container limit of 512 MB is reached in 9 h 40 min"#]]
            .assert_eq(&say(&finding(Cause::Listeners(line), vec![heap])));
    }

    #[test]
    fn near_a_limit_that_is_said_first() {
        let heap = piece(SeriesId::LiveHeap, 600.0 * 60.0 * MB, 20.0 * MB, 57.0 * MB);
        let mut finding = finding(Cause::Memory { series: SeriesId::LiveHeap }, vec![heap]);
        finding.draft.limit = Some((1_200, LimitKind::Heap, 64 << 20));
        finding.draft.near = Some(NearLimit {
            kind: LimitKind::Heap,
            used_bytes: 57 << 20,
            limit_bytes: 64 << 20,
            left_ms: Some(200),
            silent_ms: 4_000,
            evidence: finding.draft.pieces[0].evidence.clone(),
        });
        expect![[r#"the V8 heap limit is near: 57.0 MB of 64.0 MB used, full in 1 s at this rate, and the event loop has not answered for 4 s; the live heap grows 600 MB/min since 14:02:10Z, 6 min after start-up (20.0 MB to 57.0 MB within 32 min)"#]]
            .assert_eq(&say(&finding));
    }

    #[test]
    fn listeners_spread_over_many_emitters_are_named_with_their_class_and_line() {
        let line = ListenerLine {
            emitter: "Room".into(),
            event: "message".into(),
            spread: true,
            count: 12_400,
            per_minute: 2950.0,
            site: Some(Site {
                function: "open".into(),
                file: "/app/src/rooms.js".into(),
                line: 31,
                column: 8,
            }),
        };
        let mut finding = finding(
            Cause::Listeners(line),
            vec![piece(SeriesId::Listeners, 177_000.0, 6000.0, 12_400.0)],
        );
        finding.draft.limit = None;
        expect!["listeners of 'message' pile up, a few on each of ever more Room objects that are never dropped: about 12400, +2950/min, added at src/rooms.js:31 (open); listeners grow 2950.0/min since 14:02:10Z, 6 min after start-up (6000 to 12400 within 32 min)"].assert_eq(&say(&finding));
        assert_eq!(finding.cause_json()["spread"], true);
    }

    #[test]
    fn descriptors_are_named_with_their_kind_and_an_example() {
        let fds = piece(SeriesId::Fds, 600.0, 20.0, 66.0);
        expect![[r#"open file descriptors pile up: 66, most of them 46 file (/data/upload.tmp); open file descriptors grow 10.0/min since 14:02:10Z, 6 min after start-up (20 to 66 within 32 min); at this rate the container limit of 512 MB is reached in 9 h 40 min"#]]
            .assert_eq(&say(&finding(Cause::Count { series: SeriesId::Fds, count: 66 }, vec![fds])));
    }

    #[test]
    fn memory_is_named_with_the_line_that_allocates_it() {
        let heap = piece(SeriesId::LiveHeap, 11.8 * MB, 20.0 * MB, 26.3 * MB);
        let mut finding = finding(Cause::Memory { series: SeriesId::LiveHeap }, vec![heap]);
        finding.draft.limit = None;
        finding.allocation = Some(allocation(0.83));
        expect![[r#"the live heap grows 11.8 MB/h since 14:02:10Z, 6 min after start-up (20.0 MB to 26.3 MB within 32 min); most of what stays is allocated at src/cache.js:12 (getUser), 83 % of the growth sampled"#]]
            .assert_eq(&say(&finding));
        let cause = finding.cause_json();
        assert_eq!(cause["kind"], "allocation");
        assert_eq!(cause["series"], "live_heap");
        assert_eq!(cause["site"]["line"], 12);
        assert_eq!(cause["share"], 0.83);
        let part = Allocation { via: Some("node:buffer/alloc".into()), ..allocation(0.31) };
        expect![[r#"of the app's code, src/cache.js:12 (getUser, via node:buffer/alloc) allocates most of what stays, 31 % of the growth sampled"#]]
            .assert_eq(&allocation_words(&part, &Identity { cwd: "/app".into(), ..Identity::default() }));
    }

    #[test]
    fn a_cause_that_is_known_keeps_its_name_and_gains_the_line_that_allocates() {
        let timers = piece(SeriesId::Timers, 600.0, 20.0, 66.0);
        let mut finding = finding(Cause::Timers { count: 66 }, vec![timers]);
        finding.allocation = Some(allocation(0.83));
        let cause = finding.cause_json();
        assert_eq!(cause["kind"], "timers");
        assert_eq!(cause["allocation"]["site"]["line"], 12);
        let known = Site { line: 14, ..allocation(1.0).site };
        let line = ListenerLine {
            emitter: "Bus".into(),
            event: "user".into(),
            spread: false,
            count: 9,
            per_minute: 1.0,
            site: Some(known),
        };
        finding.draft.cause = Cause::Listeners(line);
        assert!(!say(&finding).contains("allocated"), "{}", say(&finding));
    }

    fn explanation(verdict: Verdict, routes: &[&str]) -> Explanation {
        let traffic =
            |route: &str| Traffic { route: route.to_owned(), requests: 312.0, per_second: 5.2 };
        Explanation {
            series: SeriesId::LiveHeap,
            readings: 14,
            over_ms: 60_000,
            requests: 3600.0,
            per_second: 60.0,
            bytes_per_request: (verdict != Verdict::Time).then_some(412.3),
            verdict,
            with: routes
                .iter()
                .map(|route| Share {
                    traffic: traffic(route),
                    bytes_per_request: 14_336.0,
                    share: 0.3,
                    r: 0.974,
                    certainty: 0.999,
                })
                .collect(),
            traffic: vec![traffic("GET /")],
        }
    }

    #[test]
    fn routes_are_named_in_words_that_claim_what_is_known() {
        for (verdict, routes, words) in [
            (
                Verdict::Routes,
                &["GET /users/:id"][..],
                "about 412 bytes a request; it goes with GET /users/:id (14.0 KB for each of its 5.2 requests/s, r 0.97)",
            ),
            (
                Verdict::Routes,
                &["GET /a", "GET /b"],
                "about 412 bytes a request; it goes with GET /a (14.0 KB for each of its 5.2 requests/s, r 0.97) \
                 and, for 30 %, with GET /b (r 0.97)",
            ),
            (
                Verdict::OneOf,
                &["GET /a", "GET /b"],
                "about 412 bytes a request; it goes with GET /a or GET /b, whose traffic does not tell them apart",
            ),
            (Verdict::Traffic, &[], "about 412 bytes a request; it goes with all requests alike"),
            (Verdict::Time, &[], "it goes on whatever the traffic"),
            (Verdict::Undecided, &[], "about 412 bytes a request"),
        ] {
            let said = routes_words(&explanation(verdict, routes));
            assert_eq!(said.as_deref(), Some(words));
        }
    }

    #[test]
    fn the_sentence_and_the_json_have_the_routes_after_the_growth() {
        let heap = piece(SeriesId::LiveHeap, 11.8 * MB, 20.0 * MB, 26.3 * MB);
        let mut finding = finding(Cause::Memory { series: SeriesId::LiveHeap }, vec![heap]);
        finding.draft.routes = Some(explanation(Verdict::Routes, &["GET /users/:id"]));
        let sentence = say(&finding);
        assert!(
            sentence.contains("within 32 min); about 412 bytes a request; it goes"),
            "{sentence}"
        );
        let value = finding.to_json(&Identity::default(), &Config::default(), &|_| "T".into());
        assert_eq!(value["routes"]["verdict"], "routes");
        assert_eq!(value["routes"]["with"][0]["route"], "GET /users/:id");
        assert_eq!(value["routes"]["with"][0]["bytesPerRequest"], 14_336.0);
        assert_eq!(value["routes"]["traffic"][0]["requestsPerSecond"], 5.2);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (ms, words) in [
            (0, "0 s"),
            (95_000, "95 s"),
            (360_000, "6 min"),
            (34_800_000, "9 h 40 min"),
            (90_000_000, "1 d 1 h"),
            (u64::MAX / 2, "more than 100 days"),
        ] {
            assert_eq!(duration_words(ms), words);
        }
    }

    #[test]
    fn the_json_carries_what_the_schema_promises() {
        let heap = piece(SeriesId::LiveHeap, 11.8 * MB, 20.0 * MB, 26.3 * MB);
        let finding = finding(Cause::Memory { series: SeriesId::LiveHeap }, vec![heap]);
        let value = finding.to_json(&Identity::default(), &Config::default(), &|_| "T".into());
        for key in [
            "schema",
            "kind",
            "id",
            "time",
            "pid",
            "tid",
            "app",
            "node",
            "leakguard",
            "sentence",
            "cause",
            "series",
            "listeners",
            "handles",
            "fds",
            "context",
            "limits",
            "settings",
            "evidence",
        ] {
            assert!(value.get(key).is_some_and(|value| !value.is_null()), "{key}");
        }
        assert_eq!(value["series"][0]["id"], "live_heap");
        assert_eq!(value["series"][0]["points"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn the_token_is_never_shown() {
        let given = crate::config::Given {
            name: "LEAKGUARD_TOKEN".into(),
            value: "correct-horse-battery".into(),
            origin: crate::config::Origin::Environment,
        };
        let (config, problems) = crate::config::resolve(&[given]);
        assert_eq!(problems, []);
        assert!(config.token_sha256.is_some());
        assert_eq!(settings_json(&config)["token"]["value"], "set");
        assert!(!format!("{config:?}").contains("horse"));
    }
}
