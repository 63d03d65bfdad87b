'use strict';

/**
 * Counts listeners per emitter and event: for every EventEmitter and EventTarget whose list grows past
 * eight, and for those handed to `watch()`. Emitters are held weakly. It wraps what it finds on the
 * prototypes and hands every call on; it never throws into a caller, and a wrap of somebody else on top of
 * ours keeps working, also after `uninstall`. Of adds to shorter lists it hands a sample to `spread`.
 *
 * An add costs a few nanoseconds; a stack is taken only when a list grows to a new power of two, and for a sample.
 */

const { EventEmitter } = require('node:events');
const clock = require('./clock');
const { siteAbove, className } = require('./site');
const spread = require('./spread');

/** Lists shorter than this are not looked at. A power of two. */
const FIRST = 8;

/** Emitter-event pairs known at a time; those with the fewest listeners go first. */
const MAX_ENTRIES = 2048;

/** Rows of one report. */
const MAX_ROWS = 48;

/** Stacks taken in one second: thousands of emitters that grow together must not be felt. */
const STACKS_PER_SECOND = 50;

/**
 * @typedef {import('./site').Site} Site
 * @typedef {object} Entry
 * @property {number} key
 * @property {WeakRef<object>} ref
 * @property {string | symbol} type
 * @property {string} emitter class of the emitter, or the name given to `watch`
 * @property {number} highest longest list for which a stack was considered
 * @property {number} count at the last report
 * @property {Site | null} site
 * @property {(target: object, type: string | symbol) => number} read
 */

/** @type {Map<number, Entry>} */
const entries = new Map();
/** @type {WeakMap<object, Map<string | symbol, Entry>>} */
let byEmitter = new WeakMap();
/** @type {Set<{ ref: WeakRef<object>, name: string | undefined }>} */
const watched = new Set();
/** @type {WeakSet<object>} */
const ignored = new WeakSet();

let nextKey = 1;
let reported = false;
let active = false;
let stackSecond = 0;
let stacks = 0;
/** Adds to short lists until the next is sampled. */
let untilSample = 0;

/** @type {{ target: any, method: string, original: Function, wrapper: Function }[]} */
const wraps = [];

/** @type {symbol | undefined} */
let kEvents;

/** Starts counting. Safe twice. */
function install() {
  active = true;
  if (wraps.length > 0) return;
  const prototype = EventEmitter.prototype;
  const { on, addListener, prependListener } = prototype;
  const wrappedOn = wrapOn(on);
  wrap(prototype, 'on', on, wrappedOn);
  // In Node the two are one function; whoever compares them must still find them equal.
  wrap(prototype, 'addListener', addListener, addListener === on ? wrappedOn : wrapOn(addListener));
  wrap(prototype, 'prependListener', prependListener, wrapPrepend(prependListener));
  kEvents = eventsSymbol();
  if (kEvents !== undefined) {
    const { addEventListener } = EventTarget.prototype;
    wrap(EventTarget.prototype, 'addEventListener', addEventListener, wrapTarget(addEventListener));
  }
}

/** Stops counting and takes the wraps off where nobody has wrapped them since. */
function uninstall() {
  active = false;
  for (const { target, method, original, wrapper } of wraps.splice(0)) {
    if (target[method] === wrapper) define(target, method, original);
  }
  entries.clear();
  watched.clear();
  byEmitter = new WeakMap();
  spread.clear();
}

/**
 * @param {any} target
 * @param {string} method
 * @param {Function} original
 * @param {Function} wrapper
 */
function wrap(target, method, original, wrapper) {
  for (const property of ['name', 'length']) {
    const descriptor = Object.getOwnPropertyDescriptor(original, property);
    if (descriptor) Object.defineProperty(wrapper, property, descriptor);
  }
  try {
    define(target, method, wrapper);
    wraps.push({ target, method, original, wrapper });
  } catch {
    // Frozen intrinsics (--frozen-intrinsics): that class is not counted.
  }
}

/**
 * @param {any} target
 * @param {string} method
 * @param {Function} value
 */
function define(target, method, value) {
  const descriptor = Object.getOwnPropertyDescriptor(target, method);
  Object.defineProperty(target, method, { ...descriptor, value });
}

/**
 * What stands in for `on` and `addListener`. It and its neighbour make one function each, of which V8 knows what it
 * calls, and inlines that (`--trace-turbo-inlining`). Of two functions made of the same text it would not know.
 *
 * @param {Function} original
 */
function wrapOn(original) {
  /**
   * @this {any}
   * @param {string | symbol} type
   * @param {Function} listener
   * @param {unknown[]} more for a method that somebody else has put there
   */
  return function on(type, listener, ...more) {
    const result =
      more.length === 0
        ? original.call(this, type, listener)
        : original.call(this, type, listener, ...more);
    if (active) added(this, type, false, on);
    return result;
  };
}

/** @param {Function} original */
function wrapPrepend(original) {
  /**
   * @this {any}
   * @param {string | symbol} type
   * @param {Function} listener
   * @param {unknown[]} more
   */
  return function prependListener(type, listener, ...more) {
    const result =
      more.length === 0
        ? original.call(this, type, listener)
        : original.call(this, type, listener, ...more);
    if (active) added(this, type, true, prependListener);
    return result;
  };
}

/**
 * Looks at a list that has just grown.
 *
 * @param {any} emitter
 * @param {string | symbol} type
 * @param {boolean} first whether the new listener stands before the others
 * @param {Function} wrapper frames above it are ours
 */
function added(emitter, type, first, wrapper) {
  try {
    // One listener is the function itself, whose length is its number of parameters.
    const list = emitter._events[type];
    if (typeof list === 'object' && list.length >= FIRST) {
      const { length } = list;
      if ((length & (length - 1)) === 0) grown(emitter, type, length, wrapper, countEmitter);
    } else if (--untilSample < 0) {
      const listener = typeof list === 'function' ? list : first ? list[0] : list.at(-1);
      untilSample = sampled(emitter, type, listener, inEmitter, wrapper);
    }
  } catch {
    // An emitter that is none (a proxy, a subclass with its own store) is not counted.
  }
}

/** @param {Function} original */
function wrapTarget(original) {
  /**
   * @this {any}
   * @param {string} type
   * @param {unknown[]} more listener and options: how many were given tells Node what to check
   */
  return function addEventListener(type, ...more) {
    const result = original.call(this, type, ...more);
    if (active) {
      try {
        const size = this[/** @type {symbol} */ (kEvents)].get(type).size;
        if (size >= FIRST) {
          if ((size & (size - 1)) === 0) grown(this, type, size, addEventListener, countTarget);
        } else if (--untilSample < 0) {
          untilSample = sampled(this, type, undefined, inTarget, addEventListener);
        }
      } catch {
        // Not an EventTarget of Node's own making.
      }
    }
    return result;
  };
}

/** @returns {symbol | undefined} the key under which Node's EventTarget keeps its listeners */
function eventsSymbol() {
  try {
    const target = new EventTarget();
    const found = Object.getOwnPropertySymbols(target).find(
      (symbol) => symbol.description === 'kEvents',
    );
    if (found === undefined) return undefined;
    target.addEventListener('probe', () => {});
    // @ts-expect-error: a private field, checked here before it is relied upon.
    return target[found].get('probe').size === 1 ? found : undefined;
  } catch {
    return undefined;
  }
}

/**
 * @param {object} emitter
 * @param {string | symbol} type
 * @param {object | undefined} listener as the emitter keeps it
 * @param {import('./spread').Attached} attached
 * @param {Function} wrapper frames above it are ours
 */
function sampled(emitter, type, listener, attached, wrapper) {
  if (ignored.has(emitter)) return 0;
  return spread.sample(emitter, type, listener, attached, wrapper, () => nextKey++);
}

/** @type {import('./spread').Attached} lists that have grown long are counted by themselves */
function inEmitter(emitter, type, listener) {
  const list = emitter._events?.[type];
  return (
    list === listener || (Array.isArray(list) && list.length < FIRST && list.includes(listener))
  );
}

/** @type {import('./spread').Attached} */
function inTarget(target, type) {
  const size = countTarget(target, type);
  return size > 0 && size < FIRST;
}

/** @param {any} emitter @param {string | symbol} type */
function countEmitter(emitter, type) {
  const list = emitter._events?.[type];
  if (list === undefined) return 0;
  return typeof list === 'function' ? 1 : list.length;
}

/** @param {any} target @param {string | symbol} type */
function countTarget(target, type) {
  return target[/** @type {symbol} */ (kEvents)]?.get(type)?.size ?? 0;
}

/**
 * @param {object} emitter
 * @param {string | symbol} type
 * @param {number} length
 * @param {Function} wrapper frames above it are ours
 * @param {Entry['read']} read
 */
function grown(emitter, type, length, wrapper, read) {
  if (ignored.has(emitter)) return;
  const entry = find(emitter, type, read);
  // A list that swings around a power of two asks for one stack, not for one at each turn.
  if (length <= entry.highest) return;
  entry.highest = length;
  const site = takeSite(wrapper);
  if (site !== null) entry.site = site;
}

/**
 * @param {object} emitter
 * @param {string | symbol} type
 * @param {Entry['read']} read
 * @param {string} [name]
 * @returns {Entry}
 */
function find(emitter, type, read, name) {
  let types = byEmitter.get(emitter);
  if (types === undefined) {
    types = new Map();
    byEmitter.set(emitter, types);
  }
  let entry = types.get(type);
  if (entry === undefined) {
    entry = {
      key: nextKey++,
      ref: new WeakRef(emitter),
      type,
      emitter: name ?? className(emitter),
      highest: 0,
      count: 0,
      site: null,
      read,
    };
    types.set(type, entry);
    if (entries.size >= MAX_ENTRIES) dropLeast();
    entries.set(entry.key, entry);
  }
  return entry;
}

function dropLeast() {
  let least;
  for (const entry of entries.values()) {
    if (least === undefined || entry.count < least.count) least = entry;
  }
  if (least !== undefined) forget(least);
}

/** @param {Entry} entry */
function forget(entry) {
  entries.delete(entry.key);
  const emitter = entry.ref.deref();
  if (emitter !== undefined) byEmitter.get(emitter)?.delete(entry.type);
}

/**
 * The code that adds a listener, unless too many were asked for in this second.
 *
 * @param {Function} below frames from this function up are left out
 * @returns {Site | null}
 */
function takeSite(below) {
  const second = Math.floor(clock.now() / 1000);
  if (second !== stackSecond) {
    stackSecond = second;
    stacks = 0;
  }
  return stacks++ < STACKS_PER_SECOND ? siteAbove(below) : null;
}

/**
 * Counts the listeners of a target from now on, however few they are.
 *
 * @param {object} target EventEmitter or EventTarget
 * @param {string} [name] shown in place of its class
 * @returns {() => void} stops that
 */
function watch(target, name) {
  const one = { ref: new WeakRef(target), name };
  watched.add(one);
  return () => {
    watched.delete(one);
    for (const entry of byEmitter.get(target)?.values() ?? []) forget(entry);
  };
}

/** Leaves an emitter of our own out of all counts. @param {object} emitter */
function ignore(emitter) {
  ignored.add(emitter);
}

/** Brings the entries of watched targets up to date: their events may have come and gone. */
function findWatched() {
  for (const one of watched) {
    const target = one.ref.deref();
    if (target === undefined) {
      watched.delete(one);
    } else if (target instanceof EventEmitter) {
      for (const type of target.eventNames()) find(target, type, countEmitter, one.name);
    } else if (kEvents !== undefined) {
      // @ts-expect-error: checked by eventsSymbol.
      for (const type of target[kEvents]?.keys() ?? []) find(target, type, countTarget, one.name);
    } else {
      for (const type of ['abort', 'message', 'error', 'close'])
        find(target, type, countPublic, one.name);
    }
  }
}

/** @param {any} target @param {string | symbol} type */
function countPublic(target, type) {
  return require('node:events').getEventListeners(target, type).length;
}

/** Reports the lists with most listeners and the lines that add most. @param {any} native the native guard */
function report(native) {
  findWatched();
  untilSample = spread.relax() ?? untilSample;
  const thin = spread.report();
  // The last of them gone is news too.
  if (entries.size === 0 && thin.lines.length === 0 && !reported) return;
  reported = entries.size > 0 || thin.lines.length > 0;
  /** @type {Entry[]} */
  const alive = [];
  for (const entry of entries.values()) {
    const emitter = entry.ref.deref();
    if (emitter === undefined) {
      entries.delete(entry.key);
      continue;
    }
    try {
      entry.count = entry.read(emitter, entry.type);
    } catch {
      forget(entry);
      continue;
    }
    alive.push(entry);
  }
  alive.sort((a, b) => b.count - a.count);
  native.recordListeners([
    ...alive.slice(0, MAX_ROWS).map((entry) => ({
      key: entry.key,
      emitter: entry.emitter,
      event: String(entry.type).slice(0, 120),
      count: entry.count,
      ...entry.site,
    })),
    ...thin.lines.map(({ key, emitter, event, count, site }) => ({
      key,
      emitter,
      event,
      count: Math.min(count, 0xffff_ffff),
      ...site,
      round: thin.rounds,
    })),
  ]);
}

/** A major GC has just ended. */
function afterMajorGc() {
  if (active) spread.settle();
}

module.exports = { install, uninstall, watch, ignore, report, afterMajorGc };
