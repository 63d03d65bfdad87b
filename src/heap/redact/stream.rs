//! Redaction while a snapshot is written: bytes go in as V8 hands them out, and the same bytes that [`redact`]
//! would make of the whole text come out, for the same key. Memory is a few numbers, one byte for each string of the
//! file, and the piece of text that is not yet understood; no text of a string is kept.
//!
//! It works because V8 writes the strings last: by then every node and edge that names one has gone by, and what may
//! be said of it is known. Where that order does not hold, or anything else is not as V8 writes it, it gives up
//! before the first string is put out, and says why: a snapshot that cannot be judged is not written.
//!
//! ```text
//!  Head --"snapshot"--> Between --"nodes"--> Rows(nodes) --"]"--> Between --"edges"--> Rows(edges) --"]"--> Between
//!                          |  ^                                                                                |
//!                          v  +-- "]" -- Numbers, any other array                                 "strings"    v
//!                        Ended <---- "}" ---- Between <----------------- "]" ------------------------------- Strings
//! ```
//!
//! [`redact`]: super::redact

use memchr::memchr3;

use super::{KEY_BYTES, Redacted, Redaction, Verdict, edge_verdict, node_verdict, rewrite};
use crate::heap::error::Error;
use crate::heap::parse::Layout;
use crate::heap::scan::{Cursor, Scan, Stop};

/// Longest piece of text that must be seen whole: the header, some KB, or a string, which V8 cuts at 1,024 characters.
const MAX_PIECE_BYTES: usize = 4 << 20;

/// Strings that are kept track of, a byte for each. A heap of 10 GB has some ten million.
const MAX_STRINGS: usize = 64 << 20;

/// Redacts a snapshot that comes in pieces.
pub struct Redactor {
    mode: Redaction,
    key: [u8; KEY_BYTES],
    /// Came in and is not understood yet.
    pending: Vec<u8>,
    /// Offset of the first pending byte.
    offset: u64,
    stage: Stage,
    layout: Option<Layout>,
    /// What is known of each string, by its number.
    verdicts: Verdicts,
    seen: Seen,
    done: Redacted,
}

/// Which sections have gone by.
#[derive(Default)]
struct Seen {
    nodes: bool,
    edges: bool,
    strings: bool,
}

enum Stage {
    Head,
    Between,
    Rows(Rows),
    /// Inside so many brackets.
    Numbers(usize),
    Strings(Next),
    Ended,
}

/// What comes next among the strings.
#[derive(Clone, Copy)]
enum Next {
    StringOrEnd,
    String,
    CommaOrEnd,
}

#[derive(Clone, Copy, PartialEq)]
enum Table {
    Nodes,
    Edges,
}

/// A table of numbers that is being read.
struct Rows {
    table: Table,
    /// Place in the row of the next number, and whether the cursor stands before it already.
    column: usize,
    at_number: bool,
    kind: u64,
    name: u64,
    count: u64,
}

impl Redactor {
    /// Begins. `key` must be random and is not to be kept.
    pub fn new(mode: Redaction, key: [u8; KEY_BYTES]) -> Redactor {
        Redactor {
            mode,
            key,
            pending: Vec::new(),
            offset: 0,
            stage: Stage::Head,
            layout: None,
            verdicts: Verdicts::default(),
            seen: Seen::default(),
            done: Redacted::default(),
        }
    }

    /// Takes the next bytes and appends to `out` what is certain.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the text is not as V8 writes it, or its sections are not in V8's order.
    /// [`Error::TooLarge`] when there are more strings than can be kept track of.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.pending.extend_from_slice(input);
        let pending = std::mem::take(&mut self.pending);
        let mut piece = Piece { text: &pending, understood: 0, copied: 0, out };
        let result = loop {
            match self.step(&mut piece) {
                Ok(()) => {}
                Err(Stop::Cut) => break Ok(()),
                Err(Stop::Bad(error)) => break Err(at_offset(error, self.offset)),
            }
        };
        piece.copy_to(piece.understood);
        let understood = piece.understood;
        self.pending = pending;
        self.pending.drain(..understood);
        self.offset += understood as u64;
        result?;
        if self.pending.len() > MAX_PIECE_BYTES {
            let expected = format!("a header or string of less than {MAX_PIECE_BYTES} bytes");
            return Err(Error::Malformed { offset: self.offset, expected });
        }
        Ok(())
    }

    /// The text has ended.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it ended in the middle.
    pub fn finish(self) -> Result<Redacted, Error> {
        match self.stage {
            Stage::Ended => Ok(self.done),
            _ => Err(Error::Malformed {
                offset: self.offset + self.pending.len() as u64,
                expected: "the rest of a whole snapshot".to_owned(),
            }),
        }
    }

    /// Goes on until the stage ends or the text does. What `piece.understood` has passed is never read again.
    fn step(&mut self, piece: &mut Piece<'_>) -> Scan<()> {
        let mut cursor = Cursor::new(piece.text, piece.understood);
        let next = match &mut self.stage {
            Stage::Head => {
                cursor.expect(b'{')?;
                let key = cursor.string()?;
                if key != b"snapshot" {
                    return Err(unexpected(&cursor, "\"snapshot\" before all else").into());
                }
                cursor.expect(b':')?;
                cursor.skip_space();
                let start = cursor.offset();
                cursor.skip_value()?;
                let header = piece.text.get(start..cursor.offset()).ok_or(Stop::Cut)?;
                self.layout = Some(Layout::read(header, start)?);
                Some(Stage::Between)
            }
            Stage::Between => Some(self.between(&mut cursor)?),
            Stage::Rows(rows) => {
                let layout = self.layout.as_ref().ok_or(Stop::Cut)?;
                let result = rows.read(&mut cursor, layout, self.mode, &mut self.verdicts);
                // Numbers that were read are understood also where the text ends.
                piece.understood = cursor.offset();
                result?;
                Some(Stage::Between)
            }
            Stage::Numbers(depth) => {
                let result = skip_numbers(&mut cursor, piece.text, depth);
                piece.understood = cursor.offset();
                result?;
                Some(Stage::Between)
            }
            Stage::Strings(next) => match next {
                Next::StringOrEnd if cursor.accept(b']')? => Some(Stage::Between),
                Next::StringOrEnd | Next::String => {
                    let raw = cursor.string()?;
                    let start = cursor.offset() - 1 - raw.len();
                    let verdict = self.verdicts.of(self.done.strings);
                    self.done.strings += 1;
                    let replace = |range: std::ops::Range<usize>, text: &[u8]| {
                        piece.replace(start + range.start..start + range.end, text);
                    };
                    self.done.replaced += u64::from(rewrite(raw, verdict, &self.key, replace));
                    *next = Next::CommaOrEnd;
                    None
                }
                Next::CommaOrEnd => {
                    if cursor.accept(b',')? {
                        *next = Next::String;
                        None
                    } else {
                        cursor.expect(b']')?;
                        Some(Stage::Between)
                    }
                }
            },
            Stage::Ended => {
                cursor.skip_space();
                piece.understood = cursor.offset();
                cursor.peek()?;
                return Err(unexpected(&cursor, "the end of the text").into());
            }
        };
        piece.understood = cursor.offset();
        if let Some(stage) = next {
            self.stage = stage;
        }
        Ok(())
    }

    /// The name of the next section, or the end.
    fn between(&mut self, cursor: &mut Cursor<'_>) -> Scan<Stage> {
        if !cursor.accept(b',')? {
            cursor.expect(b'}')?;
            let Seen { nodes, edges, strings } = self.seen;
            if !(nodes && edges && strings) {
                return Err(unexpected(cursor, "nodes, edges and strings before the end").into());
            }
            return Ok(Stage::Ended);
        }
        let key = cursor.string()?;
        cursor.expect(b':')?;
        cursor.expect(b'[')?;
        let stage = match key {
            b"nodes" if !self.seen.nodes => Stage::Rows(Rows::new(Table::Nodes)),
            b"edges" if self.seen.nodes && !self.seen.edges => Stage::Rows(Rows::new(Table::Edges)),
            b"strings" if self.seen.edges && !self.seen.strings => {
                Stage::Strings(Next::StringOrEnd)
            }
            b"snapshot" | b"nodes" | b"edges" | b"strings" => {
                let order = "nodes, edges and strings in this order, each once: which strings are the user's \
                             is known only then";
                return Err(unexpected(cursor, order).into());
            }
            _ => Stage::Numbers(1),
        };
        match key {
            b"nodes" => self.seen.nodes = true,
            b"edges" => self.seen.edges = true,
            b"strings" => self.seen.strings = true,
            _ => {}
        }
        Ok(stage)
    }
}

impl Rows {
    fn new(table: Table) -> Rows {
        Rows { table, column: 0, at_number: false, kind: 0, name: 0, count: 0 }
    }

    /// Reads to the end of the array, which is passed.
    fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        layout: &Layout,
        mode: Redaction,
        verdicts: &mut Verdicts,
    ) -> Scan<()> {
        let nodes = self.table == Table::Nodes;
        let (fields, kind_at, name_at, declared) = if nodes {
            (layout.node_fields, layout.node_type, layout.node_name, layout.declared_nodes)
        } else {
            (layout.edge_fields, layout.edge_type, layout.edge_name, layout.declared_edges)
        };
        loop {
            if !self.at_number && !cursor.next_item()? {
                break;
            }
            self.at_number = true;
            let number = cursor.number()?;
            self.at_number = false;
            if self.column == kind_at {
                self.kind = number;
            }
            if self.column == name_at {
                self.name = number;
            }
            self.column += 1;
            if self.column < fields {
                continue;
            }
            self.column = 0;
            self.count += 1;
            let verdict = if nodes {
                layout.node_kinds.get(self.kind as usize).map(|kind| Some(node_verdict(*kind)))
            } else {
                layout.edge_kinds.get(self.kind as usize).map(|kind| edge_verdict(*kind, mode))
            };
            match verdict {
                Some(Some(verdict)) => verdicts.add(self.name, verdict)?,
                Some(None) => {}
                None => return Err(unexpected(cursor, "a known type number").into()),
            }
        }
        if self.column != 0 || self.count != declared {
            let what = if nodes { "nodes" } else { "edges" };
            let expected = format!("{declared} {what} as the header says, not {}", self.count);
            return Err(unexpected(cursor, &expected).into());
        }
        Ok(())
    }
}

/// Moves over an array of numbers and of such arrays; what holds text is not let through.
fn skip_numbers<'a>(cursor: &mut Cursor<'a>, text: &'a [u8], depth: &mut usize) -> Scan<()> {
    while *depth > 0 {
        let at = cursor.offset();
        let rest = text.get(at..).unwrap_or_default();
        let Some(length) = memchr3(b'[', b']', b'"', rest) else {
            *cursor = Cursor::new(text, text.len());
            return Err(Stop::Cut);
        };
        match rest.get(length) {
            Some(b'[') => *depth += 1,
            Some(b']') => *depth -= 1,
            _ => {
                *cursor = Cursor::new(text, at + length);
                return Err(unexpected(cursor, "numbers only outside of strings").into());
            }
        }
        *cursor = Cursor::new(text, at + length + 1);
    }
    Ok(())
}

/// What was seen of each string; its number is the place.
#[derive(Default)]
struct Verdicts(Vec<Verdict>);

impl Verdicts {
    fn add(&mut self, string: u64, verdict: Verdict) -> Result<(), Error> {
        let at = usize::try_from(string).unwrap_or(usize::MAX);
        if at >= self.0.len() {
            if at >= MAX_STRINGS {
                return Err(Error::TooLarge { needed: string, allowed: MAX_STRINGS as u64 });
            }
            self.0.resize(at + 1, Verdict::NONE);
        }
        if let Some(known) = self.0.get_mut(at) {
            *known = known.and(verdict);
        }
        Ok(())
    }

    fn of(&self, string: u64) -> Verdict {
        let at = usize::try_from(string).unwrap_or(usize::MAX);
        self.0.get(at).copied().unwrap_or(Verdict::NONE)
    }
}

/// The text at hand and what becomes of it. All between two replaced pieces is copied at once.
struct Piece<'a> {
    text: &'a [u8],
    understood: usize,
    copied: usize,
    out: &'a mut Vec<u8>,
}

impl Piece<'_> {
    fn copy_to(&mut self, end: usize) {
        self.out.extend_from_slice(self.text.get(self.copied..end).unwrap_or_default());
        self.copied = end;
    }

    fn replace(&mut self, range: std::ops::Range<usize>, text: &[u8]) {
        self.copy_to(range.start);
        self.out.extend_from_slice(text);
        self.copied = range.end;
    }
}

fn unexpected(cursor: &Cursor<'_>, expected: &str) -> Error {
    Error::malformed(cursor.offset(), expected)
}

/// The error with its offset counted from the beginning of the file.
fn at_offset(error: Error, base: u64) -> Error {
    match error {
        Error::Malformed { offset, expected } => {
            Error::Malformed { offset: base + offset, expected }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{redact, tests::drawing};
    use super::*;
    use crate::heap::drawing::Drawing;
    use crate::heap::snapshot::{EdgeKind, NodeKind};
    use proptest::prelude::*;

    const KEY: [u8; KEY_BYTES] = [7; KEY_BYTES];

    fn whole(text: &[u8], mode: Redaction) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        match redact(text, mode, &KEY, &mut out) {
            Ok(written) => written.map(|_| out).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// In pieces whose lengths go round.
    fn streamed(text: &[u8], mode: Redaction, lengths: &[usize]) -> Result<Vec<u8>, String> {
        let mut redactor = Redactor::new(mode, KEY);
        let mut out = Vec::new();
        let mut rest = text;
        let mut lengths = lengths.iter().cycle();
        while !rest.is_empty() {
            let length = lengths.next().copied().unwrap_or(1).clamp(1, rest.len());
            let (piece, later) = rest.split_at(length);
            redactor.push(piece, &mut out).map_err(|error| error.to_string())?;
            rest = later;
        }
        redactor.finish().map(|_| out).map_err(|error| error.to_string())
    }

    const NAMES: [&str; 12] = [
        "",
        "token",
        "a secret",
        "\u{1f600} \u{e4}",
        "quote \" backslash \\ end",
        "\u{1}\n\t/",
        "user",
        "name",
        "1 / part of key (User @3) -> value (hunter2 @5) pair in WeakMap (table @9)",
        "[1,2,{\"nodes\":[",
        "\\",
        "]}",
    ];

    fn heap(nodes: &[(usize, usize)], edges: &[(usize, usize, usize, usize)]) -> String {
        let mut heap = Drawing::new();
        for &(kind, name) in nodes {
            heap.node(NodeKind::ALL[kind % NodeKind::ALL.len()], NAMES[name % NAMES.len()], 16);
        }
        let count = nodes.len() + 1;
        for &(from, kind, name, to) in edges {
            let kind = EdgeKind::ALL[kind % EdgeKind::ALL.len()];
            let name = match kind.is_indexed() {
                true => name.to_string(),
                false => NAMES[name % NAMES.len()].to_owned(),
            };
            heap.edge(from % count, kind, &name, to % count);
        }
        heap.json()
    }

    proptest! {
        #[test]
        fn any_heap_in_any_pieces_comes_out_as_the_whole_text_does(
            nodes in proptest::collection::vec((any::<usize>(), any::<usize>()), 0..12),
            edges in proptest::collection::vec(
                (any::<usize>(), any::<usize>(), 0_usize..20, any::<usize>()), 0..24),
            lengths in proptest::collection::vec(1_usize..90, 1..6),
            keys: bool,
        ) {
            let text = heap(&nodes, &edges);
            let mode = if keys { Redaction::Keys } else { Redaction::Strings };
            let streamed = streamed(text.as_bytes(), mode, &lengths);
            prop_assert_eq!(streamed, whole(text.as_bytes(), mode));
        }

        #[test]
        fn any_bytes_are_passed_or_refused_without_a_panic(
            text in proptest::collection::vec(any::<u8>(), 0..80),
            at in 0_usize..900,
        ) {
            let _ = streamed(&text, Redaction::Keys, &[3]);
            let mut spoilt = drawing().into_bytes();
            let at = at.min(spoilt.len());
            spoilt.splice(at..at, text);
            let _ = streamed(&spoilt, Redaction::Strings, &[5, 64]);
        }
    }

    #[test]
    fn byte_by_byte_is_the_same_as_at_once() {
        for mode in [Redaction::Strings, Redaction::Keys] {
            let text = drawing();
            let expected = whole(text.as_bytes(), mode);
            assert!(expected.is_ok());
            assert_eq!(streamed(text.as_bytes(), mode, &[1]), expected);
            assert_eq!(streamed(text.as_bytes(), mode, &[text.len()]), expected);
        }
    }

    /// No byte of a string may be out before all nodes and edges are in.
    #[test]
    fn where_the_sections_are_in_another_order_nothing_of_a_string_comes_out() {
        let text = drawing();
        let start = text.find("\"strings\":").unwrap();
        let strings = text[start..].trim_end().trim_end_matches('}');
        let nodes = text.find("\"nodes\":").unwrap();
        let early = format!("{}{strings},{}}}", &text[..nodes], &text[nodes..start - 2]);
        for text in [early, text.replacen("\"edges\"", "\"sedge\"", 1)] {
            let mut out = Vec::new();
            let mut redactor = Redactor::new(Redaction::Strings, KEY);
            let error = redactor.push(text.as_bytes(), &mut out).unwrap_err().to_string();
            assert!(error.contains("nodes, edges and strings"), "{error}");
            assert!(!String::from_utf8(out).unwrap().contains("hunter2"));
        }
    }

    #[test]
    fn a_section_that_nobody_knows_may_hold_numbers_and_no_text() {
        let text = drawing();
        let with = |section: &str| text.replacen("\"samples\":[]", section, 1);
        let numbers = with("\"samples\":[1,[2,3],[]],\"later\":[[4]]");
        let expected = whole(numbers.as_bytes(), Redaction::Strings);
        assert!(expected.is_ok());
        assert_eq!(streamed(numbers.as_bytes(), Redaction::Strings, &[2]), expected);
        let named = with("\"samples\":[],\"notes\":[1,\"hunter2\"]");
        let error = streamed(named.as_bytes(), Redaction::Strings, &[7]).unwrap_err();
        assert!(error.contains("numbers only"), "{error}");
    }

    #[test]
    fn a_text_that_ends_in_the_middle_is_refused_with_its_offset() {
        let text = drawing();
        for length in (0..text.trim_end().len()).step_by(7) {
            let error = streamed(&text.as_bytes()[..length], Redaction::Strings, &[11]);
            let error = error.unwrap_err();
            assert!(error.contains(&format!("at byte {length}")), "{error}");
        }
    }

    #[test]
    fn counts_that_are_not_those_of_the_header_are_refused() {
        let text = drawing().replacen("\"node_count\":", "\"node_count\":1", 1);
        let error = streamed(text.as_bytes(), Redaction::Strings, &[4096]).unwrap_err();
        assert!(error.contains("as the header says"), "{error}");
    }
}
