//! Forked snapshots where there are none: they need Linux and glibc. The same names as `fork`, so that nothing
//! else need ask where it runs; nothing here ever forks, and no [`Ticket`] or [`Child`] ever exists.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

pub use super::fork_terms::{Attempt, ChildLimits, End, Ended, ForkAbility, Outcome};

const WHY: &str = "forked snapshots need Linux with glibc";

/// What ends a child that has no memory left.
pub const SIGABRT: i32 = 6;

/// Never exists here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CondvarLayout(Infallible);

/// Never exists here.
#[derive(Debug)]
pub struct Ticket(Infallible);

/// Never exists here.
#[derive(Clone, Debug)]
pub struct Recall(Infallible);

impl Recall {
    /// Cannot be called.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        match self.0 {}
    }
}

impl Ticket {
    /// Cannot be called: it wants a layout.
    ///
    /// # Errors
    /// None.
    pub fn prepare(
        layout: CondvarLayout,
        _limits: ChildLimits,
        _bystanders: Vec<u32>,
        _output: Arc<File>,
        _answer: Sender<Attempt>,
    ) -> Result<(Ticket, Recall), String> {
        match layout.0 {}
    }
}

/// Does nothing here.
pub fn note_bystanders(_known: &mut Vec<u32>) {}

/// Cannot be called: it wants a ticket.
pub fn attempt(ticket: Ticket, _work: impl FnOnce() -> bool) -> bool {
    match ticket.0 {}
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WHY)
    }
}

/// Never exists here.
#[derive(Debug)]
pub struct Child(Infallible);

impl Child {
    /// Cannot be called.
    pub fn try_wait(&mut self) -> Option<Ended> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn kill(&mut self) {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn doze(&self, _at_most: Duration) {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn asleep_at(&self) -> Option<u64> {
        match self.0 {}
    }
}

/// Why not.
#[must_use]
pub fn self_test() -> ForkAbility {
    ForkAbility::Not(WHY.into())
}

/// Where a child would write.
#[must_use]
pub fn path_of(_output: &File) -> String {
    String::new()
}
