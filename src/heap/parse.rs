//! From the text of a `.heapsnapshot` to columns.
//!
//! One pass in file order: header, nodes, edges, locations, strings; arrays nobody knows are skipped.
//! Fields are found by their names in `meta`, so the seven node fields of Node 18-22, the six of 24-26 and
//! whatever comes next are read alike. Counts in the header are hints for reserving memory and are
//! limited by what the rest of the text could hold. A text that ends too early gives what it held.

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::error::Error;
use super::scan::{Cursor, Scan, Stop};
use super::snapshot::{
    Columns, Completeness, EdgeKind, Location, NodeKind, NodeOrdinal, Section, StringTable,
};

/// More fields than any version has; bounds the row kept on the stack.
const MAX_FIELDS: usize = 16;
/// Bytes of columns per node: kind, name, id, size, first edge.
const NODE_BYTES: u64 = 17;
/// Bytes of columns per edge: kind, name, target.
const EDGE_BYTES: u64 = 9;
/// Fewest bytes of a string in the text: two quotes and a comma.
const MIN_STRING_TEXT: usize = 3;

#[derive(Deserialize)]
struct Header {
    meta: Meta,
    #[serde(default)]
    node_count: u64,
    #[serde(default)]
    edge_count: u64,
    #[serde(default)]
    extra_native_bytes: u64,
    #[serde(default)]
    root_index: u64,
}

#[derive(Deserialize)]
struct Meta {
    node_fields: Vec<String>,
    node_types: Vec<serde_json::Value>,
    edge_fields: Vec<String>,
    edge_types: Vec<serde_json::Value>,
    #[serde(default)]
    location_fields: Vec<String>,
}

/// The header with its names resolved to positions.
pub(super) struct Layout {
    /// Numbers of a node, and the places of its type and its name among them.
    pub(super) node_fields: usize,
    pub(super) node_type: usize,
    pub(super) node_name: usize,
    node_id: usize,
    node_size: usize,
    node_edges: usize,
    pub(super) node_kinds: Vec<NodeKind>,
    pub(super) edge_fields: usize,
    pub(super) edge_type: usize,
    pub(super) edge_name: usize,
    edge_to: usize,
    pub(super) edge_kinds: Vec<EdgeKind>,
    location_fields: usize,
    /// Positions of object, script, line and column; `None` when locations are of no known form.
    location_positions: Option<[usize; 4]>,
    pub(super) declared_nodes: u64,
    pub(super) declared_edges: u64,
    extra_native_bytes: u64,
    root_index: u64,
}

/// Reads all of `text`. Columns may take at most `allowed_bytes`.
///
/// # Errors
/// [`Error::Malformed`] with the offset, [`Error::Empty`] when even the header is cut,
/// [`Error::TooLarge`] when the columns would not fit.
pub fn parse(text: &[u8], allowed_bytes: u64) -> Result<Columns, Error> {
    let mut parser = Parser {
        text,
        cursor: Cursor::new(text, 0),
        layout: None,
        section: None,
        columns: empty_columns(),
        edge_counts_total: 0,
        allowed_bytes,
    };
    match parser.file() {
        Ok(()) => parser.finish(Completeness::Complete),
        Err(Stop::Bad(error)) => Err(error),
        Err(Stop::Cut) => match parser.section {
            None => Err(Error::Empty { offset: text.len() as u64 }),
            Some(section) => {
                parser.finish(Completeness::Truncated { section, offset: text.len() as u64 })
            }
        },
    }
}

/// Nodes and edges that the header at the beginning of a text announces, if it is there.
pub fn declared(head: &[u8]) -> Option<(u64, u64)> {
    let mut cursor = Cursor::new(head, 0);
    cursor.expect(b'{').ok()?;
    if cursor.string().ok()? != b"snapshot" {
        return None;
    }
    cursor.expect(b':').ok()?;
    cursor.skip_space();
    let start = cursor.offset();
    cursor.skip_value().ok()?;
    let header: Header = serde_json::from_slice(head.get(start..cursor.offset())?).ok()?;
    Some((header.node_count, header.edge_count))
}

fn empty_columns() -> Columns {
    Columns {
        node_kind: Vec::new(),
        node_name: Vec::new(),
        node_id: Vec::new(),
        self_size: Vec::new(),
        large_sizes: FxHashMap::default(),
        first_edge: Vec::new(),
        edge_kind: Vec::new(),
        edge_name: Vec::new(),
        edge_to: Vec::new(),
        locations: Vec::new(),
        strings: StringTable::default(),
        strings_range: 0..0,
        root: NodeOrdinal(0),
        declared_nodes: 0,
        declared_edges: 0,
        extra_native_bytes: 0,
        completeness: Completeness::Complete,
    }
}

struct Parser<'a> {
    text: &'a [u8],
    cursor: Cursor<'a>,
    layout: Option<Layout>,
    /// The section being read, or the one that must come next; `None` before the header is read.
    section: Option<Section>,
    columns: Columns,
    edge_counts_total: u64,
    allowed_bytes: u64,
}

impl<'a> Parser<'a> {
    fn file(&mut self) -> Scan<()> {
        self.cursor.expect(b'{')?;
        if self.cursor.accept(b'}')? {
            return Ok(());
        }
        loop {
            let key = self.cursor.string()?;
            self.cursor.expect(b':')?;
            self.cursor.skip_space();
            match key {
                b"snapshot" => self.header()?,
                b"nodes" => self.nodes()?,
                b"edges" => self.edges()?,
                b"locations" => self.locations()?,
                b"strings" => self.strings()?,
                _ => self.cursor.skip_value()?,
            }
            if !self.cursor.accept(b',')? {
                break;
            }
        }
        self.cursor.expect(b'}')
    }

    fn header(&mut self) -> Scan<()> {
        let start = self.cursor.offset();
        self.cursor.skip_value()?;
        let end = self.cursor.offset();
        let raw = self.text.get(start..end).ok_or(Stop::Cut)?;
        let layout = Layout::read(raw, start)?;
        self.columns.declared_nodes = layout.declared_nodes;
        self.columns.declared_edges = layout.declared_edges;
        self.columns.extra_native_bytes = layout.extra_native_bytes;
        self.layout = Some(layout);
        self.section = Some(Section::Nodes);
        Ok(())
    }

    /// The items left to read can be no more than this: each number takes a digit and a comma.
    fn most_rows(&self, declared: u64, fields: usize) -> usize {
        let rest = (self.text.len() - self.cursor.offset().min(self.text.len())) as u64;
        declared.min(rest / (2 * fields as u64) + 1) as usize
    }

    fn reserve(&mut self, rows: usize, row_bytes: u64) -> Scan<()> {
        let needed = rows as u64 * row_bytes;
        if needed > self.allowed_bytes {
            let allowed = self.allowed_bytes;
            return Err(Error::TooLarge { needed, allowed }.into());
        }
        self.allowed_bytes -= needed;
        Ok(())
    }

    fn nodes(&mut self) -> Scan<()> {
        let Some(layout) = self.layout.take() else {
            return Err(
                Error::malformed(self.cursor.offset(), "\"snapshot\" before \"nodes\"").into()
            );
        };
        if !self.columns.node_kind.is_empty() {
            return Err(Error::malformed(self.cursor.offset(), "one \"nodes\" array").into());
        }
        let rows = self.most_rows(layout.declared_nodes, layout.node_fields);
        self.reserve(rows, NODE_BYTES)?;
        let result = self.node_rows(&layout, rows);
        // Also of a cut text: what was read stays, and its length is what counts.
        let count = self.columns.node_kind.len();
        self.columns.first_edge.push(saturate(self.edge_counts_total));
        self.columns.root = root_of(&layout, count)?;
        self.layout = Some(layout);
        result?;
        if count as u64 != self.columns.declared_nodes {
            let declared = self.columns.declared_nodes;
            return Err(Error::malformed(
                self.cursor.offset(),
                format!("{declared} nodes as the header says, not {count}"),
            )
            .into());
        }
        self.section = Some(Section::Edges);
        Ok(())
    }

    fn node_rows(&mut self, layout: &Layout, rows: usize) -> Scan<()> {
        let columns = &mut self.columns;
        columns.node_kind.reserve_exact(rows);
        columns.node_name.reserve_exact(rows);
        columns.node_id.reserve_exact(rows);
        columns.self_size.reserve_exact(rows);
        columns.first_edge.reserve_exact(rows + 1);
        let cursor = &mut self.cursor;
        cursor.expect(b'[')?;
        let mut more = cursor.next_item()?;
        let mut row = [0_u64; MAX_FIELDS];
        let mut edges_before = 0_u64;
        while more {
            let start = cursor.offset();
            if columns.node_kind.len() >= rows {
                return Err(Error::malformed(
                    start,
                    format!("no more than the {} nodes of the header", layout.declared_nodes),
                )
                .into());
            }
            read_row(cursor, &mut row[..layout.node_fields], "a whole node")?;
            let kind = *layout
                .node_kinds
                .get(row[layout.node_type] as usize)
                .ok_or_else(|| Error::malformed(start, "a node of a known type number"))?;
            let (Ok(name), Ok(id)) =
                (u32::try_from(row[layout.node_name]), u32::try_from(row[layout.node_id]))
            else {
                return Err(Error::malformed(start, "a node whose name and id fit 32 bits").into());
            };
            let size = row[layout.node_size];
            let small = u32::try_from(size).unwrap_or(u32::MAX);
            if small == u32::MAX {
                columns.large_sizes.insert(columns.node_kind.len() as u32, size);
            }
            columns.node_kind.push(kind);
            columns.node_name.push(name);
            columns.node_id.push(id);
            columns.self_size.push(small);
            columns.first_edge.push(saturate(edges_before));
            edges_before += row[layout.node_edges];
            if edges_before > layout.declared_edges {
                return Err(Error::malformed(
                    start,
                    format!("edge counts that add up to the header's {}", layout.declared_edges),
                )
                .into());
            }
            self.edge_counts_total = edges_before;
            more = cursor.next_item()?;
        }
        Ok(())
    }

    fn edges(&mut self) -> Scan<()> {
        let Some(layout) = self.layout.take() else {
            return Err(
                Error::malformed(self.cursor.offset(), "\"snapshot\" before \"edges\"").into()
            );
        };
        if self.section != Some(Section::Edges) {
            return Err(Error::malformed(self.cursor.offset(), "\"nodes\" before \"edges\"").into());
        }
        if self.edge_counts_total != layout.declared_edges {
            return Err(Error::malformed(
                self.cursor.offset(),
                format!(
                    "{} edges in the header, not {}, which is what the nodes add up to",
                    self.edge_counts_total, layout.declared_edges
                ),
            )
            .into());
        }
        let rows = self.most_rows(layout.declared_edges, layout.edge_fields);
        self.reserve(rows, EDGE_BYTES)?;
        let result = self.edge_rows(&layout, rows);
        self.layout = Some(layout);
        result?;
        if self.columns.edge_to.len() as u64 != self.columns.declared_edges {
            return Err(Error::malformed(
                self.cursor.offset(),
                format!("{} edges as the header says", self.columns.declared_edges),
            )
            .into());
        }
        self.section = Some(Section::Locations);
        Ok(())
    }

    fn edge_rows(&mut self, layout: &Layout, rows: usize) -> Scan<()> {
        let columns = &mut self.columns;
        columns.edge_kind.reserve_exact(rows);
        columns.edge_name.reserve_exact(rows);
        columns.edge_to.reserve_exact(rows);
        let nodes = columns.node_kind.len() as u64;
        let divide = Reciprocal::new(layout.node_fields as u64);
        let cursor = &mut self.cursor;
        cursor.expect(b'[')?;
        let mut more = cursor.next_item()?;
        let mut row = [0_u64; MAX_FIELDS];
        while more {
            let start = cursor.offset();
            if columns.edge_to.len() >= rows {
                return Err(Error::malformed(
                    start,
                    format!("no more than the {} edges of the header", layout.declared_edges),
                )
                .into());
            }
            read_row(cursor, &mut row[..layout.edge_fields], "a whole edge")?;
            let kind = *layout
                .edge_kinds
                .get(row[layout.edge_type] as usize)
                .ok_or_else(|| Error::malformed(start, "an edge of a known type number"))?;
            let Ok(name) = u32::try_from(row[layout.edge_name]) else {
                return Err(Error::malformed(start, "an edge whose name fits 32 bits").into());
            };
            let target = divide.exactly(row[layout.edge_to]).filter(|&node| node < nodes);
            let Some(target) = target else {
                return Err(Error::malformed(start, "an edge to a node of this file").into());
            };
            columns.edge_kind.push(kind);
            columns.edge_name.push(name);
            columns.edge_to.push(target as u32);
            more = cursor.next_item()?;
        }
        Ok(())
    }

    fn locations(&mut self) -> Scan<()> {
        let Some(layout) = &self.layout else { return self.cursor.skip_value() };
        let (Some(positions), fields) = (layout.location_positions, layout.location_fields) else {
            return self.cursor.skip_value();
        };
        let divide = Reciprocal::new(layout.node_fields as u64);
        let nodes = self.columns.node_kind.len() as u64;
        let cursor = &mut self.cursor;
        cursor.expect(b'[')?;
        let mut more = cursor.next_item()?;
        let mut row = [0_u64; MAX_FIELDS];
        while more {
            let start = cursor.offset();
            read_row(cursor, &mut row[..fields], "a whole location")?;
            let [object, script_id, line, column] = positions.map(|position| row[position]);
            let Some(node) = divide.exactly(object).filter(|&node| node < nodes) else {
                return Err(Error::malformed(start, "a location of a node of this file").into());
            };
            self.columns.locations.push(Location {
                node: NodeOrdinal(node as u32),
                script_id: saturate(script_id),
                line: saturate(line),
                column: saturate(column),
            });
            more = cursor.next_item()?;
        }
        Ok(())
    }

    fn strings(&mut self) -> Scan<()> {
        self.section = self.section.max(Some(Section::Strings));
        self.cursor.expect(b'[')?;
        let rest = self.text.len() - self.cursor.offset();
        // A guess for the common case; the vector grows when strings are shorter.
        let mut table = StringTable::with_capacity(rest / 40);
        self.columns.strings_range = self.cursor.offset()..self.text.len();
        let result = self.string_rows(&mut table);
        self.columns.strings = table;
        self.columns.strings_range.end = self.cursor.offset();
        result
    }

    fn string_rows(&mut self, table: &mut StringTable) -> Scan<()> {
        let cursor = &mut self.cursor;
        if cursor.accept(b']')? {
            return Ok(());
        }
        let most = self.text.len() / MIN_STRING_TEXT;
        loop {
            let raw = cursor.string()?;
            let end = cursor.offset() - 1;
            table.push(end - raw.len()..end);
            if table.len() > most || table.memory_bytes() > self.allowed_bytes {
                let allowed = self.allowed_bytes;
                return Err(Error::TooLarge { needed: table.memory_bytes(), allowed }.into());
            }
            if !cursor.accept(b',')? {
                return cursor.expect(b']');
            }
        }
    }

    fn finish(mut self, completeness: Completeness) -> Result<Columns, Error> {
        let complete = completeness == Completeness::Complete;
        let offset = self.cursor.offset();
        if self.layout.is_none() {
            return Err(Error::malformed(offset, "\"snapshot\" and its meta"));
        }
        if complete && self.section != Some(Section::Strings) {
            let missing = self.section.map_or("snapshot", Section::name);
            return Err(Error::malformed(offset, format!("a {missing:?} array")));
        }
        if complete && self.columns.edge_to.len() as u64 != self.columns.declared_edges {
            return Err(Error::malformed(offset, "an \"edges\" array"));
        }
        let columns = &mut self.columns;
        columns.completeness = completeness;
        // A cut inside a row leaves columns of unequal length only by whole pushes; make them equal.
        let nodes = columns.node_kind.len();
        columns.first_edge.truncate(nodes);
        let edges = columns.edge_to.len() as u32;
        for first in &mut columns.first_edge {
            *first = (*first).min(edges);
        }
        columns.first_edge.push(edges);
        if !columns.locations.is_sorted_by_key(|location| location.node) {
            columns.locations.sort_unstable();
        }
        columns.locations.dedup_by_key(|location| location.node);
        Ok(self.columns)
    }
}

impl Layout {
    /// Reads the header, which stands at byte `start`.
    pub(super) fn read(raw: &[u8], start: usize) -> Result<Layout, Error> {
        let header: Header = serde_json::from_slice(raw).map_err(|error| {
            let offset = start + offset_of(raw, error.line(), error.column());
            Error::malformed(offset, format!("the snapshot's header ({error})"))
        })?;
        Layout::new(header, start)
    }

    fn new(header: Header, offset: usize) -> Result<Self, Error> {
        let meta = &header.meta;
        let position = |fields: &[String], name: &str| {
            let found = fields.iter().position(|field| field == name);
            found.ok_or_else(|| Error::malformed(offset, format!("a field {name:?} in meta")))
        };
        let node_type = position(&meta.node_fields, "type")?;
        let edge_type = position(&meta.edge_fields, "type")?;
        let fields = [&meta.node_fields, &meta.edge_fields, &meta.location_fields];
        if fields.iter().any(|fields| fields.len() > MAX_FIELDS) {
            return Err(Error::malformed(offset, format!("at most {MAX_FIELDS} fields in meta")));
        }
        if header.edge_count >= u64::from(u32::MAX) || header.node_count >= u64::from(u32::MAX) {
            return Err(Error::malformed(offset, "fewer than 2^32 nodes and edges"));
        }
        let location = |name| meta.location_fields.iter().position(|field| field == name);
        let location_positions = (|| {
            Some([
                location("object_index")?,
                location("script_id")?,
                location("line")?,
                location("column")?,
            ])
        })();
        Ok(Self {
            node_fields: meta.node_fields.len(),
            node_type,
            node_name: position(&meta.node_fields, "name")?,
            node_id: position(&meta.node_fields, "id")?,
            node_size: position(&meta.node_fields, "self_size")?,
            node_edges: position(&meta.node_fields, "edge_count")?,
            node_kinds: names(meta.node_types.get(node_type), offset)?
                .map(NodeKind::named)
                .collect(),
            edge_fields: meta.edge_fields.len(),
            edge_type,
            edge_name: position(&meta.edge_fields, "name_or_index")?,
            edge_to: position(&meta.edge_fields, "to_node")?,
            edge_kinds: names(meta.edge_types.get(edge_type), offset)?
                .map(EdgeKind::named)
                .collect(),
            location_fields: meta.location_fields.len(),
            location_positions,
            declared_nodes: header.node_count,
            declared_edges: header.edge_count,
            extra_native_bytes: header.extra_native_bytes,
            root_index: header.root_index,
        })
    }
}

/// Reads one number for each field; `what` names the row in an error.
#[inline(always)]
fn read_row(cursor: &mut Cursor<'_>, row: &mut [u64], what: &str) -> Scan<()> {
    for (field, value) in row.iter_mut().enumerate() {
        if field != 0 && !cursor.next_item()? {
            return Err(Error::malformed(cursor.offset(), what).into());
        }
        *value = cursor.number()?;
    }
    Ok(())
}

/// The list of type names in `meta`.
fn names(
    value: Option<&serde_json::Value>,
    offset: usize,
) -> Result<impl Iterator<Item = &str>, Error> {
    let list = value.and_then(serde_json::Value::as_array);
    let list = list.ok_or_else(|| Error::malformed(offset, "a list of type names in meta"))?;
    Ok(list.iter().map(|name| name.as_str().unwrap_or_default()))
}

fn root_of(layout: &Layout, nodes: usize) -> Result<NodeOrdinal, Error> {
    let root = layout.root_index / layout.node_fields as u64;
    if root != 0 && root >= nodes as u64 {
        return Err(Error::malformed(0, "a root among the nodes"));
    }
    Ok(NodeOrdinal(root as u32))
}

fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The byte of a 1-based line and column.
fn offset_of(raw: &[u8], line: usize, column: usize) -> usize {
    let lines = raw.split_inclusive(|&byte| byte == b'\n').take(line.saturating_sub(1));
    lines.map(<[u8]>::len).sum::<usize>() + column.saturating_sub(1)
}

/// Division by a small number that is not known before run time, by one multiplication.
///
/// For a dividend below 2^48 and a divisor up to [`MAX_FIELDS`] the truncated product with
/// ceil(2^64 / divisor) is exact: the error is below dividend * divisor / 2^64 < 2^-12, less than 1 / divisor.
struct Reciprocal {
    divisor: u64,
    factor: u128,
}

impl Reciprocal {
    fn new(divisor: u64) -> Self {
        Self { divisor, factor: (1_u128 << 64).div_ceil(u128::from(divisor.max(1))) }
    }

    /// The quotient, or `None` when there is a remainder or the dividend is out of range.
    #[inline(always)]
    fn exactly(&self, dividend: u64) -> Option<u64> {
        let quotient = ((u128::from(dividend) * self.factor) >> 64) as u64;
        (dividend < 1 << 48 && quotient * self.divisor == dividend).then_some(quotient)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::drawing::Drawing;
    use super::*;
    use crate::heap::analysis::exercise;

    fn drawing() -> String {
        let mut heap = Drawing::new();
        let global = heap.node(NodeKind::Object, "global", 16);
        let closure = heap.node(NodeKind::Closure, "f", 32);
        let text = heap.node(NodeKind::String, "a \"quoted\" text", 24);
        heap.edge(0, EdgeKind::Shortcut, "global", global);
        heap.edge(global, EdgeKind::Property, "f", closure);
        heap.edge(closure, EdgeKind::Element, "3", text);
        heap.location(closure, 7, 11, 2);
        heap.json()
    }

    #[test]
    fn every_section_is_read() {
        let text = drawing();
        let columns = parse(text.as_bytes(), u64::MAX).unwrap();
        assert_eq!(columns.completeness, Completeness::Complete);
        assert_eq!(columns.node_kind.len(), 4);
        assert_eq!(columns.first_edge, [0, 1, 2, 3, 3]);
        assert_eq!(columns.edge_to, [1, 2, 3]);
        assert_eq!(columns.edge_kind[2], EdgeKind::Element);
        assert_eq!(columns.edge_name[2], 3);
        assert_eq!((columns.locations[0].line, columns.locations[0].column), (11, 2));
        let range = columns.strings_range;
        assert!(text[range].starts_with("\"\",\"global\""));
    }

    #[test]
    fn a_text_cut_anywhere_gives_what_it_held_and_says_where_it_ends() {
        let text = drawing();
        let whole = parse(text.as_bytes(), u64::MAX).unwrap();
        let nodes_at = text.find("\"nodes\"").unwrap();
        for cut in 0..text.trim_end().len() {
            match parse(&text.as_bytes()[..cut], u64::MAX) {
                Ok(columns) => {
                    let offset = cut as u64;
                    assert!(
                        matches!(columns.completeness, Completeness::Truncated { offset: at, .. } if at == offset)
                    );
                    assert!(whole.edge_to.starts_with(&columns.edge_to), "cut at {cut}");
                    assert!(whole.node_id.starts_with(&columns.node_id), "cut at {cut}");
                    assert_eq!(columns.first_edge.len(), columns.node_kind.len() + 1);
                }
                Err(Error::Empty { offset }) => assert!(offset <= nodes_at as u64),
                Err(error) => panic!("cut at {cut}: {error}"),
            }
            exercise(&text.as_bytes()[..cut]);
        }
    }

    #[test]
    fn a_break_of_the_format_is_told_with_its_offset() {
        let text = drawing();
        for (from, to, expected) in [
            ("\"edges\":[5", "\"edges\":[9", "an edge of a known type number"),
            ("1,6", "1,7", "an edge to a node of this file"),
            ("1,6", "1,600", "an edge to a node of this file"),
            ("\"edge_count\":3", "\"edge_count\":4", "edges in the header"),
            ("\"node_count\":4", "\"node_count\":3", "no more than the 3 nodes"),
            ("\"self_size\"", "\"other\"", "a field \"self_size\""),
        ] {
            let broken = text.replacen(from, to, 1);
            assert_ne!(broken, text, "{from}");
            let error = parse(broken.as_bytes(), u64::MAX).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("at byte"), "{from}: {error}");
        }
    }

    #[test]
    fn a_header_that_promises_too_much_reserves_no_more_than_the_text_could_hold() {
        let text = drawing().replace("\"node_count\":4", "\"node_count\":4000000000");
        let error = parse(text.as_bytes(), 1 << 20).unwrap_err().to_string();
        assert!(error.contains("4000000000 nodes"), "{error}");
    }

    #[test]
    fn unknown_sections_fields_and_types_are_skipped() {
        let text = drawing()
            .replace("\"nodes\":", "\"news\":{\"a\":[1,{\"b\":\"]\"}]},\"nodes\":")
            .replace("\"closure\"", "\"lambda\"");
        let columns = parse(text.as_bytes(), u64::MAX).unwrap();
        assert_eq!(columns.node_kind[2], NodeKind::Other);
    }

    proptest! {
        #[test]
        fn a_damaged_text_never_panics(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut text = drawing().into_bytes();
            for (index, byte) in changes {
                let at = index.index(text.len());
                text[at] = byte;
            }
            exercise(&text);
        }

        #[test]
        fn a_changed_number_never_panics(at in any::<prop::sample::Index>(), digits in "[0-9]{1,12}") {
            let text = drawing();
            let places: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
            let place = places[at.index(places.len())];
            let changed = format!("{}{digits}{}", &text[..place], &text[place + 1..]);
            exercise(changed.as_bytes());
        }

        #[test]
        fn division_by_multiplication_is_division(dividend in 0_u64..1 << 48, divisor in 1_u64..=MAX_FIELDS as u64) {
            let expected = (dividend % divisor == 0).then_some(dividend / divisor);
            prop_assert_eq!(Reciprocal::new(divisor).exactly(dividend), expected);
        }
    }
}
