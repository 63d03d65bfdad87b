//! What can be wrong with a snapshot file, each with the byte where it is.

use std::fmt;
use std::path::PathBuf;

/// Why a snapshot could not be read.
#[derive(Debug)]
pub enum Error {
    /// The file could not be opened or read.
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not a heap snapshot, or breaks its format.
    Malformed {
        /// Byte offset in the decompressed text.
        offset: u64,
        /// What was expected there.
        expected: String,
    },
    /// The file ends before its header does, so nothing can be given.
    Empty {
        /// Byte offset of the end.
        offset: u64,
    },
    /// Reading it would take more memory than was allowed.
    TooLarge {
        /// Bytes it would take, as far as known.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
}

impl Error {
    /// A break of the format at `offset`.
    pub fn malformed(offset: usize, expected: impl Into<String>) -> Self {
        Self::Malformed { offset: offset as u64, expected: expected.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { file, source } => write!(f, "{}: {source}", file.display()),
            Self::Malformed { offset, expected } => {
                write!(f, "not a valid heap snapshot: expected {expected} at byte {offset}")
            }
            Self::Empty { offset } => {
                write!(f, "the file ends at byte {offset}, before the snapshot's header does")
            }
            Self::TooLarge { needed, allowed } => write!(
                f,
                "reading it takes at least {} MB of memory, of which {} MB are available",
                needed.div_ceil(1 << 20),
                allowed >> 20
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
