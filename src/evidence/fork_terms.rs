//! What is said about forked snapshots, wherever they are possible: the words that `fork` and its stand-in on other
//! platforms share. Nothing here forks.

use std::time::Duration;

use super::fork::{Child, CondvarLayout};

/// Whether forked snapshots work in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForkAbility {
    /// The self-test passed.
    Possible(CondvarLayout),
    /// They do not: why, in one sentence without a dot.
    Not(String),
}

/// What bounds the child.
#[derive(Clone, Copy, Debug)]
pub struct ChildLimits {
    /// Address space it may add to what it was born with, bytes.
    pub budget_bytes: u64,
    /// It is killed by its own alarm after this long.
    pub lifetime: Duration,
}

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
    /// No quiet moment was found: who disturbed. Worth another attempt.
    Restless(String),
    /// Somebody ran during the fork; the child has not begun and must be thrown away. Worth another attempt.
    Disturbed(Child),
    /// The system does not let it: why. Not worth another.
    Failed(String),
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
    /// Somebody else has waited for it, or SIGCHLD is ignored: how it ended is not known.
    Unknown,
}

/// What a child left behind.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub how: End,
    /// Its resident memory at the peak, bytes, that of the app at the fork included; 0 if not known.
    pub peak_bytes: u64,
    /// CPU it used.
    pub cpu: Duration,
}
