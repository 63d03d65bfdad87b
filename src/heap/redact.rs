//! A snapshot without the user's text: strings become keyed hashes, the graph stays as it is.
//!
//! A hash stands for each string: equal strings stay equal, lengths stay readable, and since the key is
//! random and thrown away, a guess cannot be checked against it. A text that also names a property stays by
//! default, for property names are what explains a heap; `keys` hides those too. What names a class, a function, a
//! variable, a script or an internal field always stays, or the file would explain nothing.
//!
//! `stream` does the same to a snapshot that is still being written. Sizes, edges and ids are copied byte by byte, so every tool computes the same figures from the result.

mod stream;

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::error::Error;
use super::graph::ephemeron_names;
use super::parse::parse;
use super::snapshot::{Columns, Completeness, EdgeKind, NodeKind, StringIndex, decode};

pub use stream::Redactor;

/// What is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redaction {
    /// Texts of strings, BigInts, regular expressions and symbols.
    Strings,
    /// Property names as well.
    Keys,
}

impl Redaction {
    /// The word in settings and metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Redaction::Strings => "strings",
            Redaction::Keys => "keys",
        }
    }
}

/// What [`redact`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redacted {
    /// Strings in the file.
    pub strings: u64,
    /// Strings that were replaced.
    pub replaced: u64,
}

/// Bytes of the key.
pub const KEY_BYTES: usize = 32;

/// Rewrites the text of a whole snapshot. `key` must be random and is not to be kept.
///
/// # Errors
/// [`Error`] when the text is no whole snapshot: a truncated one is refused, for what is missing cannot be judged.
/// An error of the writer is given back as it is.
pub fn redact(
    text: &[u8],
    mode: Redaction,
    key: &[u8; KEY_BYTES],
    out: &mut dyn Write,
) -> Result<std::io::Result<Redacted>, Error> {
    let columns = parse(text, u64::MAX)?;
    if let Completeness::Truncated { offset, .. } = columns.completeness {
        return Err(Error::Malformed {
            offset,
            expected: "a whole snapshot: a truncated one cannot be redacted safely,".to_owned(),
        });
    }
    let verdicts = verdicts(&columns, mode);
    Ok(write(text, &columns, &verdicts, key, out))
}

/// Names that V8 gives by kind, and property names of Node that explain the graph: hiding them would hide
/// nothing of the user's.
const KEPT: &[&str] = &[
    "",
    "heap number",
    "smi number",
    "bigint",
    "symbol",
    "constructor",
    "prototype",
    "__proto__",
    "length",
    "name",
    "next",
    "value",
    "key",
    "_events",
    "_eventsCount",
    "_maxListeners",
    "_idleNext",
    "_idlePrev",
    "_onTimeout",
    "_readableState",
    "_writableState",
    "buffer",
    "buffered",
    "<symbol kEvents>",
    "<symbol kBufferedValue>",
    "<symbol kHandle>",
    "<symbol owner_symbol>",
];

/// What is known of a string from what names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict(u8);

impl Verdict {
    /// Nothing names it.
    const NONE: Verdict = Verdict(0);
    /// It is the text of something.
    const TEXT: Verdict = Verdict(1);
    /// It names what explains the heap: that always wins.
    const KEPT: Verdict = Verdict(2);

    fn and(self, other: Verdict) -> Verdict {
        Verdict(self.0 | other.0)
    }
}

/// What a node says of the string that is its name.
fn node_verdict(kind: NodeKind) -> Verdict {
    if is_text(kind) { Verdict::TEXT } else { Verdict::KEPT }
}

/// What an edge says of the string that is its name; `None` if its name is a number.
fn edge_verdict(kind: EdgeKind, mode: Redaction) -> Option<Verdict> {
    match kind {
        EdgeKind::Element | EdgeKind::Hidden => None,
        EdgeKind::Property if mode == Redaction::Keys => Some(Verdict::TEXT),
        _ => Some(Verdict::KEPT),
    }
}

/// True for nodes whose name is their text.
fn is_text(kind: NodeKind) -> bool {
    kind.is_string()
        || matches!(kind, NodeKind::RegExp | NodeKind::BigInt | NodeKind::Number | NodeKind::Symbol)
}

/// Replaces what is the user's in one string: calls `replace` with each range of it and what stands there instead.
/// True if anything was.
fn rewrite(
    raw: &[u8],
    verdict: Verdict,
    key: &[u8; KEY_BYTES],
    mut replace: impl FnMut(Range<usize>, &[u8]),
) -> bool {
    if verdict == Verdict::TEXT && KEPT.iter().all(|name| name.as_bytes() != raw) {
        replace(0..raw.len(), &replacement(raw, key));
        return true;
    }
    // The names of a WeakMap's key and value stand in the name of its edge, and a value may be a string.
    let Some(names) = ephemeron_names(raw) else { return false };
    for range in names {
        let hidden = replacement(raw.get(range.clone()).unwrap_or_default(), key);
        replace(range, &hidden);
    }
    true
}

/// What the nodes and edges say of each string.
fn verdicts(columns: &Columns, mode: Redaction) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::NONE; columns.strings.len()];
    let mut add = |name: u32, verdict: Verdict| {
        if let Some(known) = verdicts.get_mut(name as usize) {
            *known = known.and(verdict);
        }
    };
    for (&kind, &name) in columns.node_kind.iter().zip(&columns.node_name) {
        add(name, node_verdict(kind));
    }
    for (&kind, &name) in columns.edge_kind.iter().zip(&columns.edge_name) {
        if let Some(verdict) = edge_verdict(kind, mode) {
            add(name, verdict);
        }
    }
    verdicts
}

fn write(
    text: &[u8],
    columns: &Columns,
    verdicts: &[Verdict],
    key: &[u8; KEY_BYTES],
    out: &mut dyn Write,
) -> std::io::Result<Redacted> {
    let mut done = Redacted { strings: columns.strings.len() as u64, replaced: 0 };
    // All between two replaced texts is copied in one piece.
    let mut copied = 0;
    for (index, verdict) in (0..columns.strings.len() as u32).map(StringIndex).zip(verdicts) {
        let Some(raw) = columns.strings.raw(text, index) else { continue };
        let Some(start) = columns.strings.start(index) else { continue };
        let mut written = Ok(());
        let replaced = rewrite(raw, *verdict, key, |range, hidden| {
            let before = text.get(copied..start + range.start).unwrap_or_default();
            copied = start + range.end;
            let put = |out: &mut dyn Write| {
                out.write_all(before)?;
                out.write_all(hidden)
            };
            if written.is_ok() {
                written = put(out);
            }
        });
        written?;
        done.replaced += u64::from(replaced);
    }
    out.write_all(text.get(copied..).unwrap_or_default())?;
    out.flush()?;
    Ok(done)
}

/// `~12#0123456789ab`: length in characters and 48 bits of a keyed hash.
fn replacement(raw: &[u8], key: &[u8; KEY_BYTES]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hash = Sha256::new().chain_update(key).chain_update(raw).finalize();
    let length = decode(raw).chars().count();
    let mut text = format!("~{length}#").into_bytes();
    for byte in hash.iter().take(6) {
        text.extend([byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)]));
    }
    text
}

/// A key nobody knows: the system's randomness as the standard library draws it for its hash maps, 128 bits of it,
/// spread over the key. It is dropped with what it is used for.
pub fn random_key() -> [u8; KEY_BYTES] {
    let state = RandomState::new();
    let mut key = [0; KEY_BYTES];
    for (index, word) in key.chunks_mut(8).enumerate() {
        word.copy_from_slice(&state.hash_one(index).to_le_bytes()[..word.len()]);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::drawing::Drawing;
    use crate::heap::graph::{Graph, Parallelism};
    use crate::heap::{NodeOrdinal, Snapshot};

    pub(super) fn drawing() -> String {
        let mut heap = Drawing::new();
        let object = heap.node(NodeKind::Object, "User", 24);
        let secret = heap.node(NodeKind::String, "hunter2 \\ \"quoted\"", 40);
        let again = heap.node(NodeKind::String, "hunter2 \\ \"quoted\"", 40);
        let token = heap.node(NodeKind::String, "token", 20);
        heap.edge(0, EdgeKind::Property, "user", object);
        heap.edge(object, EdgeKind::Property, "password", secret);
        heap.edge(object, EdgeKind::Property, "token", again);
        heap.edge(object, EdgeKind::Context, "held", token);
        let name = "1 / part of key (User @3) -> value (hunter2 @5) pair in WeakMap (table @9)";
        heap.edge(object, EdgeKind::Internal, name, secret);
        heap.json()
    }

    fn redacted(mode: Redaction, key: u8) -> String {
        let mut out = Vec::new();
        redact(drawing().as_bytes(), mode, &[key; KEY_BYTES], &mut out).unwrap().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_are_gone_and_names_stay() {
        let text = redacted(Redaction::Strings, 1);
        assert!(!text.contains("hunter2"), "{text}");
        for name in ["User\"", "password", "token", "held"] {
            assert!(text.contains(name), "{name}: {text}");
        }
        let text = redacted(Redaction::Keys, 1);
        for name in ["hunter2", "password", "token"] {
            assert!(!text.contains(name), "{name}: {text}");
        }
        assert!(text.contains("held"));
    }

    #[test]
    fn equal_texts_stay_equal_and_the_key_decides_the_hash() {
        let parse = |text: String| {
            Snapshot::parse(crate::heap::file::Bytes::Owned(text.into_bytes()), u64::MAX).unwrap()
        };
        let (a, b) =
            (parse(redacted(Redaction::Strings, 1)), parse(redacted(Redaction::Strings, 2)));
        let name = |snapshot: &Snapshot, node| snapshot.name_of(NodeOrdinal(node)).into_owned();
        assert_eq!(name(&a, 2), name(&a, 3));
        assert_ne!(name(&a, 2), name(&b, 2));
        assert!(name(&a, 2).starts_with("~18#"), "{}", name(&a, 2));
    }

    #[test]
    fn every_figure_stays_the_same() {
        let graph = |text: String| {
            let snapshot =
                Snapshot::parse(crate::heap::file::Bytes::Owned(text.into_bytes()), u64::MAX)
                    .unwrap();
            let graph = Graph::new(&snapshot, Parallelism::Single);
            (graph.dominator, graph.retained, graph.shallow, graph.distance)
        };
        assert_eq!(graph(drawing()), graph(redacted(Redaction::Strings, 1)));
        assert_eq!(graph(drawing()), graph(redacted(Redaction::Keys, 1)));
    }

    #[test]
    fn a_truncated_file_is_refused() {
        let text = drawing();
        let cut = &text.as_bytes()[..text.len() - 9];
        let result = redact(cut, Redaction::Strings, &[1; KEY_BYTES], &mut Vec::new());
        assert!(matches!(result, Err(Error::Malformed { .. })), "{result:?}");
    }
}
