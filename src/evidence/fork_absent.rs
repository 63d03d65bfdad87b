//! Forked snapshots where there are none: they need Linux and glibc. The same names as `fork`, so that nothing
//! else need ask where it runs; nothing here ever forks, and no [`Ticket`] or [`Child`] ever exists.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

const WHY: &str = "forked snapshots need Linux with glibc";

/// What ends a child that has no memory left.
pub const SIGABRT: i32 = 6;

/// Whether forked snapshots work in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkAbility {
    /// Never here.
    Possible(CondvarLayout),
    /// Why not.
    Not(String),
}

/// Never exists here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CondvarLayout(Infallible);

/// What bounds the child.
#[derive(Clone, Copy, Debug)]
pub struct ChildLimits {
    /// Address space it may add to what it was born with, bytes.
    pub budget_bytes: u64,
    /// How long it may live.
    pub lifetime: Duration,
}

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

/// What came of one attempt on the JS thread.
#[derive(Debug)]
pub struct Attempt {
    /// What.
    pub outcome: Outcome,
    /// How long the JS thread was kept.
    pub pause: Duration,
    /// CPU it used meanwhile.
    pub cpu: Duration,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// A child runs.
    Forked(Child),
    /// No quiet moment was found.
    Restless(String),
    /// Somebody ran during the fork.
    Disturbed(Child),
    /// The system does not let it.
    Failed(String),
}

/// Cannot be called: it wants a ticket.
pub fn attempt(ticket: Ticket, _work: impl FnOnce() -> bool) -> bool {
    match ticket.0 {}
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its work succeeded.
    Done,
    /// It left with a code of its own.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// Not known.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WHY)
    }
}

/// What a child left behind.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub how: End,
    /// Peak of resident memory, bytes.
    pub peak_bytes: u64,
    /// CPU it used.
    pub cpu: Duration,
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
