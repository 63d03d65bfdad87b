//! The collector's dealings with allocation profiles: orders to the JS thread, its readings, the `.heapprofile` file,
//! and the finding that learns its line from them.
//!
//! A finding's file and its line on stderr come at once, before anything heavy. Where an allocation profile is at
//! its last reading then, the *event* waits for it, `EVENT_WAITS_MS` at most, so that a handler learns the line with
//! the finding; the file is written anew, and a second line says what the profile found. Where the profile begins only
//! with the finding, the event does not wait, and the `profile` event completes it. No event is emitted twice.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Collector, Open, Outbox, Surroundings, numbers_json};
use crate::config::{Bytes, LogLevel};
use crate::evidence::at_limit;
use crate::evidence::budget::Unit;
use crate::evidence::{Kind, Refusal, RefusalReason, WallMillis};
use crate::finding::{SCHEMA, Step, allocation_words};
use crate::mailbox::{EventKind, ProfileOrder};
use crate::near_end;
use crate::pipeline::{LimitKind, is_profiled};
use crate::previous::{AT_LIMIT, AT_LIMIT_WRITTEN};
use crate::profile::{self, Answer, Order, Profile};
use crate::sample::{IsolateId, Millis};

/// How long a finding's event waits for the last reading of a profile.
const EVENT_WAITS_MS: u64 = 5_000;

/// What is known of an isolate's allocation profile.
pub(super) enum Profiling {
    /// V8 samples, or was asked to.
    Running(Sampling),
    /// There is none, and why.
    Refused(Refusal),
}

/// An allocation profile under way.
pub(super) struct Sampling {
    run: u32,
    began: Millis,
    interval_bytes: u32,
    early: Option<(Millis, Profile)>,
    /// The second for its finding.
    again: bool,
    longest_pause_ms: f64,
    /// The last reading was asked for.
    finishing: bool,
    /// Why it was ended without one.
    stopped: Option<Refusal>,
}

/// An allocation profile that Node writes when V8 reaches its heap limit.
pub(super) struct AtLimit {
    directory: PathBuf,
    since: Millis,
    /// The finding near that limit, from which on it is looked for.
    looking: Option<u32>,
}

/// A finding's event that waits for the last reading, and what must not come before it.
pub(super) struct Held {
    finding: u32,
    id: String,
    isolate: Option<IsolateId>,
    until: Millis,
    after: Vec<(EventKind, Value)>,
}

impl Collector {
    /// The pipeline's orders for an isolate's allocation profile.
    pub fn profile_order(
        &mut self,
        now: Millis,
        isolate: IsolateId,
        order: Order,
        around: &Surroundings,
        out: &dyn Outbox,
    ) {
        let limit_ms = self.config.max_gc_pause_ms;
        let run = match (order, self.profiles.get_mut(&isolate)) {
            (Order::Refuse { live_bytes, predicted_ms }, _) => {
                let refusal = pause_refusal(live_bytes, predicted_ms, limit_ms);
                self.no_profile(isolate, refusal, out);
                self.attach_late(Some(isolate), out);
                return;
            }
            (Order::Begin { interval_bytes, again }, _) => {
                self.runs += 1;
                let sampling = Sampling {
                    run: self.runs,
                    began: now,
                    interval_bytes,
                    early: None,
                    again,
                    longest_pause_ms: 0.0,
                    finishing: false,
                    stopped: None,
                };
                self.profiles.insert(isolate, Profiling::Running(sampling));
                self.runs
            }
            (order, Some(Profiling::Running(sampling))) => {
                match order {
                    Order::Finish => sampling.finishing = true,
                    Order::Stop { live_bytes, predicted_ms } => {
                        sampling.stopped = Some(if predicted_ms > limit_ms as f64 {
                            pause_refusal(live_bytes, predicted_ms, limit_ms)
                        } else {
                            Refusal::plain(
                                RefusalReason::Disabled,
                                "the profile was given up before its last reading",
                            )
                        });
                    }
                    _ => {}
                }
                sampling.run
            }
            (_, _) => return,
        };
        let interval_bytes = match order {
            Order::Begin { interval_bytes, .. } => interval_bytes,
            _ => 0,
        };
        // Once armed it stays so. Of a worker's heap Node writes none.
        let at_limit = matches!(order, Order::Begin { .. })
            && self.at_limit.is_none()
            && around.tid == 0
            && around
                .live_heap_bytes
                .zip(around.heap_limit_bytes)
                .is_some_and(|(live, limit)| near_end::profile_fits(&around.process, live, limit));
        out.order(isolate, ProfileOrder { run, what: order.as_str(), interval_bytes, at_limit });
        self.attach_late(Some(isolate), out);
    }

    /// Writes into a finding near the end, which waits for nothing, how the allocation profile stands that was begun
    /// or refused after it.
    pub(super) fn attach_late(&mut self, isolate: Option<IsolateId>, out: &dyn Outbox) {
        let bare = |open: &&Open| {
            open.finding.draft.near.is_some()
                && open.finding.draft.isolate == isolate
                && open.finding.steps.iter().all(|step| step.kind != "profile")
        };
        let number = self.findings.iter().rev().find(bare).map(|open| open.finding.draft.finding);
        if let Some(number) = number {
            self.attach_profile(number);
            self.save(number, out);
        }
    }

    /// The JS thread has obeyed, or could not. Whether the profile told its finding nothing, and another is worth it.
    pub fn profile_answer(
        &mut self,
        now: Millis,
        isolate: IsolateId,
        run: u32,
        answer: Answer,
        out: &dyn Outbox,
    ) -> bool {
        let Some(Profiling::Running(sampling)) = self.profiles.get_mut(&isolate) else {
            return false;
        };
        if sampling.run != run {
            return false;
        }
        let mut inconclusive = false;
        match answer {
            Answer::Began { at_limit } => self.arm(now, at_limit),
            Answer::Read { text, pause_ms, last: false } => {
                sampling.longest_pause_ms = pause_ms;
                // One that cannot be read is missed at the end.
                sampling.early = Profile::parse(&text).ok().map(|profile| (now, profile));
            }
            Answer::Read { text, pause_ms, last: true } => {
                sampling.longest_pause_ms = sampling.longest_pause_ms.max(pause_ms);
                let Some(Profiling::Running(sampling)) = self.profiles.remove(&isolate) else {
                    return false;
                };
                inconclusive = self.finish_profile(now, isolate, sampling, &text, out);
                self.release(out);
            }
            Answer::Stopped => {
                let refusal = sampling.stopped.take().unwrap_or_else(|| {
                    Refusal::plain(RefusalReason::State, "the profile ended without a reading")
                });
                self.no_profile(isolate, refusal, out);
            }
            Answer::Failed { code, message } => {
                let reason = match code.as_str() {
                    "busy" => RefusalReason::Busy,
                    "unavailable" => RefusalReason::Unavailable,
                    _ => RefusalReason::State,
                };
                self.no_profile(isolate, Refusal::plain(reason, message), out);
            }
        }
        inconclusive
    }

    /// Node writes an allocation profile there when V8 reaches its heap limit.
    fn arm(&mut self, now: Millis, directory: Option<String>) {
        let Some(directory) = directory.map(PathBuf::from) else { return };
        // Into the evidence directory it comes by itself, under a name of ours.
        let own = self.store.as_ref().and_then(|store| store.path().canonicalize().ok());
        if directory.canonicalize().ok() != own {
            self.at_limit = Some(AtLimit { directory, since: now, looking: None });
        }
    }

    /// A finding near V8's heap limit says that a profile will come of it.
    pub(super) fn expect_at_limit(&mut self, number: u32) {
        let near = self.find(number).and_then(|open| open.finding.draft.near.as_ref());
        let heap = near.is_some_and(|near| near.kind == LimitKind::Heap);
        let (Some(at_limit), true) = (&mut self.at_limit, heap) else { return };
        at_limit.looking = Some(number);
        let since = self.clock.wall_ms(at_limit.since);
        let numbers = json!({ "directory": at_limit.directory, "sinceMs": since });
        self.put_step(
            number,
            Step {
                kind: AT_LIMIT,
                state: "pending",
                file: None,
                reason: None,
                sentence: "Node writes an allocation profile when V8 reaches its heap limit".into(),
                numbers,
            },
        );
    }

    /// Looks whether Node has written that profile, and brings it in. Once a tick and after every major GC, from the
    /// finding on.
    pub fn look_at_limit(&mut self, now: Millis, out: &dyn Outbox) {
        let Some(AtLimit { directory, since, looking: Some(number) }) = &self.at_limit else {
            return;
        };
        let (number, wall) = (*number, |at| WallMillis(self.clock.wall_ms(at)));
        let found = at_limit::find(directory, self.identity.pid, wall(*since));
        let (Some(path), Some(store)) = (found, self.store.clone()) else { return };
        let Ok((name, bytes)) = at_limit::take(&store, &path, wall(now), 0) else { return };
        if let Some(at_limit) = &mut self.at_limit {
            at_limit.looking = None;
        }
        let file = name.to_string();
        self.put_step(
            number,
            Step {
                kind: AT_LIMIT,
                state: "written",
                file: Some(file.clone()),
                reason: None,
                sentence: AT_LIMIT_WRITTEN.into(),
                numbers: json!({ "fileBytes": bytes }),
            },
        );
        self.save(number, out);
        let of = self.find(number).map(|open| open.name.to_string());
        out.new_file(&file, "profile", of.as_deref());
    }

    /// Compares the readings, writes the file, and completes the finding that waits for it. Where they tell nothing, and
    /// for the first time, the finding goes on waiting, and the answer is true.
    fn finish_profile(
        &mut self,
        now: Millis,
        isolate: IsolateId,
        sampling: Sampling,
        text: &str,
        out: &dyn Outbox,
    ) -> bool {
        let Some(number) = self.waits_for_profile(isolate) else { return false };
        let result = match (sampling.early, Profile::parse(text)) {
            (Some(early), Ok(last)) => Ok((early, last)),
            (None, _) => Err("the first reading of the profile could not be read".to_owned()),
            (_, Err(error)) => Err(error),
        };
        let mut step = Step {
            kind: "profile",
            state: "failed",
            file: None,
            reason: None,
            sentence: String::new(),
            numbers: Value::Null,
        };
        let ((early_at, early), last) = match result {
            Ok(readings) => readings,
            Err(error) => {
                step.sentence = error;
                self.put_step(number, step);
                self.save(number, out);
                return false;
            }
        };
        let between_ms = now.0.saturating_sub(early_at.0);
        let allocation = profile::growth(&early, &last, between_ms);
        if allocation.is_none() && !sampling.again {
            step.state = "pending";
            step.sentence = format!(
                "allocations sampled for {:.0} s told nothing: they are sampled once more, for longer",
                now.0.saturating_sub(sampling.began.0) as f64 / 1000.0
            );
            self.put_step(number, step);
            self.save(number, out);
            return true;
        }
        let grown = last.live_bytes() - early.live_bytes();
        let wall = WallMillis(self.clock.wall_ms(now));
        let tid = self.find(number).map_or(0, |open| u64::from(open.finding.tid));
        let content = last.to_heapprofile();
        let written = match &self.store {
            Some(store) => store
                .write_new(Kind::Profile, wall, tid, content.as_bytes())
                .map(|name| (name.to_string(), store.path_of(&name)))
                .map_err(|error| error.to_refusal()),
            None => Err(Refusal::plain(RefusalReason::State, "there is no directory")),
        };
        let sentence = format!(
            "allocations sampled for {:.0} s, every {}: {} more stay after {:.0} s between two readings, {}",
            now.0.saturating_sub(sampling.began.0) as f64 / 1000.0,
            Bytes(u64::from(sampling.interval_bytes)),
            Bytes(grown.max(0.0) as u64),
            between_ms as f64 / 1000.0,
            match &allocation {
                Some(allocation) => allocation_words(allocation, &self.identity),
                None => "no function of the app holds a telling share of them".into(),
            }
        );
        step.numbers = json!({
            "intervalBytes": sampling.interval_bytes,
            "sampledMs": now.0.saturating_sub(sampling.began.0),
            "betweenReadingsMs": between_ms,
            "sampledGrowthBytes": grown.round(),
            "leftOutBytes": last.left_out_bytes.round(),
            "fileBytes": content.len(),
            "pauseMs": sampling.longest_pause_ms.round(),
        });
        let mut told = Value::Null;
        match written {
            Ok((name, path)) => {
                told = json!(path);
                step.state = "written";
                step.file = Some(name);
                step.sentence = sentence;
            }
            Err(refusal) => {
                step.state = "refused";
                step.reason = Some(refusal.reason.code());
                step.sentence = format!("{sentence}; its file: {refusal}");
            }
        }
        let file = step.file.clone();
        let numbers = step.numbers.clone();
        self.put_step(number, step);
        if let Some(open) = self.find(number) {
            open.finding.allocation.clone_from(&allocation);
        }
        let Some(payload) = self.save(number, out) else { return false };
        if let Some(file) = &file {
            let of = self.find(number).map(|open| open.name.to_string());
            out.new_file(file, "profile", of.as_deref());
        }
        self.release(out);
        if let Some(allocation) = &allocation {
            let words = allocation_words(allocation, &self.identity);
            let id = payload["id"].as_str().unwrap_or_default();
            out.say(LogLevel::Warn, &format!("{id}: {words}"));
        }
        out.event(
            Some(isolate),
            EventKind::Profile,
            &json!({
                "schema": SCHEMA,
                "path": told,
                "file": file,
                "finding": payload["id"],
                "sentence": payload["sentence"],
                "cause": payload["cause"],
                "numbers": numbers,
            }),
        );
        false
    }

    /// There is no profile of this isolate, and a finding that waits for one learns why.
    fn no_profile(&mut self, isolate: IsolateId, refusal: Refusal, out: &dyn Outbox) {
        let waiting = self.waits_for_profile(isolate);
        self.profiles.insert(isolate, Profiling::Refused(refusal));
        if let Some(number) = waiting {
            self.attach_profile(number);
            self.save(number, out);
            self.release(out);
            self.tell_profile_refusal(number, out);
        }
    }

    /// Writes into a finding about memory how its allocation profile stands.
    pub(super) fn attach_profile(&mut self, number: u32) {
        let Some(open) = self.findings.iter().find(|open| open.finding.draft.finding == number)
        else {
            return;
        };
        let draft = &open.finding.draft;
        let profiled = |id: &IsolateId| {
            draft.near.is_some() || draft.pieces.iter().any(|piece| is_profiled(piece, *id))
        };
        let Some(isolate) = draft.isolate.filter(profiled) else { return };
        let step = |state, reason, sentence, numbers| Step {
            kind: "profile",
            state,
            file: None,
            reason,
            sentence,
            numbers,
        };
        let step = if !self.config.profile {
            let reason = RefusalReason::Disabled.code();
            step("refused", Some(reason), "LEAKGUARD_PROFILE is off".to_owned(), Value::Null)
        } else {
            match self.profiles.get(&isolate) {
                Some(Profiling::Running(sampling)) => step(
                    "pending",
                    None,
                    format!(
                        "allocations are sampled, every {}",
                        Bytes(u64::from(sampling.interval_bytes))
                    ),
                    Value::Null,
                ),
                Some(Profiling::Refused(refusal)) => step(
                    "refused",
                    Some(refusal.reason.code()),
                    refusal.sentence.clone(),
                    numbers_json(refusal),
                ),
                None => return,
            }
        };
        self.put_step(number, step);
    }

    /// The event and the line of a refused profile. Not of one that the settings forbid: that was asked for.
    pub(super) fn tell_profile_refusal(&mut self, number: u32, out: &dyn Outbox) {
        let Some(open) = self.find(number) else { return };
        let (id, isolate) = (open.finding.id.clone(), open.finding.draft.isolate);
        let refusal = match isolate.and_then(|isolate| self.profiles.get(&isolate)) {
            Some(Profiling::Refused(refusal)) if self.config.profile => refusal.clone(),
            _ => return,
        };
        let attached = self.find(number).is_some_and(|open| {
            open.finding.steps.iter().any(|step| step.kind == "profile" && step.state == "refused")
        });
        if attached {
            self.refuse("profile", Some(id), isolate, &refusal, out);
        }
    }

    /// The finding of this isolate whose profile is under way.
    fn waits_for_profile(&self, isolate: IsolateId) -> Option<u32> {
        let waits = |open: &&Open| {
            open.finding.draft.isolate == Some(isolate)
                && open
                    .finding
                    .steps
                    .iter()
                    .any(|step| step.kind == "profile" && step.state == "pending")
        };
        self.findings.iter().rev().find(waits).map(|open| open.finding.draft.finding)
    }

    fn finishing(&self, isolate: Option<IsolateId>) -> bool {
        matches!(
            isolate.and_then(|id| self.profiles.get(&id)),
            Some(Profiling::Running(Sampling { finishing: true, .. }))
        )
    }

    /// Emits the finding's event that waited, and what waited for it.
    fn release(&mut self, out: &dyn Outbox) {
        let Some(held) = self.held.take() else { return };
        if let Some(payload) = self.save(held.finding, out) {
            out.event(held.isolate, EventKind::Finding, &payload);
        }
        for (kind, payload) in held.after {
            out.event(held.isolate, kind, &payload);
        }
    }

    /// Emits an event about a finding, after the finding's own.
    pub(super) fn tell(
        &mut self,
        finding: Option<&str>,
        isolate: Option<IsolateId>,
        kind: EventKind,
        payload: Value,
        out: &dyn Outbox,
    ) {
        match &mut self.held {
            Some(held) if finding == Some(held.id.as_str()) => held.after.push((kind, payload)),
            _ => out.event(isolate, kind, &payload),
        }
    }

    /// Emits the event of a finding that has just opened, or holds it back for the last reading of a profile.
    pub(super) fn tell_finding(
        &mut self,
        now: Millis,
        number: u32,
        isolate: Option<IsolateId>,
        payload: &Value,
        out: &dyn Outbox,
    ) {
        self.release(out);
        if !self.finishing(isolate) {
            out.event(isolate, EventKind::Finding, payload);
            return;
        }
        self.held = Some(Held {
            finding: number,
            id: payload["id"].as_str().unwrap_or_default().to_owned(),
            isolate,
            until: Millis(now.0 + EVENT_WAITS_MS),
            after: Vec::new(),
        });
    }

    /// Emits what was held back for too long. Once a tick.
    pub(super) fn release_overdue(&mut self, now: Millis, out: &dyn Outbox) {
        if self.held.as_ref().is_some_and(|held| now >= held.until) {
            self.release(out);
        }
    }

    /// The isolate has gone, and what it sampled with it.
    pub(super) fn profile_gone(&mut self, isolate: IsolateId, out: &dyn Outbox) {
        let gone = Refusal::plain(RefusalReason::ShuttingDown, "the isolate has gone");
        self.no_profile(isolate, gone, out);
        self.profiles.remove(&isolate);
    }
}

/// A profile whose readings would stop the loop for too long.
fn pause_refusal(live_bytes: f64, predicted_ms: f64, limit_ms: u64) -> Refusal {
    let predicted = predicted_ms.ceil() as u64;
    Refusal::with_numbers(
        RefusalReason::Pause,
        Unit::Millis,
        (predicted, limit_ms, predicted),
        format!(
            "each reading would stop the loop for {predicted} ms at a live heap of {}, and LEAKGUARD_MAX_GC_PAUSE \
             allows {limit_ms} ms; {predicted} ms would do",
            Bytes(live_bytes.max(0.0) as u64)
        ),
    )
}
