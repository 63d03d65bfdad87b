//! The sampling allocation profile: what V8's sampler saw allocated and still alive, as a tree of stacks, and
//! what two readings of it say about who allocates what grows. When to sample is `plan`'s business. Pure: the
//! JS thread samples and reads; the collector writes the file.
//!
//! A profile knows functions, not statements: V8 names a function by the line where it begins, and charges an
//! inlined function's allocations to its caller. It sees V8's heap only: of an array buffer or another external
//! allocation it sees the object that owns it, which is enough to name who makes them and not how large they are.
//! A cache that is full and replaces its entries looks, to a profile that began later, as if it filled: so a
//! profile is read only where a detector saw growth that does not level off, and never judges growth itself.

mod plan;

pub use plan::{Order, ProfilePlan, Situation, predicted_pause_ms};

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::config::HOUR_MS;
use crate::sample::Site;

/// Longest text of a reading that is taken from the JS thread, bytes: twice what it is asked to keep to.
const MAX_TEXT_BYTES: usize = 8 << 20;

/// Share of the growth from which on a function is named. Below it the sampled growth is spread over the app.
const MEANINGFUL_SHARE: f64 = 0.25;

/// Share of the growth with app code on its stack from which on its function is named where most of the growth has
/// none, because Node's own parser or V8 itself allocated it (headers, for one).
const MEANINGFUL_APP_SHARE: f64 = 0.6;

/// Samples by which a function must have grown to be named. One sample is chance, and so may two be.
const MEANINGFUL_SAMPLES: i64 = 3;

/// App functions of the heaviest stack that go into a finding.
const STACK_SITES: usize = 5;

/// A frame as V8 gives it; line and column from 0, -1 where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Frame {
    function: String,
    script: String,
    url: String,
    line: i64,
    column: i64,
}

/// One stack: its innermost frame, where its caller stands, and what was allocated there and is alive.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    parent: Option<usize>,
    frame: Frame,
    id: u64,
    self_bytes: f64,
    samples: i64,
}

/// One reading: live sampled allocations by stack. Callers stand before the called.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Directory of leakguard, with a separator at its end: its own allocations are nobody's leak.
    own: String,
    nodes: Vec<Node>,
    samples: Vec<(f64, u64, u64)>,
    /// Bytes of stacks that were left out to bound the reading.
    pub left_out_bytes: f64,
}

/// The text of lib/profile.js: parent (-1 for none), function, script id, url, line, column, id, size, samples.
type Row = (i64, String, String, String, i64, i64, u64, f64, i64);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    own: String,
    nodes: Vec<Row>,
    samples: Vec<(f64, u64, u64)>,
    left_out_bytes: f64,
}

/// How the JS thread answers an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It samples.
    Began {
        /// Where Node writes the profile if V8 reaches its heap limit, if it was asked to and can.
        at_limit: Option<String>,
    },
    /// A reading; sampling ends with the last one.
    Read {
        /// As lib/profile.js hands it over.
        text: String,
        /// How long the loop stopped for it, milliseconds.
        pause_ms: f64,
        /// Whether it was the last.
        last: bool,
    },
    /// It has ended without a reading.
    Stopped,
    /// It could not be done, and nothing of ours samples any more.
    Failed {
        /// `busy`, `unavailable`, `failed`.
        code: String,
        /// In words.
        message: String,
    },
}

impl Answer {
    /// The answer to an order by its word.
    pub fn of(what: &str, text: Option<String>, pause_ms: f64) -> Answer {
        match (what, text) {
            ("begin", at_limit) => Answer::Began { at_limit },
            (what @ ("read" | "finish"), Some(text)) => {
                Answer::Read { text, pause_ms, last: what == "finish" }
            }
            _ => Answer::Stopped,
        }
    }
}

/// Who allocates what grows: the app's function nearest to the allocation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The function and where it begins.
    pub site: Site,
    /// What it called that allocates, where that is not its own code: `body-parser/read`, `node:buffer/alloc`.
    pub via: Option<String>,
    /// Its share of the growth sampled, 0 to 1.
    pub share: f64,
    /// Its growth between the readings, per hour, as sampled.
    pub bytes_per_hour: f64,
    /// Its growth between the readings, bytes, as sampled.
    pub bytes: f64,
    /// All growth between the readings, bytes, as sampled.
    pub total_bytes: f64,
    /// Samples by which it grew.
    pub samples: i64,
    /// Time between the readings, milliseconds.
    pub window_ms: u64,
    /// App functions on its heaviest stack, the allocating one first.
    pub stack: Vec<Site>,
}

/// Whose code a frame is.
#[derive(Clone, Debug, PartialEq)]
enum Owner {
    App,
    /// A package or Node itself, with its name.
    Other(String),
    /// V8: builtins, `(root)`, `(GC)`, `(V8 API)`.
    Engine,
    /// leakguard's wrap of EventEmitter, which stands between the app and Node.
    Wrap,
    /// leakguard at work.
    Own,
}

impl Profile {
    /// Takes a reading as lib/profile.js hands it over.
    ///
    /// # Errors
    /// One sentence if it is too large, no such JSON, or its nodes are not in order.
    pub fn parse(text: &str) -> Result<Profile, String> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(format!(
                "the profile has {} bytes, more than {MAX_TEXT_BYTES}",
                text.len()
            ));
        }
        let text: Text = serde_json::from_str(text)
            .map_err(|error| format!("the profile cannot be read: {error}"))?;
        let mut nodes = Vec::with_capacity(text.nodes.len());
        for (at, row) in text.nodes.into_iter().enumerate() {
            let (parent, function, script, url, line, column, id, self_bytes, samples) = row;
            let parent = usize::try_from(parent).ok();
            if parent.map_or(at != 0, |parent| parent >= at) {
                return Err(format!(
                    "the profile cannot be read: node {at} has no caller before it"
                ));
            }
            let frame = Frame { function, script, url, line, column };
            nodes.push(Node { parent, frame, id, self_bytes, samples });
        }
        let left_out_bytes = text.left_out_bytes;
        Ok(Profile { own: text.own, nodes, samples: text.samples, left_out_bytes })
    }

    /// The file that Chrome DevTools opens: `Protocol.HeapProfiler.SamplingHeapProfile` as JSON.
    pub fn to_heapprofile(&self) -> String {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            if let Some(siblings) = node.parent.and_then(|parent| children.get_mut(parent)) {
                siblings.push(at);
            }
        }
        let mut text = String::with_capacity(64 + 200 * self.nodes.len());
        text.push_str("{\"head\":");
        // By hand and not by recursion: a stack may be deeper than this thread's.
        let mut open: Vec<(usize, usize)> = Vec::new();
        if let Some(root) = self.nodes.first() {
            begin_node(&mut text, root);
            open.push((0, 0));
        } else {
            text.push_str("null");
        }
        while let Some((at, next)) = open.last_mut() {
            match children.get(*at).and_then(|of| of.get(*next)).copied() {
                Some(child) => {
                    if *next > 0 {
                        text.push(',');
                    }
                    *next += 1;
                    if let Some(node) = self.nodes.get(child) {
                        begin_node(&mut text, node);
                    }
                    open.push((child, 0));
                }
                None => {
                    text.push_str("]}");
                    open.pop();
                }
            }
        }
        let samples: Vec<serde_json::Value> = self
            .samples
            .iter()
            .map(|(size, node, ordinal)| {
                serde_json::json!({ "size": size, "nodeId": node, "ordinal": ordinal })
            })
            .collect();
        text.push_str(",\"samples\":");
        text.push_str(&serde_json::Value::Array(samples).to_string());
        text.push('}');
        text
    }

    /// Bytes alive in all stacks, as sampled, leakguard's own not counted.
    pub fn live_bytes(&self) -> f64 {
        self.charges().iter().map(|charge| charge.bytes).sum()
    }

    fn owner(&self, frame: &Frame) -> Owner {
        let file = frame.url.strip_prefix("file://").unwrap_or(&frame.url);
        if file.is_empty() {
            return Owner::Engine;
        }
        if file.starts_with("node:") {
            return Owner::Other(file.to_owned());
        }
        if let Some(within) = file.strip_prefix(self.own.as_str()).filter(|_| !self.own.is_empty())
        {
            let within = within.replace('\\', "/");
            if within == "lib/listeners.js" {
                return Owner::Wrap;
            }
            if within == "index.js" || within == "register.js" || within.starts_with("lib/") {
                return Owner::Own;
            }
        }
        let normal = file.replace('\\', "/");
        match normal.rsplit_once("/node_modules/") {
            Some((_, package)) => {
                let parts = if package.starts_with('@') { 2 } else { 1 };
                Owner::Other(package.split('/').take(parts).collect::<Vec<_>>().join("/"))
            }
            None => Owner::App,
        }
    }

    /// What every stack holds, and which app functions stand on it. leakguard's own stacks are left out.
    fn charges(&self) -> Vec<Charge<'_>> {
        let mut charges = Vec::new();
        for node in self.nodes.iter().filter(|node| node.samples > 0 || node.self_bytes > 0.0) {
            let mut charge = Charge {
                apps: Vec::new(),
                via: None,
                bytes: node.self_bytes,
                samples: node.samples,
            };
            let mut ours = self.owner(&node.frame) == Owner::Wrap;
            let mut at = Some(node);
            while let Some(node) = at {
                match self.owner(&node.frame) {
                    Owner::App => charge.apps.push(&node.frame),
                    // The outermost call before the app's own function: what the app called.
                    Owner::Other(whose) if charge.apps.is_empty() => {
                        charge.via = Some(match node.frame.function.as_str() {
                            "" => whose,
                            function => format!("{whose}/{function}"),
                        });
                    }
                    Owner::Own => ours = true,
                    Owner::Other(_) | Owner::Engine | Owner::Wrap => {}
                }
                at = node.parent.and_then(|parent| self.nodes.get(parent));
            }
            if !ours {
                charges.push(charge);
            }
        }
        charges
    }
}

/// What one stack holds.
struct Charge<'a> {
    /// App functions, from the allocation outwards.
    apps: Vec<&'a Frame>,
    via: Option<String>,
    bytes: f64,
    samples: i64,
}

/// Growth of one app function.
#[derive(Default)]
struct Growth<'a> {
    bytes: f64,
    samples: i64,
    /// By what it called that allocates, and by the app function that called it.
    via: HashMap<Option<String>, f64>,
    callers: HashMap<Option<&'a Frame>, f64>,
    stack: Vec<&'a Frame>,
    heaviest: f64,
}

/// Who allocates what lives and grew between two readings `window_ms` apart. `None` if no app function holds a
/// meaningful share of the growth.
///
/// A function of the app through which several others allocate, of which one has nearly all the growth, is a helper:
/// its caller is named.
pub fn growth(before: &Profile, after: &Profile, window_ms: u64) -> Option<Allocation> {
    let (old, new) = (before.charges(), after.charges());
    let mut by_site: HashMap<&Frame, Growth<'_>> = HashMap::new();
    let (mut total, mut app_total) = (0.0, 0.0);
    let signed = old.iter().map(|charge| (charge, -1)).chain(new.iter().map(|charge| (charge, 1)));
    for (charge, sign) in signed {
        let bytes = charge.bytes * f64::from(sign);
        total += bytes;
        let Some(site) = charge.apps.first() else { continue };
        app_total += bytes;
        let growth = by_site.entry(site).or_default();
        growth.bytes += bytes;
        growth.samples += charge.samples * i64::from(sign);
        *growth.via.entry(charge.via.clone()).or_default() += bytes;
        *growth.callers.entry(charge.apps.get(1).copied()).or_default() += bytes;
        if sign > 0 && charge.bytes > growth.heaviest {
            growth.heaviest = charge.bytes;
            growth.stack.clone_from(&charge.apps);
        }
    }
    let (mut site, best) = by_site
        .into_iter()
        // Where two are equal the order of the map must not decide.
        .max_by(|(a, x), (b, y)| x.bytes.total_cmp(&y.bytes).then_with(|| b.url.cmp(&a.url)))?;
    let share = (best.bytes / total.max(best.bytes)).clamp(0.0, 1.0);
    let app_share = best.bytes / app_total.max(best.bytes);
    let meaningful = share >= MEANINGFUL_SHARE
        // Most of the growth has no app code on its stack: the app's share of the rest decides.
        || (app_total < total / 2.0 && app_share >= MEANINGFUL_APP_SHARE);
    if best.bytes <= 0.0 || best.samples < MEANINGFUL_SAMPLES || !meaningful {
        return None;
    }
    let mut via = heaviest(&best.via).cloned().flatten();
    let mut stack = best.stack.as_slice();
    if let Some(Some(caller)) = heaviest(&best.callers)
        && best.callers.len() > 1
        && best.callers.get(&Some(*caller)).is_some_and(|bytes| *bytes >= 0.8 * best.bytes)
        && site.url != caller.url
    {
        via = Some(match site.function.as_str() {
            "" => format!("{}:{}", file_name(&site.url), site.line + 1),
            function => function.to_owned(),
        });
        stack = stack.get(1..).filter(|rest| rest.first() == Some(caller)).unwrap_or(&[]);
        site = caller;
    }
    Some(Allocation {
        site: site_of(site),
        via,
        share,
        bytes_per_hour: best.bytes / (window_ms.max(1) as f64 / HOUR_MS),
        bytes: best.bytes,
        total_bytes: total.max(best.bytes),
        samples: best.samples,
        window_ms,
        stack: stack.iter().take(STACK_SITES).map(|frame| site_of(frame)).collect(),
    })
}

fn heaviest<K: std::hash::Hash + Eq>(of: &HashMap<K, f64>) -> Option<&K> {
    of.iter().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(key, _)| key)
}

fn file_name(url: &str) -> &str {
    url.rsplit(['/', '\\']).next().unwrap_or(url)
}

/// V8 counts lines and columns from 0 here, people from 1.
fn site_of(frame: &Frame) -> Site {
    let from_one = |number: i64| u32::try_from(number.saturating_add(1)).unwrap_or(0);
    Site {
        function: frame.function.clone(),
        file: frame.url.clone(),
        line: from_one(frame.line),
        column: from_one(frame.column),
    }
}

/// Writes a node up to the bracket that opens its children.
fn begin_node(text: &mut String, node: &Node) {
    let frame = serde_json::json!({
        "functionName": node.frame.function,
        "scriptId": node.frame.script,
        "url": node.frame.url,
        "lineNumber": node.frame.line,
        "columnNumber": node.frame.column,
    });
    text.push_str(&format!(
        "{{\"callFrame\":{frame},\"selfSize\":{},\"id\":{},\"children\":[",
        node.self_bytes.max(0.0) as u64,
        node.id
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: f64 = 1024.0;

    /// Builds a reading from stacks, outermost frame first: `run@/app/a.js:10 < get@node:net:1`, with the size in
    /// KB of what the innermost allocated; one sample a 16 KB.
    fn profile(stacks: &[(&str, f64)]) -> Profile {
        let mut nodes = vec![node(None, "(root)", 0.0)];
        for (stack, kb) in stacks {
            let mut parent = 0;
            for frame in stack.split(" < ") {
                let known = nodes
                    .iter()
                    .position(|one| one.parent == Some(parent) && one.frame == frame_of(frame));
                parent = known.unwrap_or_else(|| {
                    nodes.push(node(Some(parent), frame, 0.0));
                    nodes.len() - 1
                });
            }
            nodes[parent].self_bytes += kb * KB;
            nodes[parent].samples += (kb / 16.0).ceil() as i64;
        }
        for (at, node) in nodes.iter_mut().enumerate() {
            node.id = at as u64 + 1;
        }
        Profile { own: "/app/guard/".into(), nodes, samples: vec![], left_out_bytes: 0.0 }
    }

    fn frame_of(text: &str) -> Frame {
        let (function, place) = text.split_once('@').unwrap_or((text, ""));
        let (url, line) = place.rsplit_once(':').unwrap_or(("", "0"));
        Frame {
            function: function.into(),
            script: "1".into(),
            url: url.into(),
            line: line.parse::<i64>().unwrap() - 1,
            column: 4,
        }
    }

    fn node(parent: Option<usize>, frame: &str, self_bytes: f64) -> Node {
        Node { parent, frame: frame_of(frame), id: 0, self_bytes, samples: 0 }
    }

    /// `file:line function via (share)`, or `nobody`.
    fn named(before: &[(&str, f64)], after: &[(&str, f64)]) -> String {
        match growth(&profile(before), &profile(after), 60_000) {
            None => "nobody".into(),
            Some(found) => format!(
                "{} {}{} ({:.0} %)",
                found.site,
                found.site.function,
                found.via.map_or(String::new(), |via| format!(" via {via}")),
                100.0 * found.share
            ),
        }
    }

    #[test]
    fn the_function_that_grows_is_named_not_the_one_that_holds_most() {
        let route = "get@/app/server.js:12";
        let start = "load@/app/config.js:3";
        assert_eq!(
            named(&[(start, 9000.0), (route, 100.0)], &[(start, 9000.0), (route, 900.0)]),
            "/app/server.js:12 get (100 %)"
        );
    }

    #[test]
    fn what_lives_briefly_stands_in_both_readings_and_is_not_named() {
        let busy = "render@/app/page.js:5";
        let leak = "keep@/app/cache.js:7";
        assert_eq!(
            named(&[(busy, 5000.0), (leak, 64.0)], &[(busy, 5040.0), (leak, 464.0)]),
            "/app/cache.js:7 keep (91 %)"
        );
    }

    #[test]
    fn node_and_packages_are_charged_to_the_app_function_that_called_them() {
        let outer = "dispatch@/app/node_modules/router/index.js:40 < handle@/app/routes.js:20";
        let buffer = format!(
            "{outer} < alloc@node:buffer:398 < createUnsafeBuffer@node:internal/buffer:1082 < Uint8Array"
        );
        assert_eq!(
            named(&[], &[(&buffer, 400.0)]),
            "/app/routes.js:20 handle via node:buffer/alloc (100 %)"
        );
        let scoped = format!("{outer} < @/app/node_modules/@scope/lru/dist/x.js:1 < set");
        assert_eq!(
            named(&[], &[(&scoped, 400.0)]),
            "/app/routes.js:20 handle via @scope/lru (100 %)"
        );
        let esm = "handle@file:///srv/app.mjs:9";
        assert_eq!(named(&[], &[(esm, 400.0)]), "file:///srv/app.mjs:9 handle (100 %)");
    }

    #[test]
    fn a_stack_without_app_code_names_nobody() {
        assert_eq!(
            named(&[], &[("parserOnHeadersComplete@node:_http_common:77", 900.0)]),
            "nobody"
        );
        assert_eq!(named(&[], &[]), "nobody");
    }

    #[test]
    fn the_app_function_is_named_where_nodes_parser_allocates_what_it_keeps() {
        let parser = "(V8 API)";
        let keeps = "use@/app/node_modules/router/index.js:1 < remember@/app/server.js:13";
        assert_eq!(
            named(&[], &[(parser, 800.0), (keeps, 72.0)]),
            "/app/server.js:13 remember (8 %)"
        );
        // Two functions that share what is left: a guess would be wrong every other time.
        assert_eq!(
            named(&[], &[(parser, 800.0), (keeps, 72.0), ("other@/app/server.js:40", 70.0)]),
            "nobody"
        );
    }

    #[test]
    fn growth_that_is_spread_or_too_small_names_nobody() {
        let spread: Vec<(String, f64)> =
            (0..6).map(|n| (format!("f{n}@/app/a.js:{}", n + 1), 160.0)).collect();
        let spread: Vec<(&str, f64)> = spread.iter().map(|(s, kb)| (s.as_str(), *kb)).collect();
        assert_eq!(named(&[], &spread), "nobody");
        assert_eq!(named(&[], &[("f@/app/a.js:1", 32.0)]), "nobody");
        assert_eq!(named(&[("f@/app/a.js:1", 480.0)], &[("f@/app/a.js:1", 80.0)]), "nobody");
    }

    #[test]
    fn a_helper_that_allocates_for_several_yields_to_the_caller_that_grows() {
        let users = "users@/app/users.js:3 < copy@/app/lib/copy.js:1";
        let carts = "carts@/app/carts.js:8 < copy@/app/lib/copy.js:1";
        assert_eq!(
            named(&[(users, 200.0)], &[(users, 210.0), (carts, 800.0)]),
            "/app/carts.js:8 carts via copy (100 %)"
        );
        // With one caller only there is nothing to choose from, and the function itself says more.
        assert_eq!(named(&[], &[(carts, 800.0)]), "/app/lib/copy.js:1 copy (100 %)");
    }

    #[test]
    fn the_guard_itself_is_neither_named_nor_counted() {
        let own = "#onWake@/app/guard/index.js:200 < read@/app/guard/lib/probes.js:9 < f@node:v8:3";
        let wrapped =
            "room@/app/rooms.js:6 < on@/app/guard/lib/listeners.js:50 < _addListener@node:events:1";
        assert_eq!(
            named(&[], &[(own, 5000.0), (wrapped, 100.0)]),
            "/app/rooms.js:6 room via node:events/_addListener (100 %)"
        );
        assert_eq!(profile(&[(own, 5000.0), (wrapped, 100.0)]).live_bytes(), 100.0 * KB);
    }

    #[test]
    fn rates_are_per_hour_and_the_stack_begins_at_the_allocation() {
        let deep = "serve@/app/a.js:1 < next@/app/node_modules/r/i.js:1 < handle@/app/b.js:2 < make@/app/c.js:3";
        let found = growth(&profile(&[]), &profile(&[(deep, 600.0)]), 60_000).unwrap();
        assert_eq!(found.bytes_per_hour, 60.0 * 600.0 * KB);
        let lines: Vec<String> = found.stack.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["/app/c.js:3", "/app/b.js:2", "/app/a.js:1"]);
    }

    #[test]
    fn a_reading_is_parsed_and_written_as_devtools_wants_it() {
        let text = r#"{"own":"/g/","leftOutBytes":0,"samples":[[32,2,9]],"nodes":[
            [-1,"(root)","0","",-1,-1,1,0,0],
            [0,"a \"b\"","7","/app/a.js",11,2,2,64.0,1],
            [1,"c","7","/app/a.js",20,0,3,0,0],
            [0,"d","8","/app/d.js",0,0,4,8,1]]}"#;
        let value: serde_json::Value =
            serde_json::from_str(&Profile::parse(text).unwrap().to_heapprofile()).unwrap();
        assert_eq!(value["head"]["callFrame"]["functionName"], "(root)");
        let children = &value["head"]["children"];
        assert_eq!(children[0]["callFrame"]["functionName"], "a \"b\"");
        assert_eq!(children[0]["callFrame"]["lineNumber"], 11);
        assert_eq!(children[0]["selfSize"], 64);
        assert_eq!(children[0]["children"][0]["callFrame"]["functionName"], "c");
        assert_eq!(children[1]["id"], 4);
        assert_eq!(value["samples"][0]["nodeId"], 2);
    }

    #[test]
    fn a_very_deep_stack_is_written_without_recursion() {
        let frames: Vec<String> = (0..20_000).map(|n| format!("f@/a.js:{}", n + 1)).collect();
        let mut nodes = vec![node(None, "(root)", 0.0)];
        for (at, frame) in frames.iter().enumerate() {
            nodes.push(node(Some(at), frame, 1.0));
        }
        let deep = Profile { own: String::new(), nodes, samples: vec![], left_out_bytes: 0.0 };
        let text = deep.to_heapprofile();
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert_eq!(text.matches('[').count(), text.matches(']').count());
    }

    #[test]
    fn nonsense_is_refused_and_does_not_panic() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"own":"","leftOutBytes":0,"samples":[],"nodes":[[5,"","","",0,0,1,0,0]]}"#,
            r#"{"own":"","leftOutBytes":0,"samples":[],"nodes":[[0,"","","",0,0,1,0,0]]}"#,
            r#"{"own":"","leftOutBytes":0,"samples":[],"nodes":[[-1,"","","",0,0,1,0,0],[-1,"","","",0,0,1,0,0]]}"#,
            r#"{"own":"","leftOutBytes":0,"samples":[],"nodes":[["x"]]}"#,
        ] {
            assert!(Profile::parse(text).is_err(), "{text}");
        }
        let odd = r#"{"own":"","leftOutBytes":0,"samples":[],
            "nodes":[[-1,"","","",9223372036854775807,-9,1,-5,-3]]}"#;
        let odd = Profile::parse(odd).unwrap();
        assert_eq!(growth(&odd, &odd, 0), None);
        assert!(odd.to_heapprofile().contains("\"selfSize\":0"));
    }
}
