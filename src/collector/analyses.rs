//! The collector's dealings with the analysis of snapshots: which are analysed, and how the answer completes a finding.
//!
//! Snapshots of findings and those on demand are analysed; a baseline is not, since there is nothing wrong with it
//! yet. The second snapshot of a finding is compared with the first, if that is still there, because growth
//! tells a leak from a cache that is meant to be large. An analysis that is refused or fails is an event and a step of
//! the finding; the snapshot and whatever an earlier analysis said stay.

use std::path::PathBuf;

use serde_json::json;

use super::{Collector, Outbox, Purpose, numbers_json, remember};
use crate::analyst::{Errand, Outcome};
use crate::config::{Bytes, LogLevel};
use crate::evidence::sink::SnapshotFile;
use crate::evidence::{Figures, Refusal, RefusalReason};
use crate::finding::{SCHEMA, Step};
use crate::mailbox::EventKind;
use crate::sample::{IsolateId, ProcessSample};

impl Collector {
    /// A snapshot was written: has it analysed, if that is wanted.
    pub(super) fn analyse(
        &mut self,
        file: &SnapshotFile,
        purpose: &Purpose,
        isolate: IsolateId,
        process: &ProcessSample,
        out: &dyn Outbox,
    ) {
        if matches!(purpose, Purpose::Baseline) {
            return;
        }
        let finding = purpose.finding();
        let earlier = match purpose {
            Purpose::FollowUp(number) => self.first_snapshot(*number),
            _ => None,
        };
        let errand = Errand {
            file: file.name.to_string(),
            path: file.path.clone(),
            earlier,
            finding,
            isolate,
        };
        let pending = pending(&errand);
        let (taken, given_up) = self.analyst.offer(errand);
        if let Some(errand) = given_up {
            let sentence = "newer snapshots are waiting for theirs";
            self.refuse_analysis(&errand, &Refusal::plain(RefusalReason::Busy, sentence), out);
        }
        if !taken {
            return;
        }
        if let Some(number) = finding.filter(|number| !self.is_analysed(*number)) {
            self.put_step(number, pending);
            self.save(number, out);
        }
        self.next_analysis(process, out);
    }

    /// The first snapshot of a finding, where it still lies in the directory.
    fn first_snapshot(&mut self, finding: u32) -> Option<PathBuf> {
        let steps = &self.find(finding)?.finding.steps;
        let file = steps
            .iter()
            .find(|step| step.kind == "snapshot" && step.state == "written")?
            .file
            .clone()?;
        let path = self.store.as_ref()?.path().join(file);
        path.symlink_metadata().is_ok_and(|found| found.is_file()).then_some(path)
    }

    fn is_analysed(&self, finding: u32) -> bool {
        let open = self.findings.iter().find(|open| open.finding.draft.finding == finding);
        open.is_some_and(|open| !open.finding.analysis.is_null())
    }

    fn next_analysis(&mut self, process: &ProcessSample, out: &dyn Outbox) {
        let figures = Figures::from_sample(0, process);
        while let Err(refused) = self.analyst.start_next(&figures) {
            let (errand, refusal) = *refused;
            self.refuse_analysis(&errand, &refusal, out);
        }
        self.analyses_version += 1;
    }

    /// An analysis has ended, one way or the other.
    pub fn on_analysis(&mut self, outcome: Outcome, process: &ProcessSample, out: &dyn Outbox) {
        if let Some(errand) = self.analyst.ended() {
            match outcome {
                Ok(analysis) => self.analysed(&errand, &analysis, out),
                Err(refusal) => self.refuse_analysis(&errand, &refusal, out),
            }
        }
        self.next_analysis(process, out);
    }

    fn analysed(&mut self, errand: &Errand, analysis: &crate::analyst::Analysis, out: &dyn Outbox) {
        let against = errand.earlier.as_ref().and_then(|path| path.file_name());
        let against = against.map(|name| name.to_string_lossy().into_owned());
        let result = json!({
            "file": errand.file,
            "against": against,
            "sentence": analysis.sentence,
            "suspects": analysis.suspects,
            "verdict": analysis.verdict,
            "tookMs": analysis.took.as_millis() as u64,
            "peakMemoryBytes": analysis.peak_bytes,
        });
        let id = errand.finding.and_then(|number| self.find(number));
        let id = id.map(|open| open.finding.id.clone());
        // Said first: who sees the file finds the line.
        let of = id.as_deref().unwrap_or(&errand.file);
        let peak = analysis.peak_bytes.map(|bytes| format!(" and {}", Bytes(bytes)));
        out.say(LogLevel::Warn, &format!("analysis of {of}: {}", analysis.sentence));
        out.say(
            LogLevel::Debug,
            &format!(
                "it took {:.1} s{} beside the app",
                analysis.took.as_secs_f64(),
                peak.unwrap_or_default()
            ),
        );
        // A comparison that names nothing, perhaps because its snapshots lie too near to each other, does not take the
        // place of an analysis that named something.
        let names_nothing = analysis.suspects.as_array().is_none_or(Vec::is_empty);
        let told = |number: &u32| !(names_nothing && self.is_analysed(*number));
        if let Some(number) = errand.finding.filter(told) {
            let compared = if against.is_some() { "compared with the first: " } else { "" };
            self.put_step(
                number,
                Step {
                    kind: "analysis",
                    state: "written",
                    file: Some(errand.file.clone()),
                    reason: None,
                    sentence: format!("{compared}{}", analysis.sentence),
                    numbers: json!({
                        "tookMs": result["tookMs"],
                        "peakMemoryBytes": analysis.peak_bytes,
                    }),
                },
            );
            if let Some(open) = self.find(number) {
                open.finding.analysis = result.clone();
            }
            self.save(number, out);
        }
        let mut payload = result;
        payload["schema"] = json!(SCHEMA);
        payload["path"] = json!(errand.path);
        payload["finding"] = json!(id);
        remember(&mut self.analyses, payload.clone());
        self.tell(id.as_deref(), Some(errand.isolate), EventKind::Analysis, payload, out);
    }

    fn refuse_analysis(&mut self, errand: &Errand, refusal: &Refusal, out: &dyn Outbox) {
        let id = errand.finding.and_then(|number| self.find(number));
        let id = id.map(|open| open.finding.id.clone());
        self.refuse("analysis", id, Some(errand.isolate), refusal, out);
        if let Some(number) = errand.finding.filter(|number| !self.is_analysed(*number)) {
            let failed = refusal.reason == RefusalReason::Failed;
            self.put_step(
                number,
                Step {
                    kind: "analysis",
                    state: if failed { "failed" } else { "refused" },
                    file: Some(errand.file.clone()),
                    reason: Some(refusal.reason.code()),
                    sentence: refusal.sentence.clone(),
                    numbers: numbers_json(refusal),
                },
            );
            self.save(number, out);
        }
    }
}

fn pending(errand: &Errand) -> Step {
    Step {
        kind: "analysis",
        state: "pending",
        file: Some(errand.file.clone()),
        reason: None,
        sentence: "the snapshot is being analysed in a process of its own".into(),
        numbers: serde_json::Value::Null,
    }
}
