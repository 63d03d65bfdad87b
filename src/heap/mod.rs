//! Heap snapshots: parser, graph, dominators, suspects, comparison, redaction.
//!
//! Pure but for `file`, which opens one file. A snapshot file comes from outside and is trusted in
//! nothing: every count, offset and string is checked against the file, and memory is bounded by the
//! file's size. The words are those of Chrome DevTools, and so are the numbers: dominators, retained and
//! shallow sizes and distances equal those of its worker for every node (`test/oracle`).

pub mod analysis;
pub mod bits;
pub mod callers;
pub mod classes;
pub mod diff;
pub mod dominators;
#[cfg(test)]
pub(crate) mod drawing;
pub mod error;
pub mod file;
pub mod finding;
pub mod graph;
pub mod identity;
pub mod label;
pub mod parse;
pub mod paths;
pub mod recognise;
pub mod redact;
pub mod scan;
pub mod shape;
pub mod snapshot;
pub mod suspects;
pub mod tree;

pub use error::Error;
pub use graph::Graph;
pub use snapshot::{NodeOrdinal, Snapshot};
