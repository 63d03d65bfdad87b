//! Small heaps for tests, drawn by names and written as the JSON text that V8 would write.

use super::file::Bytes;
use super::graph::{Graph, Parallelism};
use super::snapshot::{EdgeKind, NodeKind, Snapshot};

/// A heap under construction. Node 0 is the root.
pub struct Drawing {
    nodes: Vec<(NodeKind, String, u64, u32)>,
    edges: Vec<(usize, EdgeKind, String, usize)>,
    locations: Vec<(usize, u32, u32, u32)>,
    next_id: u32,
}

impl Drawing {
    /// A root and nothing else.
    pub fn new() -> Self {
        let mut drawing =
            Self { nodes: Vec::new(), edges: Vec::new(), locations: Vec::new(), next_id: 1 };
        drawing.node(NodeKind::Synthetic, "", 0);
        drawing
    }

    /// Lets ids of later nodes begin here.
    pub fn ids_from(&mut self, id: u32) {
        self.next_id = id;
    }

    /// Adds a node with the next odd id.
    pub fn node(&mut self, kind: NodeKind, name: &str, size: u64) -> usize {
        let id = self.next_id;
        self.next_id += 2;
        self.nodes.push((kind, name.to_owned(), size, id));
        self.nodes.len() - 1
    }

    /// Adds an edge; the name of an indexed one is its number.
    pub fn edge(&mut self, from: usize, kind: EdgeKind, name: &str, to: usize) {
        self.edges.push((from, kind, name.to_owned(), to));
    }

    /// Places a node in the code, 0-based.
    pub fn location(&mut self, node: usize, script: u32, line: u32, column: u32) {
        self.locations.push((node, script, line, column));
    }

    /// The text of a snapshot file, with the six node fields of Node 24.
    pub fn json(&self) -> String {
        let mut strings: Vec<&str> = vec![""];
        let mut string = |text| match strings.iter().position(|each| *each == text) {
            Some(at) => at,
            None => {
                strings.push(text);
                strings.len() - 1
            }
        };
        let mut nodes: Vec<String> = Vec::new();
        let mut edges: Vec<String> = Vec::new();
        for (index, (kind, name, size, id)) in self.nodes.iter().enumerate() {
            let own = self.edges.iter().filter(|edge| edge.0 == index);
            nodes.push(format!(
                "{},{},{id},{size},{},0",
                *kind as u8,
                string(name),
                own.clone().count()
            ));
            for (_, kind, name, to) in own {
                let name = if kind.is_indexed() { name.parse().unwrap() } else { string(name) };
                edges.push(format!("{},{name},{}", *kind as u8, to * 6));
            }
        }
        let locations = self
            .locations
            .iter()
            .map(|(node, script, line, column)| format!("{},{script},{line},{column}", node * 6));
        let locations: Vec<String> = locations.collect();
        let names = |names: Vec<&str>| serde_json::to_string(&names).unwrap();
        format!(
            concat!(
                r#"{{"snapshot":{{"meta":{{"node_fields":["type","name","id","self_size","edge_count","detachedness"],"#,
                r#""node_types":[{},"string","number","number","number","number"],"#,
                r#""edge_fields":["type","name_or_index","to_node"],"edge_types":[{},"string_or_number","node"],"#,
                r#""location_fields":["object_index","script_id","line","column"]}},"node_count":{},"edge_count":{}}},"#,
                "\n\"nodes\":[{}],\n\"edges\":[{}],\n\"trace_function_infos\":[],\"trace_tree\":[],\"samples\":[],",
                "\"locations\":[{}],\n\"strings\":{}}}\n"
            ),
            names(NodeKind::ALL.iter().map(|kind| kind.name()).collect()),
            names(EdgeKind::ALL.iter().map(|kind| kind.name()).collect()),
            self.nodes.len(),
            edges.len(),
            nodes.join("\n,"),
            edges.join(","),
            locations.join(","),
            serde_json::to_string(&strings).unwrap(),
        )
    }

    /// Parsed, with its graph.
    pub fn open(&self) -> (Snapshot, Graph) {
        let snapshot = Snapshot::parse(Bytes::Owned(self.json().into_bytes()), u64::MAX).unwrap();
        let graph = Graph::new(&snapshot, Parallelism::Single);
        (snapshot, graph)
    }
}
