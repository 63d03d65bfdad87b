//! A run file as JSON, for tools and tests.

use napi::bindgen_prelude::{Error, Result};
use napi_derive::napi;

/// Reads a flight recorder's file back: header, the newest `samples` samples (all by default), live-heap
/// readings, events, and what is torn or missing, as JSON. Blocks for a few milliseconds a megabyte.
/// Throws if the file is no run file.
#[napi]
pub fn read_run(path: String, samples: Option<u32>) -> Result<String> {
    let history = crate::recorder::read_back(path.as_ref())
        .map_err(|error| Error::from_reason(error.to_string()))?;
    Ok(history.to_json(samples.map(|samples| samples as usize)).to_string())
}
