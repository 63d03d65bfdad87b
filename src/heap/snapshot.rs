//! A parsed snapshot: one column per field, and its strings where they stand in the text.
//!
//! Columns are filled by `parse` and never change; what follows from them (edges backwards, dominators,
//! sizes) is in `graph`. Nothing here allocates per node.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use rustc_hash::FxHashMap;

use super::error::Error;
use super::file::{self, Bytes};
use super::scan::string_end;

/// A node's place in its file, from 0. It means nothing in another snapshot.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeOrdinal(pub u32);

impl NodeOrdinal {
    /// The index into a column.
    #[inline(always)]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// An index into the snapshot's strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StringIndex(pub u32);

macro_rules! kinds {
    ($(#[$doc:meta])* $kind:ident: $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $kind {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The kind of this name in the file's `meta`; a name V8 may add later is `Other`.
            pub fn named(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)+
                    _ => Self::Other,
                }
            }

            /// The name V8 gives it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// V8's node types.
    NodeKind:
    /// Internals of V8.
    Hidden = "hidden",
    /// Backing stores: elements, properties, hash tables.
    Array = "array",
    /// Flat strings.
    String = "string",
    /// JavaScript objects.
    Object = "object",
    /// Compiled code and what belongs to it.
    Code = "code",
    /// Functions.
    Closure = "closure",
    /// Regular expressions.
    RegExp = "regexp",
    /// Numbers on the heap.
    Number = "number",
    /// Memory outside V8, named by the embedder.
    Native = "native",
    /// Roots and groups that are no objects.
    Synthetic = "synthetic",
    /// Strings made of two others.
    ConsString = "concatenated string",
    /// Strings that are part of another.
    SlicedString = "sliced string",
    /// Symbols.
    Symbol = "symbol",
    /// Big integers.
    BigInt = "bigint",
    /// Hidden classes.
    ObjectShape = "object shape",
    /// WebAssembly objects.
    Wasm = "wasm object",
    /// A type this version does not know.
    Other = "(unknown type)",
}

kinds! {
    /// V8's edge types.
    EdgeKind:
    /// A variable in a function's context.
    Context = "context",
    /// An indexed element.
    Element = "element",
    /// A named property.
    Property = "property",
    /// A field that JavaScript cannot see.
    Internal = "internal",
    /// An indexed field that JavaScript cannot see.
    Hidden = "hidden",
    /// A link V8 adds for convenience.
    Shortcut = "shortcut",
    /// A reference that does not keep alive.
    Weak = "weak",
    /// A type this version does not know.
    Other = "(unknown type)",
}

impl NodeKind {
    /// True for the three kinds of string.
    pub fn is_string(self) -> bool {
        matches!(self, Self::String | Self::ConsString | Self::SlicedString)
    }
}

impl EdgeKind {
    /// True when the edge's name is an index and no string.
    #[inline(always)]
    pub fn is_indexed(self) -> bool {
        matches!(self, Self::Element | Self::Hidden)
    }
}

/// Where an object's code is, 0-based as V8 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The node: a closure, or an object made by a constructor.
    pub node: NodeOrdinal,
    /// V8's number of the script.
    pub script_id: u32,
    /// Line from 0.
    pub line: u32,
    /// Column from 0.
    pub column: u32,
}

/// Whether all of the file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// All sections, closed.
    Complete,
    /// The text ends within a section; later ones are missing.
    Truncated {
        /// The section.
        section: Section,
        /// The byte at which the text ends.
        offset: u64,
    },
}

/// The parts of a snapshot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `nodes`
    Nodes,
    /// `edges`
    Edges,
    /// Everything between edges and strings.
    Locations,
    /// `strings`
    Strings,
}

impl Section {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Edges => "edges",
            Self::Locations => "locations",
            Self::Strings => "strings",
        }
    }
}

/// Strings as places in the text, still with their JSON escapes.
#[derive(Debug, Default)]
pub struct StringTable {
    /// Start (upper 40 bits) and length (lower 24, all ones for a longer one).
    spans: Vec<u64>,
}

const LENGTH_BITS: u32 = 24;
const LONG: u64 = (1 << LENGTH_BITS) - 1;

impl StringTable {
    /// Room for `count` strings.
    pub fn with_capacity(count: usize) -> Self {
        Self { spans: Vec::with_capacity(count) }
    }

    /// Adds the string whose raw bytes are `text[range]`.
    pub fn push(&mut self, range: Range<usize>) {
        let length = (range.len() as u64).min(LONG);
        self.spans.push(((range.start as u64) << LENGTH_BITS) | length);
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of the spans.
    pub fn memory_bytes(&self) -> u64 {
        self.spans.capacity() as u64 * 8
    }

    /// Raw bytes of string `index`, or `None` when the file has no such string.
    #[inline]
    pub fn raw<'t>(&self, text: &'t [u8], index: StringIndex) -> Option<&'t [u8]> {
        let span = *self.spans.get(index.0 as usize)?;
        let start = (span >> LENGTH_BITS) as usize;
        let length = span & LONG;
        let end = if length == LONG { string_end(text, start)? } else { start + length as usize };
        text.get(start..end)
    }

    /// The offset of string `index` in the text.
    pub fn start(&self, index: StringIndex) -> Option<usize> {
        self.spans.get(index.0 as usize).map(|span| (span >> LENGTH_BITS) as usize)
    }

    /// The string that contains byte `offset` of the text, if there is one.
    pub fn containing(&self, offset: usize) -> Option<StringIndex> {
        let after = self.spans.partition_point(|span| (span >> LENGTH_BITS) as usize <= offset);
        after.checked_sub(1).and_then(|index| u32::try_from(index).ok()).map(StringIndex)
    }
}

/// The columns of a snapshot.
#[derive(Debug)]
pub struct Columns {
    /// Node types.
    pub node_kind: Vec<NodeKind>,
    /// Node names, as string indices.
    pub node_name: Vec<u32>,
    /// Node ids, unique and unsorted.
    pub node_id: Vec<u32>,
    /// Self sizes in bytes; `u32::MAX` stands for an entry of `large_sizes`.
    pub self_size: Vec<u32>,
    /// Self sizes of 4 GB and more, by node.
    pub large_sizes: FxHashMap<u32, u64>,
    /// Where each node's edges begin, with one more entry for the end.
    pub first_edge: Vec<u32>,
    /// Edge types.
    pub edge_kind: Vec<EdgeKind>,
    /// Edge names: a string index, or an index for element and hidden edges.
    pub edge_name: Vec<u32>,
    /// The nodes that edges lead to.
    pub edge_to: Vec<u32>,
    /// Locations of closures and constructed objects, sorted by node.
    pub locations: Vec<Location>,
    /// The strings.
    pub strings: StringTable,
    /// Bytes of the text from the `strings` array's first byte to its end.
    pub strings_range: Range<usize>,
    /// The node everything hangs on.
    pub root: NodeOrdinal,
    /// Nodes the header announces.
    pub declared_nodes: u64,
    /// Edges the header announces.
    pub declared_edges: u64,
    /// Native memory the header adds, in bytes.
    pub extra_native_bytes: u64,
    /// Whether all of it is there.
    pub completeness: Completeness,
}

/// A snapshot: its columns and the text that its strings stand in.
#[derive(Debug)]
pub struct Snapshot {
    /// The columns.
    pub columns: Columns,
    text: Bytes,
    /// Bytes of the whole text.
    pub text_bytes: u64,
}

/// What [`Snapshot::open`] may use.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// Bytes of anonymous memory that text and columns may take.
    pub allowed_bytes: u64,
}

impl Snapshot {
    /// Opens and parses a plain, gzip or zstd file.
    ///
    /// # Errors
    /// See [`Error`]. A file that ends too early is no error unless it ends in its header.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, Error> {
        let opened = file::open(path, options.allowed_bytes)?;
        let left = match &opened.bytes {
            Bytes::Owned(text) => options.allowed_bytes.saturating_sub(text.len() as u64),
            Bytes::Mapped(_) => options.allowed_bytes,
        };
        let mut snapshot = Self::parse(opened.bytes, left)?;
        if opened.damaged && snapshot.columns.completeness == Completeness::Complete {
            snapshot.columns.completeness =
                Completeness::Truncated { section: Section::Strings, offset: snapshot.text_bytes };
        }
        Ok(snapshot)
    }

    /// Parses a text; columns may take at most `allowed_bytes`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(text: Bytes, allowed_bytes: u64) -> Result<Self, Error> {
        let columns = super::parse::parse(&text, allowed_bytes)?;
        let text_bytes = text.len() as u64;
        Ok(Self { columns, text, text_bytes })
    }

    /// Gives back the memory of everything but the strings, for a decompressed file.
    pub fn drop_parsed_text(&mut self) {
        let Bytes::Owned(text) = &mut self.text else { return };
        let range = self.columns.strings_range.clone();
        let shift = range.start;
        if shift == 0 || range.end > text.len() {
            return;
        }
        text.truncate(range.end);
        text.drain(..shift);
        text.shrink_to_fit();
        for span in &mut self.columns.strings.spans {
            *span -= (shift as u64) << LENGTH_BITS;
        }
        self.columns.strings_range = 0..range.end - shift;
    }

    /// The text, whole unless [`Snapshot::drop_parsed_text`] was called.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many nodes were read.
    #[inline]
    pub fn node_count(&self) -> usize {
        self.columns.node_kind.len()
    }

    /// How many edges were read.
    #[inline]
    pub fn edge_count(&self) -> usize {
        self.columns.edge_to.len()
    }

    /// All nodes, in file order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeOrdinal> + use<> {
        (0..self.node_count() as u32).map(NodeOrdinal)
    }

    /// The edges of `node`, as indices into the edge columns.
    #[inline(always)]
    pub fn edges(&self, node: NodeOrdinal) -> Range<usize> {
        let first = &self.columns.first_edge;
        first[node.at()] as usize..first[node.at() + 1] as usize
    }

    /// The node's type.
    #[inline(always)]
    pub fn kind(&self, node: NodeOrdinal) -> NodeKind {
        self.columns.node_kind[node.at()]
    }

    /// The node's name.
    #[inline(always)]
    pub fn name(&self, node: NodeOrdinal) -> StringIndex {
        StringIndex(self.columns.node_name[node.at()])
    }

    /// The node's id.
    #[inline(always)]
    pub fn id(&self, node: NodeOrdinal) -> u32 {
        self.columns.node_id[node.at()]
    }

    /// The node's self size in bytes, as the file has it.
    #[inline]
    pub fn self_size(&self, node: NodeOrdinal) -> u64 {
        match self.columns.self_size[node.at()] {
            u32::MAX => {
                self.columns.large_sizes.get(&node.0).copied().unwrap_or(u64::from(u32::MAX))
            }
            size => u64::from(size),
        }
    }

    /// The target of an edge.
    #[inline(always)]
    pub fn target(&self, edge: usize) -> NodeOrdinal {
        NodeOrdinal(self.columns.edge_to[edge])
    }

    /// The type of an edge.
    #[inline(always)]
    pub fn edge_kind(&self, edge: usize) -> EdgeKind {
        self.columns.edge_kind[edge]
    }

    /// The name of an edge that has a name and no index.
    #[inline]
    pub fn edge_name(&self, edge: usize) -> Option<StringIndex> {
        (!self.edge_kind(edge).is_indexed()).then(|| StringIndex(self.columns.edge_name[edge]))
    }

    /// Raw bytes of a string, with JSON escapes; empty when a truncated file lacks it.
    #[inline]
    pub fn raw(&self, index: StringIndex) -> &[u8] {
        self.columns.strings.raw(&self.text, index).unwrap_or_default()
    }

    /// A string, decoded.
    pub fn text_of(&self, index: StringIndex) -> Cow<'_, str> {
        decode(self.raw(index))
    }

    /// The node's name, decoded.
    pub fn name_of(&self, node: NodeOrdinal) -> Cow<'_, str> {
        self.text_of(self.name(node))
    }

    /// The first string equal to `text`, which must need no JSON escape.
    pub fn find_string(&self, text: &str) -> Option<StringIndex> {
        (0..self.columns.strings.len() as u32)
            .map(StringIndex)
            .find(|&index| self.raw(index) == text.as_bytes())
    }

    /// The location of `node`, if V8 wrote one.
    pub fn location(&self, node: NodeOrdinal) -> Option<Location> {
        let locations = &self.columns.locations;
        let index = locations.binary_search_by_key(&node, |location| location.node).ok()?;
        locations.get(index).copied()
    }

    /// The node of an id. Takes time linear in the nodes.
    pub fn node_of_id(&self, id: u32) -> Option<NodeOrdinal> {
        self.columns.node_id.iter().position(|&each| each == id).map(|at| NodeOrdinal(at as u32))
    }
}

/// Decodes the JSON escapes of raw string bytes. What is no valid UTF-8 or no valid escape becomes U+FFFD.
pub fn decode(raw: &[u8]) -> Cow<'_, str> {
    if memchr::memchr(b'\\', raw).is_none() {
        return String::from_utf8_lossy(raw);
    }
    let text = String::from_utf8_lossy(raw);
    let mut decoded = String::with_capacity(text.len());
    let mut chars = text.chars();
    let mut high_surrogate = None;
    while let Some(char) = chars.next() {
        if char != '\\' {
            decoded.extend(high_surrogate.take().map(|_: u32| char::REPLACEMENT_CHARACTER));
            decoded.push(char);
            continue;
        }
        let unit = match chars.next() {
            Some('n') => u32::from(b'\n'),
            Some('t') => u32::from(b'\t'),
            Some('r') => u32::from(b'\r'),
            Some('b') => 8,
            Some('f') => 12,
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                u32::from_str_radix(&digits, 16).unwrap_or(0xfffd)
            }
            Some(other) => u32::from(other),
            None => 0xfffd,
        };
        match (high_surrogate.take(), unit) {
            (None, 0xd800..=0xdbff) => high_surrogate = Some(unit),
            (Some(high), 0xdc00..=0xdfff) => {
                let point = 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
                decoded.push(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (high, unit) => {
                decoded.extend(high.map(|_| char::REPLACEMENT_CHARACTER));
                if (0xd800..=0xdbff).contains(&unit) {
                    high_surrogate = Some(unit);
                } else {
                    decoded.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
        }
    }
    decoded.extend(high_surrogate.map(|_| char::REPLACEMENT_CHARACTER));
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_agrees_with_serde_json(text in ".{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            let raw = &json.as_bytes()[1..json.len() - 1];
            prop_assert_eq!(decode(raw), text.as_str());
        }

        #[test]
        fn decoding_any_bytes_does_not_panic(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&raw);
        }
    }

    #[test]
    fn surrogates_join_or_become_replacement_characters() {
        assert_eq!(decode(br"\ud83d\ude00"), "\u{1f600}");
        assert_eq!(decode(br"\ud83d\ud83d\ude00x"), "\u{fffd}\u{1f600}x");
        assert_eq!(decode(br"\ude00\ud83d"), "\u{fffd}\u{fffd}");
    }
}
