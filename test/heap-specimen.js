'use strict';
// A heap with every shape the analyzer has rules for, written to the file named on the command line: WeakMaps and
// their ephemerons, WeakRefs, vm contexts, shared closure contexts, a worker, cycles, deep chains, sliced and
// concatenated strings, array buffers, symbols, accessors, proxies, unreachable natives.
const v8 = require('node:v8');
const vm = require('node:vm');
const { Worker } = require('node:worker_threads');
const { EventEmitter } = require('node:events');
const zlib = require('node:zlib');

const count = Number(process.argv[3] ?? 2000);
/** @type {Record<string, any>} */
const kept = {};

class Customer {
  /** @param {number} index */
  constructor(index) {
    this.name = `customer ${index}`;
    /** @type {Order[]} */
    this.orders = [];
  }
}
class Order {
  /**
   * @param {Customer} customer
   * @param {number} index
   */
  constructor(customer, index) {
    this.customer = customer;
    this.total = index * 1.25;
    customer.orders.push(this);
  }
}

kept.customers = new Map();
kept.weak = new WeakMap();
kept.weakSet = new WeakSet();
kept.weakRefs = [];
kept.keys = [];
for (let index = 0; index < count; index++) {
  const customer = new Customer(index);
  for (let order = 0; order < 3; order++) new Order(customer, order);
  kept.customers.set(customer.name, customer);
  const key = { key: index };
  if (index % 3 !== 0) kept.keys.push(key);
  kept.weak.set(key, { value: index, back: customer });
  // A chain of ephemerons: the value is the next table's key.
  const second = new WeakMap();
  second.set(customer, key);
  if (index % 10 === 0) kept.keys.push(second);
  kept.weakSet.add(customer);
  kept.weakRefs.push(new WeakRef(customer));
}

// Closures that share one context, of which one variable is large.
kept.closures = [];
for (let index = 0; index < count / 4; index++) {
  const large = new Array(20).fill(index);
  const small = { index };
  kept.closures.push(
    () => large.length,
    () => small.index,
    () => large[0] + small.index,
  );
}

// A closure chain and a linked list: deep dominator trees.
/** @type {() => unknown} */
let chain = () => 0;
/** @type {unknown} */
let list = null;
for (let index = 0; index < count; index++) {
  const previous = chain;
  chain = () => previous;
  list = { next: list, index };
}
kept.chain = chain;
kept.list = list;

kept.contexts = [];
for (let index = 0; index < 4; index++) {
  const context = vm.createContext({ shared: kept.customers, index });
  vm.runInContext(
    'var own = []; for (let i = 0; i < 500; i++) own.push({ i, shared }); function f() { return own; }',
    context,
  );
  kept.contexts.push(context);
}
vm.runInContext('own = null', kept.contexts[3]);
kept.contexts.pop();

kept.buffers = [];
for (let index = 0; index < 50; index++) {
  kept.buffers.push(Buffer.alloc(5000, index), new Float64Array(100), new SharedArrayBuffer(64));
}
kept.text = [];
const base = 'x'.repeat(3000);
for (let index = 0; index < 300; index++) {
  kept.text.push(
    base.slice(index, index + 200),
    `${base}${index}`,
    `"quoted\\ \u00e9 \u{1f600} \u0000 ${index}`,
  );
}
kept.bigints = Array.from({ length: 50 }, (_, index) => 2n ** BigInt(100 + index));
kept.symbols = Array.from({ length: 50 }, (_, index) => Symbol(`symbol ${index}`));
kept.regexps = Array.from({ length: 50 }, (_, index) => new RegExp(`a${index}+b`));
kept.proxies = Array.from({ length: 20 }, (_, index) => new Proxy({ index }, {}));
kept.dictionary = {};
for (let index = 0; index < count; index++)
  kept.dictionary[`key ${(index * 7919) % 100003}`] = { index };
kept.accessors = {
  get big() {
    return kept;
  },
  set big(value) {
    kept.big = value;
  },
};
kept.emitter = new EventEmitter();
kept.emitter.setMaxListeners(0);
for (let index = 0; index < 100; index++) kept.emitter.on('tick', () => index);
kept.target = new EventTarget();
for (let index = 0; index < 50; index++) kept.target.addEventListener('tick', () => index);
kept.promises = Array.from({ length: 100 }, (_, index) => {
  const pending = new Promise(() => {});
  pending.then(() => index);
  return pending;
});
kept.gzip = zlib.createGzip();
kept.registry = new FinalizationRegistry(() => {});
kept.registry.register({}, 'gone');
const timer = setTimeout(() => kept, 1e6);

// @ts-expect-error a name of its own, to keep all of it alive
global.specimen = kept;

const worker = new Worker(
  'const m = new Map(); for (let i = 0; i < 1000; i++) m.set(i, { i }); global.m = m; ' +
    "require('node:worker_threads').parentPort.on('message', (file) => { require('node:v8').writeHeapSnapshot(file); " +
    "require('node:worker_threads').parentPort.postMessage('done'); })",
  { eval: true },
);
worker.on('online', () => {
  v8.writeHeapSnapshot(process.argv[2]);
  if (!process.argv[4]) return void finish();
  worker.postMessage(process.argv[4]);
  worker.on('message', finish);
});

function finish() {
  clearTimeout(timer);
  worker.terminate();
}
