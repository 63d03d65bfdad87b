//! The report as one line of JSON, by the schema of `docs/SNAPSHOT-JSON.md`.

use std::io::Write;

use super::{Output, Report};

/// Writes the model as it is.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Output for Json {
    fn write(&self, report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, report)?;
        out.write_all(b"\n")
    }
}
