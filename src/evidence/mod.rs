//! Evidence on disk: where it goes, how much of it there may be, and how it gets there whole.
//!
//! `store` owns the directory, `state` what all processes of a directory must remember, `budget` the
//! decision whether a snapshot may be taken, `at_limit` what Node itself writes at V8's heap limit, `sink` the way of its bytes to disk, `fork` and
//! `minder` the copy of the process that may write them. Nothing here judges
//! growth and nothing here talks to V8. Everything may block on the disk: native threads only, never
//! the JS thread.

pub mod at_limit;
pub mod budget;
mod complete;
pub(crate) mod dir;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub mod fork;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
#[path = "fork_absent.rs"]
pub mod fork;
mod fork_terms;
mod identity;
pub mod ledger;
pub mod minder;
pub mod name;
mod redaction;
pub mod sink;
pub mod state;
pub mod store;
pub mod survey;

pub use budget::{
    Decision, Figures, Limits, Refusal, RefusalReason, SnapshotReason, SnapshotRequest,
};
pub use identity::ProcessIdentity;
pub use name::{Compression, EvidenceName, Kind, WallMillis};
pub use redaction::Redacting;
pub use sink::{SinkJob, SinkReport};
pub use state::State;
pub use store::{Store, StoreError, StoreOptions};
