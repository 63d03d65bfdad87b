//! Which functions call which, as far as V8's type feedback remembers it: the slot of a call site keeps a weak
//! reference to the one function that was called there, and a snapshot has it.
//!
//! It knows no counts, and V8 forgets: a function that has not run for long loses its feedback, and a call site that
//! calls many functions has none of them. `x instanceof C` leaves the same mark as `new C()`. So what it names
//! is code that has to do with the matter, the nearest first, and an empty answer means nothing.

use rustc_hash::{FxHashMap, FxHashSet};

use super::graph::Graph;
use super::label::Labels;
use super::snapshot::{EdgeKind, NodeKind, NodeOrdinal};
use crate::report::Site;

/// Calls between the constructor and the app's code. `http.get` is six above the socket that it opens.
const MAX_LEVELS: usize = 8;

/// Functions of the app, or of the packages it uses, whose call sites lead to the constructor of `object` directly or
/// through Node's own functions: at most `most`, the nearest first.
pub fn makers_of(
    labels: &Labels<'_>,
    graph: &Graph,
    object: NodeOrdinal,
    most: usize,
) -> Vec<Site> {
    let Some(constructor) = constructor_of(labels, object) else { return Vec::new() };
    let called_in = call_sites(labels);
    let mut seen = FxHashSet::from_iter([constructor]);
    let mut sites: Vec<Site> = Vec::new();
    let mut level = vec![constructor];
    for _ in 0..MAX_LEVELS {
        let mut above = Vec::new();
        let vectors = level.iter().filter_map(|callee| called_in.get(callee)).flatten();
        for caller in vectors.filter_map(|&vector| function_of(labels, graph, vector)) {
            if !seen.insert(caller) {
                continue;
            }
            match labels.site(caller) {
                Some(site) if site.file.starts_with("node:") => above.push(caller),
                Some(site) if !sites.contains(&site) => sites.push(site),
                _ => {}
            }
        }
        if sites.len() >= most || above.is_empty() {
            break;
        }
        level = above;
    }
    sites.truncate(most);
    sites
}

/// The function that made an object: V8 gives both the same place in the code.
fn constructor_of(labels: &Labels<'_>, object: NodeOrdinal) -> Option<NodeOrdinal> {
    let snapshot = labels.snapshot;
    let made = snapshot.location(object)?;
    let place = (made.script_id, made.line, made.column);
    let mut closures = snapshot
        .columns
        .locations
        .iter()
        .filter(|location| snapshot.kind(location.node) == NodeKind::Closure);
    closures
        .find(|location| (location.script_id, location.line, location.column) == place)
        .map(|location| location.node)
}

/// For each function that some call site remembers, the feedback vectors that these are in.
fn call_sites(labels: &Labels<'_>) -> FxHashMap<NodeOrdinal, Vec<NodeOrdinal>> {
    let snapshot = labels.snapshot;
    let mut sites: FxHashMap<NodeOrdinal, Vec<NodeOrdinal>> = FxHashMap::default();
    let Some(name) = labels.known("system / FeedbackVector") else { return sites };
    for vector in snapshot.nodes().filter(|&node| snapshot.name(node) == name) {
        for edge in snapshot.edges(vector) {
            let callee = snapshot.target(edge);
            if snapshot.edge_kind(edge) == EdgeKind::Weak
                && snapshot.kind(callee) == NodeKind::Closure
            {
                sites.entry(callee).or_default().push(vector);
            }
        }
    }
    sites
}

/// One of the functions whose feedback a vector is; all of them are the same code.
fn function_of(labels: &Labels<'_>, graph: &Graph, vector: NodeOrdinal) -> Option<NodeOrdinal> {
    let name = labels.known("system / FeedbackCell")?;
    let retainers = |node: NodeOrdinal| {
        graph.retainers.of(node.0).iter().map(|&retainer| NodeOrdinal(retainer))
    };
    retainers(vector)
        .filter(|&cell| labels.snapshot.name(cell) == name)
        .flat_map(retainers)
        .find(|&closure| labels.snapshot.kind(closure) == NodeKind::Closure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::analysis::{Request, analyse};
    use crate::heap::drawing::Drawing;
    use crate::heap::graph::Parallelism;
    use crate::report::{Pattern, Suspect};

    const APP: u32 = 1;
    const NET: u32 = 2;
    const SOCKETS: usize = 200;

    /// A function at a line, of a script that is given by its number.
    fn function(heap: &mut Drawing, name: &str, script: u32, line: u32) -> usize {
        let closure = heap.node(NodeKind::Closure, name, 64);
        let shared = heap.node(NodeKind::Code, name, 40);
        let file = heap.node(NodeKind::Code, if script == APP { "app.js" } else { "node:net" }, 40);
        heap.edge(closure, EdgeKind::Internal, "shared", shared);
        heap.edge(shared, EdgeKind::Internal, "script", file);
        heap.edge(0, EdgeKind::Element, &closure.to_string(), closure);
        heap.location(closure, script, line - 1, 0);
        closure
    }

    /// `caller` has called `callee`.
    fn call(heap: &mut Drawing, caller: usize, callee: usize) {
        let cell = heap.node(NodeKind::Code, "system / FeedbackCell", 24);
        let vector = heap.node(NodeKind::Code, "system / FeedbackVector", 80);
        heap.edge(caller, EdgeKind::Internal, "feedback_cell", cell);
        heap.edge(cell, EdgeKind::Internal, "value", vector);
        heap.edge(vector, EdgeKind::Weak, "4", callee);
    }

    //  root -> (Global handles) -> TCP <-> Socket (node:net:363) x 200
    //  quote (app.js:13) calls connect (node:net:236), which calls Socket (node:net:363); so do `others`
    fn sockets(others: &[u32], accepted: bool, listener: bool) -> Suspect {
        let mut heap = Drawing::new();
        let constructor = function(&mut heap, "Socket", NET, 363);
        let connect = function(&mut heap, "connect", NET, 236);
        let quote = function(&mut heap, "quote", APP, 13);
        let idle = function(&mut heap, "idle", APP, 99);
        call(&mut heap, connect, constructor);
        call(&mut heap, quote, connect);
        call(&mut heap, idle, quote);
        for &line in others {
            let other = function(&mut heap, "other", APP, line);
            call(&mut heap, other, connect);
        }
        let server = heap.node(NodeKind::Object, "Server", 100);
        heap.edge(0, EdgeKind::Element, "1", server);
        let handles = heap.node(NodeKind::Synthetic, "(Global handles)", 0);
        heap.edge(0, EdgeKind::Element, "2", handles);
        for index in 0..SOCKETS {
            let tcp = heap.node(NodeKind::Object, "TCP", 56);
            let socket = heap.node(NodeKind::Object, "Socket", 1000);
            heap.edge(handles, EdgeKind::Element, &index.to_string(), tcp);
            heap.edge(tcp, EdgeKind::Property, "<symbol owner_symbol>", socket);
            heap.edge(socket, EdgeKind::Property, "<symbol kHandle>", tcp);
            heap.location(socket, NET, 362, 0);
            if accepted {
                heap.edge(socket, EdgeKind::Property, "server", server);
            }
            if listener {
                let events = heap.node(NodeKind::Object, "Object", 40);
                let on_error = heap.node(NodeKind::Closure, "onError", 64);
                let shared = heap.node(NodeKind::Code, "onError", 40);
                heap.edge(socket, EdgeKind::Property, "_events", events);
                heap.edge(events, EdgeKind::Property, "error", on_error);
                heap.edge(on_error, EdgeKind::Internal, "shared", shared);
                heap.location(on_error, APP, 20, 0);
            }
        }
        // What listens is a handle too, and its owner holds code of the app.
        let listening = heap.node(NodeKind::Object, "TCP", 56);
        let on_request = function(&mut heap, "onRequest", APP, 70);
        heap.edge(handles, EdgeKind::Element, "1000", listening);
        heap.edge(listening, EdgeKind::Property, "<symbol owner_symbol>", server);
        heap.edge(server, EdgeKind::Property, "onRequest", on_request);
        heap.location(server, NET, 1700, 0);
        let (snapshot, graph) = heap.open();
        let request = Request {
            top: 5,
            suspects: 5,
            paths: Vec::new(),
            classes: Vec::new(),
            parallelism: Parallelism::Single,
        };
        analyse("app", &snapshot, &graph, &request, &[], &mut |_| {}).suspects.swap_remove(0)
    }

    fn sites(suspect: &Suspect) -> Vec<(&str, u32, u64)> {
        let sites = suspect.item_sites.iter();
        sites.map(|each| (each.site.function.as_str(), each.site.line, each.count)).collect()
    }

    #[test]
    fn open_sockets_are_told_by_the_function_that_opens_them() {
        let suspect = sockets(&[], false, false);
        assert_eq!(suspect.pattern, Pattern::Handles);
        assert_eq!(
            suspect.sentence,
            "Open handles: 201 of them of TCP, owned by Socket, 206 KB, 99 % of the heap; made by quote, app.js:13"
        );
        assert_eq!(sites(&suspect), [("quote", 13, 200), ("Socket", 363, 200)]);
    }

    #[test]
    fn of_several_functions_that_open_such_none_is_said_to_have_opened_all() {
        let suspect = sockets(&[40, 50], false, false);
        assert!(suspect.sentence.contains("; such are made by "), "{}", suspect.sentence);
        let mut found = sites(&suspect);
        found.sort_by_key(|&(_, line, _)| line);
        assert_eq!(
            found,
            [("quote", 13, 0), ("other", 40, 0), ("other", 50, 0), ("Socket", 363, 200)]
        );
    }

    #[test]
    fn a_listener_of_the_app_tells_more_than_who_opens_sockets() {
        let suspect = sockets(&[], false, true);
        assert_eq!(sites(&suspect), [("onError", 21, 200), ("Socket", 363, 200)]);
    }

    #[test]
    fn of_sockets_that_a_server_accepted_nobody_is_said_to_have_opened_them() {
        assert_eq!(sites(&sockets(&[], true, false)), [("Socket", 363, 200)]);
    }
}
