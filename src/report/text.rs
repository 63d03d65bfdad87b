//! The report for a person reading a terminal or a log: the answer first, tables after it.
//!
//! Plain text without colours. Strings of the heap are shown with control characters escaped, so that a
//! snapshot cannot drive the terminal.

use std::fmt::Write as _;
use std::io::Write;

use super::{
    Analysis, ClassRow, Comparison, Detail, Finding, Output, PathStep, Report, Site,
    SnapshotSummary, Suspect, Verdict,
};
use crate::heap::suspects::{bytes, grouped};

/// Steps of a retaining path that are shown at either end of a long one.
const PATH_ENDS: usize = 8;

/// Writes lines of text.
#[derive(Debug, Clone, Copy)]
pub struct Text;

impl Output for Text {
    fn write(&self, report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
        let mut page = Page::default();
        match report {
            Report::Analysis(analysis) => page.analysis(analysis),
            Report::Comparison(comparison) => page.comparison(comparison),
        }
        out.write_all(page.text.as_bytes())
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// One line; whatever it holds, it stays one line.
    fn line(&mut self, line: &str) {
        for char in line.chars() {
            if char.is_control() {
                let _ = write!(self.text, "{}", char.escape_default());
            } else {
                self.text.push(char);
            }
        }
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.text.push('\n');
        self.line(heading);
    }

    fn analysis(&mut self, analysis: &Analysis) {
        self.summary(&analysis.snapshot);
        self.notes(&analysis.notes);
        self.findings(&analysis.findings);
        if analysis.class_count == 0 {
            // Nothing but sizes is known of such a file.
            self.kinds(&analysis.snapshot);
            return;
        }
        self.suspects(
            &analysis.suspects,
            "Nothing stands out: no collection holds an unusual share of the heap.",
        );
        for detail in &analysis.details {
            self.detail(detail);
        }
        if !analysis.classes.is_empty() {
            self.heading(&format!(
                "Classes by retained size ({} in all)",
                grouped(analysis.class_count as u64)
            ));
            self.line("   retained    shallow       count  class");
            for class in &analysis.classes {
                self.class(class);
            }
        }
        if !analysis.dominators.is_empty() {
            self.heading("Biggest dominators");
            self.line("   retained    shallow  object");
            for node in &analysis.dominators {
                let site =
                    node.site.as_ref().map(|site| format!("  {}", place(site))).unwrap_or_default();
                let (retained, shallow) = (bytes(node.retained_bytes), bytes(node.shallow_bytes));
                self.line(&format!(
                    "{retained:>11}{shallow:>11}  {} @{}{site}",
                    node.label, node.id
                ));
            }
        }
        if !analysis.strings.is_empty() {
            self.heading("Biggest strings");
            for string in &analysis.strings {
                self.line(&format!(
                    "{:>11}  @{} {:?}",
                    bytes(string.retained_bytes),
                    string.id,
                    string.text
                ));
            }
        }
        if !analysis.duplicate_strings.is_empty() {
            self.heading("Duplicated strings");
            for row in &analysis.duplicate_strings {
                let (wasted, count) = (bytes(row.wasted_bytes), grouped(row.count));
                self.line(&format!("{wasted:>11} wasted by {count} copies of {:?}", row.text));
            }
        }
    }

    fn comparison(&mut self, comparison: &Comparison) {
        for snapshot in &comparison.snapshots {
            self.summary(snapshot);
        }
        let sign = if comparison.growth_bytes < 0 { '-' } else { '+' };
        let by = match comparison.identity.by {
            super::IdentityMode::NodeIds => "node ids",
            super::IdentityMode::Signatures => {
                "signatures (classes and lines of code on the way down)"
            }
        };
        self.line(&format!("Growth: {sign}{}", bytes(comparison.growth_bytes.unsigned_abs())));
        self.line(&format!("Compared by {by}: {}", comparison.identity.reason));
        self.notes(&comparison.notes);
        self.findings(&comparison.findings);
        self.suspects(&comparison.suspects, "Nothing grew that looks like a leak.");
        if !comparison.classes.is_empty() {
            self.heading(&format!(
                "Classes by growth ({} changed)",
                grouped(comparison.class_count as u64)
            ));
            self.line("    shallow   retained   count before -> after  class");
            for class in &comparison.classes {
                let counts =
                    format!("{} -> {}", grouped(class.count_before), grouped(class.count_after));
                let (shallow, retained) =
                    (signed(class.shallow_delta), signed(class.retained_delta));
                self.line(&format!(
                    "{shallow:>11}{retained:>11}{counts:>24}  {}",
                    class.class_name
                ));
            }
        }
    }

    fn summary(&mut self, snapshot: &SnapshotSummary) {
        self.line(&format!(
            "{}: {} in {} nodes and {} edges",
            snapshot.file,
            bytes(snapshot.retained_bytes),
            grouped(snapshot.nodes),
            grouped(snapshot.edges)
        ));
        if let Some(truncated) = &snapshot.truncated {
            self.line(&format!(
                "  the file is truncated: it ends at byte {} within {:?}; what follows is what it held",
                grouped(truncated.offset),
                truncated.section
            ));
        }
    }

    fn kinds(&mut self, snapshot: &SnapshotSummary) {
        self.heading("Kinds of memory");
        self.line("    shallow       count  type");
        for kind in &snapshot.kinds {
            let (shallow, count) = (bytes(kind.shallow_bytes), grouped(kind.count));
            self.line(&format!("{shallow:>11}{count:>12}  {}", kind.node_type));
        }
    }

    fn notes(&mut self, notes: &[String]) {
        for note in notes {
            self.line(&format!("Note: {note}"));
        }
    }

    fn findings(&mut self, findings: &[Finding]) {
        if findings.is_empty() {
            return;
        }
        self.heading("Findings of the guard");
        for finding in findings {
            let verdict = match finding.verdict {
                Verdict::Confirmed => "confirmed",
                Verdict::Refuted => "refuted",
                Verdict::Undecided => "undecided",
            };
            self.line(&format!("  {}", finding.sentence));
            self.line(&format!("    {verdict}: {}", finding.verdict_sentence));
        }
    }

    fn suspects(&mut self, suspects: &[Suspect], none: &str) {
        self.heading("Suspects");
        if suspects.is_empty() {
            self.line(&format!("  {none}"));
        }
        for suspect in suspects {
            self.line(&format!("{:>3}. {}", suspect.rank, suspect.sentence));
            for counted in suspect.item_sites.iter().skip(1) {
                let count = match counted.count {
                    0 => String::new(),
                    count => format!(" ({})", grouped(count)),
                };
                self.line(&format!("       also {}{count}", place(&counted.site)));
            }
            self.path(&suspect.path);
        }
    }

    fn path(&mut self, path: &[PathStep]) {
        for (at, step) in path.iter().enumerate() {
            if path.len() > 2 * PATH_ENDS && (PATH_ENDS / 2..path.len() - PATH_ENDS).contains(&at) {
                if at == PATH_ENDS / 2 {
                    self.line(&format!(
                        "       ... {} more",
                        path.len() - PATH_ENDS - PATH_ENDS / 2
                    ));
                }
                continue;
            }
            let repeats = if step.repeats > 1 {
                format!(" x {}", grouped(step.repeats))
            } else {
                String::new()
            };
            let site = step
                .node
                .site
                .as_ref()
                .map(|site| format!("  {}", place(site)))
                .unwrap_or_default();
            let edge =
                if step.edge.is_empty() { String::new() } else { format!("{} -> ", step.edge) };
            self.line(&format!(
                "       {edge}{} @{}{repeats}{site}",
                step.node.label, step.node.id
            ));
        }
    }

    fn class(&mut self, class: &ClassRow) {
        let (retained, shallow) = (bytes(class.retained_bytes), bytes(class.shallow_bytes));
        self.line(&format!(
            "{retained:>11}{shallow:>11}{:>12}  {}",
            grouped(class.count),
            class.class_name
        ));
    }

    fn detail(&mut self, detail: &Detail) {
        match detail {
            Detail::Path { node, path } => {
                self.heading(&format!("Retaining path of {} @{}", node.label, node.id));
                self.path(path);
            }
            Detail::Class { class, largest, path } => {
                self.heading(&format!("Class {}", class.class_name));
                self.class(class);
                for node in largest {
                    self.line(&format!(
                        "{:>11}  {} @{}",
                        bytes(node.retained_bytes),
                        node.label,
                        node.id
                    ));
                }
                self.path(path);
            }
        }
    }
}

fn signed(value: i64) -> String {
    format!("{}{}", if value < 0 { '-' } else { '+' }, bytes(value.unsigned_abs()))
}

fn place(site: &Site) -> String {
    match (site.line, site.column) {
        (0, _) => site.file.clone(),
        (line, 0) => format!("{}:{line}", site.file),
        (line, column) => format!("{}:{line}:{column}", site.file),
    }
}
