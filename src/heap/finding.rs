//! The guard's findings, and what a snapshot says about them.
//!
//! A finding is read tolerantly, for it may come from another version: what is missing is absent, what is
//! unknown is skipped. Which findings lie beside which snapshot is the command line's to find out.

use serde_json::Value;

use super::label::Labels;
use super::snapshot::NodeKind;
use super::suspects::{describe_site, grouped};
use crate::report::{
    Finding, FindingCause, FindingListener, FindingSeries, Pattern, Site, Suspect, Verdict,
};

/// Share of what the finding counted that a snapshot must hold to confirm it.
const CONFIRMING_SHARE: f64 = 0.5;
/// The least that confirms a finding which counted nothing.
const CONFIRMING_COUNT: u64 = 16;

/// Reads a finding and judges it by the snapshot and its suspects. `None` when `value` is no finding.
pub fn judge(
    file: &str,
    value: &Value,
    labels: &Labels<'_>,
    suspects: &[Suspect],
) -> Option<Finding> {
    if value.get("kind")?.as_str()? != "finding" {
        return None;
    }
    let field = |name: &str| value.get(name).cloned().unwrap_or(Value::Null);
    let list = |name: &str| field(name).as_array().cloned().unwrap_or_default();
    let cause: Option<FindingCause> = serde_json::from_value(field("cause")).ok().flatten();
    let series = list("series")
        .into_iter()
        .filter_map(|each| serde_json::from_value::<FindingSeries>(each).ok());
    let listeners = list("listeners")
        .into_iter()
        .filter_map(|each| serde_json::from_value::<FindingListener>(each).ok());
    let listeners: Vec<FindingListener> = listeners.collect();
    let (verdict, verdict_sentence) = verdict(cause.as_ref(), &listeners, labels, suspects);
    Some(Finding {
        file: file.to_owned(),
        id: text(&field("id")),
        time: field("time"),
        sentence: text(&field("sentence")),
        cause,
        series: series.collect(),
        listeners,
        routes: field("routes"),
        verdict,
        verdict_sentence,
    })
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(
        || if value.is_null() { String::new() } else { value.to_string() },
        str::to_owned,
    )
}

/// True when the finding or a snapshot's note says that ids of this process' snapshots are not comparable; `None` when
/// it says nothing.
pub fn node_ids_comparable(value: &Value) -> Option<bool> {
    match value.get("nodeIds")?.as_str()? {
        "comparable" => Some(true),
        "not" => Some(false),
        _ => None,
    }
}

fn verdict(
    cause: Option<&FindingCause>,
    listeners: &[FindingListener],
    labels: &Labels<'_>,
    suspects: &[Suspect],
) -> (Verdict, String) {
    let Some(cause) = cause else {
        return (
            Verdict::Undecided,
            "the finding named no cause that a snapshot could show".to_owned(),
        );
    };
    let site =
        cause.site.as_ref().or_else(|| listeners.first().and_then(|each| each.site.as_ref()));
    let counted = cause.count.or_else(|| listeners.first().and_then(|each| each.count));
    let enough = |count: u64| match counted {
        Some(counted) => count as f64 >= CONFIRMING_SHARE * counted as f64 && count > 0,
        None => count >= CONFIRMING_COUNT,
    };
    let from_line = site.map_or(0, |site| closures_of(labels, site));
    let place = site.map(describe_site).unwrap_or_default();
    if site.is_some() && enough(from_line) {
        let sentence = format!(
            "the finding named {place}; the snapshot holds {} closures from that line",
            grouped(from_line)
        );
        return (Verdict::Confirmed, sentence);
    }
    // The line that adds a listener need not be the line of the listener itself.
    let by_event = suspects.iter().find(|suspect| {
        let listens = matches!(
            suspect.pattern,
            Pattern::Listeners | Pattern::EventTargetListeners | Pattern::AbortSignalListeners
        );
        let event = cause.event.as_deref().unwrap_or_default();
        listens
            && enough(suspect.count)
            && suspect
                .holder
                .as_deref()
                .is_some_and(|holder| event.is_empty() || holder.contains(event))
    });
    let about_listeners = cause.kind.contains("listener");
    let by_site = suspects.iter().find(|suspect| {
        // Memory may be held by the line that was named; listeners must come from it.
        let holder = suspect.site.as_ref().filter(|_| !about_listeners);
        let sites = suspect.item_sites.iter().map(|counted| &counted.site).chain(holder);
        let mut sites = sites.filter(|each| {
            site.is_some_and(|site| same_file(&each.file, &site.file) && each.line == site.line)
        });
        sites.next().is_some() && (!about_listeners || enough(suspect.count))
    });
    if let Some(suspect) = by_event.or(by_site) {
        let rank = suspect.rank;
        return (
            Verdict::Confirmed,
            format!("the finding's cause is suspect {rank}: {}", suspect.sentence),
        );
    }
    if about_listeners && counted.is_some() {
        let counted = grouped(counted.unwrap_or(0));
        let sentence = if place.is_empty() {
            format!(
                "the finding counted {counted} listeners; the snapshot holds no such pile of them"
            )
        } else {
            format!(
                "the finding named {place} with {counted} listeners; the snapshot holds {} closures from that line",
                grouped(from_line)
            )
        };
        return (Verdict::Refuted, sentence);
    }
    (
        Verdict::Undecided,
        "the snapshot neither confirms nor refutes the cause that the finding named".to_owned(),
    )
}

/// How many closures begin on a line.
fn closures_of(labels: &Labels<'_>, site: &Site) -> u64 {
    let snapshot = labels.snapshot;
    let on_line = snapshot.columns.locations.iter().filter(|location| {
        location.line.saturating_add(1) == site.line
            && snapshot.kind(location.node) == NodeKind::Closure
    });
    let matching = on_line.filter(|location| {
        labels.script_name(location.script_id).is_some_and(|file| same_file(&file, &site.file))
    });
    matching.count() as u64
}

/// Paths and `file:` URLs of one file.
pub fn same_file(a: &str, b: &str) -> bool {
    let plain = |file: &str| file.strip_prefix("file://").unwrap_or(file).to_owned();
    plain(a) == plain(b)
}
