'use strict';

// Makes the corpus that fuzzing starts from: small heaps of every node and edge type, with contexts, collections,
// WeakMap entries, listeners and chains. `node fuzz/seeds.js DIRECTORY`.

const fs = require('node:fs');
const path = require('node:path');

const NODE_TYPES = [
  'hidden',
  'array',
  'string',
  'object',
  'code',
  'closure',
  'regexp',
  'number',
  'native',
  'synthetic',
  'concatenated string',
  'sliced string',
  'symbol',
  'bigint',
  'object shape',
];
const EDGE_TYPES = ['context', 'element', 'property', 'internal', 'hidden', 'shortcut', 'weak'];

/** A heap as text, with the seven node fields of Node 22 or the six of Node 24. */
class Heap {
  constructor(fields) {
    this.fields = fields;
    this.nodes = [];
    this.strings = [''];
    this.locations = [];
  }

  string(text) {
    const at = this.strings.indexOf(text);
    return at >= 0 ? at : this.strings.push(text) - 1;
  }

  node(type, name, size = 16) {
    return (
      this.nodes.push({
        type: NODE_TYPES.indexOf(type),
        name: this.string(name),
        size,
        edges: [],
      }) - 1
    );
  }

  edge(from, type, name, to) {
    const indexed = type === 'element' || type === 'hidden';
    this.nodes[from].edges.push([
      EDGE_TYPES.indexOf(type),
      indexed ? name : this.string(String(name)),
      to,
    ]);
  }

  text() {
    const width = this.fields.length;
    const nodes = this.nodes.map((node, index) => {
      const row = {
        type: node.type,
        name: node.name,
        id: 2 * index + 1,
        self_size: node.size,
        edge_count: node.edges.length,
      };
      return this.fields.map((field) => row[field] ?? 0).join(',');
    });
    const edges = this.nodes.flatMap((node) =>
      node.edges.map(([type, name, to]) => [type, name, to * width].join(',')),
    );
    const locations = this.locations.map(([node, ...place]) => [node * width, ...place].join(','));
    const meta = {
      node_fields: this.fields,
      node_types: [NODE_TYPES, 'string', 'number', 'number', 'number', 'number', 'number'],
      edge_fields: ['type', 'name_or_index', 'to_node'],
      edge_types: [EDGE_TYPES, 'string_or_number', 'node'],
      location_fields: ['object_index', 'script_id', 'line', 'column'],
    };
    const header = {
      meta,
      node_count: nodes.length,
      edge_count: edges.length,
      extra_native_bytes: 5,
    };
    return (
      `{"snapshot":${JSON.stringify(header)},\n"nodes":[${nodes.join('\n,')}],\n"edges":[${edges.join('\n,')}],\n` +
      `"trace_function_infos":[],"trace_tree":[],"samples":[],\n"locations":[${locations.join('\n,')}],\n` +
      `"strings":[${this.strings.map((text) => JSON.stringify(text)).join(',\n')}]}\n`
    );
  }
}

/** Root, global, a function of app.js and its context. */
function base(fields) {
  const heap = new Heap(fields);
  const root = heap.node('synthetic', '', 0);
  const global = heap.node('object', 'global');
  const closure = heap.node('closure', 'serve');
  const shared = heap.node('code', 'serve');
  const script = heap.node('code', 'app.js');
  const context = heap.node('object', 'system / Context');
  heap.edge(root, 'shortcut', 'global', global);
  heap.edge(global, 'property', 'serve', closure);
  heap.edge(closure, 'internal', 'shared', shared);
  heap.edge(shared, 'internal', 'script', script);
  heap.edge(closure, 'internal', 'context', context);
  heap.locations.push([closure, 7, 11, 4]);
  return { heap, root, global, context };
}

const SEEDS = {
  map({ heap, context }) {
    const map = heap.node('object', 'Map');
    const table = heap.node('array', '');
    heap.edge(context, 'context', 'cache', map);
    heap.edge(map, 'internal', 'table', table);
    for (let index = 0; index < 20; index++) {
      heap.edge(table, 'internal', `${index}`, heap.node('object', 'Page', 400));
    }
  },
  listeners({ heap, context }) {
    const [emitter, events, list, elements] = [
      'EventEmitter',
      'Object',
      'Array',
      '(object elements)',
    ].map((name) => heap.node(name.startsWith('(') ? 'array' : 'object', name));
    heap.edge(context, 'context', 'bus', emitter);
    heap.edge(emitter, 'property', '_events', events);
    heap.edge(events, 'property', 'tick', list);
    heap.edge(list, 'internal', 'elements', elements);
    for (let index = 0; index < 18; index++) {
      const closure = heap.node('closure', 'onTick', 64);
      heap.locations.push([closure, 7, 20, 1]);
      heap.edge(elements, 'element', index, closure);
    }
  },
  chain({ heap, context }) {
    let above = heap.node('object', 'Link');
    heap.edge(context, 'context', 'latest', above);
    for (let index = 0; index < 20; index++) {
      const next = heap.node('object', 'Link', 100);
      heap.edge(above, 'property', 'next', next);
      above = next;
    }
    heap.edge(above, 'weak', 'back', context);
  },
  ephemerons({ heap, global }) {
    const [table, key, value] = ['WeakMap', 'Key', 'Value "quoted"'].map((name) =>
      heap.node('object', name),
    );
    heap.edge(global, 'property', 'weak', table);
    heap.edge(global, 'property', 'key', key);
    const name = (n) =>
      `${n} / part of key (Key @${2 * key + 1}) -> value (Value @${2 * value + 1}) pair in WeakMap (table @${2 * table + 1})`;
    heap.edge(table, 'internal', name(1), value);
    heap.edge(key, 'internal', name(2), value);
  },
  unreachable({ heap, root }) {
    const [a, b, c] = ['A', 'B', 'C'].map((name) => heap.node('object', name, 3e9));
    heap.edge(a, 'property', 'b', b);
    heap.edge(b, 'property', 'a', a);
    heap.edge(root, 'weak', 'c', c);
    const trees = heap.node('synthetic', '(Document DOM trees)');
    heap.edge(root, 'element', 1, trees);
    heap.edge(trees, 'element', 1, heap.node('native', 'Detached <div class="x">', 8));
  },
  types({ heap, global }) {
    for (const [index, type] of NODE_TYPES.entries()) {
      const node = heap.node(type, `${type} \u00e9\u{1f600} \\ "\n"`);
      heap.edge(global, EDGE_TYPES[index % EDGE_TYPES.length], index, node);
    }
    const descriptors = heap.node('array', '(map descriptors)');
    heap.edge(global, 'internal', 'map', descriptors);
    for (let index = 0; index < 6; index++)
      heap.edge(descriptors, 'internal', `${index}`, heap.node('hidden', 'system / X'));
    const native = heap.node('hidden', 'system / NativeContext');
    heap.edge(global, 'internal', 'native_context', native);
    heap.edge(native, 'internal', 'sloppy_function_map', descriptors);
  },
};

const directory = process.argv[2];
fs.mkdirSync(directory, { recursive: true });
const SIX = ['type', 'name', 'id', 'self_size', 'edge_count', 'detachedness'];
const SEVEN = [...SIX.slice(0, 5), 'trace_node_id', 'detachedness'];
for (const [name, draw] of Object.entries(SEEDS)) {
  for (const fields of [SIX, SEVEN]) {
    const drawing = base(fields);
    draw(drawing);
    fs.writeFileSync(path.join(directory, `${name}-${fields.length}`), drawing.heap.text());
  }
}
