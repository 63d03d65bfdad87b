//! leakguard guards a Node.js process against memory leaks from inside it, and reads V8 heap snapshots.
//!
//! The guard: a native thread samples memory, judges growth and leaves evidence (see `sampler`). The
//! analyzer: a command line that opens, compares and draws heap snapshots (see `cli`). Everything that
//! decides is pure and compiles without Node; only `addon` names Node-API.

// A unit test binary is not loaded by Node: the boundary would leave unresolved symbols in it.
#[cfg(not(test))]
mod addon;

pub mod analyst;
pub mod child;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod detect;
pub mod doctor;
pub mod evidence;
pub mod exposition;
pub mod finding;
pub mod flight;
pub mod heap;
pub mod hook;
pub mod last_words;
pub mod mailbox;
pub mod metric;
pub mod near_end;
pub mod page;
pub mod pipeline;
pub mod postmortem;
pub mod previous;
pub mod probe;
pub mod profile;
pub mod readings;
pub mod recorder;
pub mod report;
pub mod routes;
pub mod sample;
pub mod sampler;
pub mod series;
pub mod stats;
pub mod tally;
pub mod trigger;
pub mod v8;
