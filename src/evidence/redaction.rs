//! Redaction as a stage of the sink: no byte of a text that is to be hidden comes to digest, compression or disk.
//! What is hidden, and how, is `heap::redact`'s business.

use super::sink::Filter;
use crate::heap::redact::{Redaction, Redactor, random_key};

/// Redacts one snapshot under a key of its own, which goes with it.
pub struct Redacting(Option<Redactor>);

impl Redacting {
    /// Draws the key.
    #[must_use]
    pub fn new(mode: Redaction) -> Redacting {
        Redacting(Some(Redactor::new(mode, random_key())))
    }
}

impl Filter for Redacting {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match &mut self.0 {
            Some(redactor) => redactor.push(input, out).map_err(|error| error.to_string()),
            None => Err("more came after the end".to_owned()),
        }
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> Result<(), String> {
        match self.0.take().map(Redactor::finish) {
            Some(Err(error)) => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}
