// What the oracle uses of DevTools: the graph and its loader, nothing of the user interface.
export * as HeapSnapshot from 'chrome-devtools-frontend/front_end/entrypoints/heap_snapshot_worker/HeapSnapshot.js';
export * as HeapSnapshotLoader from 'chrome-devtools-frontend/front_end/entrypoints/heap_snapshot_worker/HeapSnapshotLoader.js';
