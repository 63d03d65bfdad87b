//! Any bytes as a heap snapshot that is redacted while it is written, in pieces of any length.
//!
//! Whatever the bytes: no panic, no hang, what comes out is at most some times what came in, and the lengths of the
//! pieces change neither what comes out nor what is refused. What both the stream and the whole-text redaction take
//! comes out of both alike, is a snapshot again, and has the same nodes, sizes and edges.
#![no_main]

use leakguard::heap::file::Bytes;
use leakguard::heap::redact::{KEY_BYTES, Redaction, Redactor, redact};
use leakguard::heap::snapshot::Completeness;
use leakguard::heap::{NodeOrdinal, Snapshot};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; KEY_BYTES] = [7; KEY_BYTES];
/// Enough for any text a fuzzer makes; a reservation beyond it is refused.
const ALLOWED_BYTES: u64 = 256 << 20;
/// The longest thing that stands for a string: `~`, its length, `#` and twelve digits. The shortest string that is
/// replaced is the empty name of a WeakMap's key, and the words around it are longer than that.
const MOST_PER_BYTE: usize = 16;

fuzz_target!(|text: &[u8]| {
    let seed = seed(text);
    let mode = if seed & 1 == 0 { Redaction::Strings } else { Redaction::Keys };
    let mut lengths = Lengths::new(seed);
    let in_pieces = redacted(text, mode, || lengths.next());
    let at_once = redacted(text, mode, || usize::MAX);
    assert_eq!(in_pieces, at_once, "the pieces change what comes out");
    let (out, result) = at_once;
    assert!(out.len() <= MOST_PER_BYTE * text.len(), "{} of {}", out.len(), text.len());
    if result.is_ok() {
        compare(text, &out, mode);
    }
});

/// What comes out, and how it ended.
type Outcome = (Vec<u8>, Result<(), String>);

fn redacted(text: &[u8], mode: Redaction, mut length: impl FnMut() -> usize) -> Outcome {
    let mut redactor = Redactor::new(mode, KEY);
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(length().min(rest.len()));
        if let Err(error) = redactor.push(piece, &mut out) {
            return (out, Err(error.to_string()));
        }
        rest = later;
    }
    let ended = redactor.finish();
    (out, ended.map(|_| ()).map_err(|error| error.to_string()))
}

/// The stream let `text` through and made `out` of it: the whole-text redaction and the parser must agree, unless
/// they refuse what the stream does not look at, such as where an edge leads.
fn compare(text: &[u8], out: &[u8], mode: Redaction) {
    let mut whole = Vec::new();
    let Ok(written) = redact(text, mode, &KEY, &mut whole) else { return };
    assert!(written.is_ok());
    assert!(whole == out, "the stream redacts otherwise than the whole text");
    let Ok(before) = Snapshot::parse(Bytes::Owned(text.to_vec()), ALLOWED_BYTES) else { return };
    let after = Snapshot::parse(Bytes::Owned(whole), ALLOWED_BYTES);
    let after = after.unwrap_or_else(|error| panic!("what came out is no snapshot: {error}"));
    let complete = |snapshot: &Snapshot| snapshot.columns.completeness == Completeness::Complete;
    assert!(complete(&before) && complete(&after));
    assert_eq!(before.node_count(), after.node_count());
    for node in (0..before.node_count() as u32).map(NodeOrdinal) {
        assert_eq!(before.self_size(node), after.self_size(node), "size of node {node:?}");
    }
    assert_eq!(before.columns.edge_to, after.columns.edge_to);
}

/// Lengths of pieces from a xorshift generator (Marsaglia 2003).
struct Lengths {
    state: u64,
    /// 1, so that every border is tried, to 1,024.
    longest: usize,
}

impl Lengths {
    fn new(seed: u64) -> Lengths {
        Lengths { state: seed | 1, longest: 1 << ((seed >> 1) % 11) }
    }

    fn next(&mut self) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        1 + (self.state >> 8) as usize % self.longest
    }
}

/// A seed of the text's own, so that an input always fails alike and every change of it is cut elsewhere (FNV-1a, its
/// halves folded).
fn seed(text: &[u8]) -> u64 {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 32)
}
