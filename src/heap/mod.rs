//! Heap snapshots: parser, graph, dominators, suspects, comparison, redaction. Pure but for opening files.
