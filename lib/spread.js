'use strict';

/**
 * Listeners spread thinly: one on each of many emitters that are never dropped, where no single list grows. Adds
 * to short lists are sampled at random; a sample holds emitter and listener weakly and stands for as many adds as
 * were made per sample at its time. What two major GCs have left attached counts for the line that added it. It keeps
 * and counts; whether a line grows is judged natively.
 *
 * WeakRef, not FinalizationRegistry: the question is who is still there, asked once after each major GC, and not who
 * went; a registry would keep a cell and a task for each of the many that die. Making or reading a WeakRef keeps its
 * target until the job ends, and reading one while V8 marks keeps it for that GC: so a sample is read only
 * just after a GC, and never sooner than the second one after it was taken.
 */

const { random } = require('./chance');
const clock = require('./clock');
const { siteAbove, className } = require('./site');

/** Stacks taken in one span before samples are made half as frequent. */
const SAMPLES_PER_SPAN = 8;

/** Milliseconds. With the above at most some four stacks a second: 0.04 % of a core. */
const SPAN_MS = 2_000;

/** Adds of a listener without a frame of the app on the stack, after which it is taken for one of Node's own. */
const TIMES_OWN = 2;

/** Of the samples of such a listener one in so many is looked at all the same. */
const OWN_STRIDE = 16;

/** Adds that one sample stands for at most. A power of two. */
const MAX_STRIDE = 2 ** 20;

/** Samples between two major GCs. Until then each may keep a request with all that hangs on it. */
const MAX_YOUNG = 128;

/** Samples that outlived GCs. Above it every other one of a line goes, and the rest stands for twice as many. */
const MAX_KEPT = 1024;

/** A line with fewer samples than this is not reported: its count would be chance. */
const LEAST_SAMPLES = 8;

/** Lines of one report. */
const MAX_LINES = 12;

/**
 * @typedef {import('./site').Site} Site
 * @typedef {(emitter: any, type: string | symbol, listener: object | undefined) => boolean} Attached
 *
 * @typedef {object} Line one line of code that adds to emitters of one class
 * @property {number} key
 * @property {string} emitter class of the emitters
 * @property {string} event `*` if there are several
 * @property {Site} site
 * @property {number} samples that two GCs have left
 * @property {number} count adds they stand for
 * @property {boolean} used whether any sample, old or young, is of this line
 *
 * @typedef {object} Sample
 * @property {WeakRef<object>} emitter
 * @property {string | symbol} type
 * @property {WeakRef<object> | null} listener null where the emitter does not show it
 * @property {Attached} attached
 * @property {number} weight adds it stands for
 * @property {Line} line
 */

/** @type {Sample[]} since the last major GC */
let young = [];
/** @type {Sample[]} from between the last two */
let older = [];
/** @type {Sample[]} that were attached after the second */
let kept = [];
/** @type {Map<string, Line>} */
const lines = new Map();

/**
 * Listeners of Node itself, on its sockets and streams: how often they were added without a frame of the app on the
 * stack. In an Express app they are half of all that is added, and each would cost a stack that tells nothing.
 *
 * @type {WeakMap<object, number>}
 */
let own = new WeakMap();

let stride = 1;
let taken = 0;
let spanBegan = 0;
let rounds = 0;

/** @returns {number} adds to pass over until the next sample: geometric, so that no rhythm of the app evades it */
function gap() {
  return stride === 1 ? 0 : Math.floor(Math.log(random()) / Math.log1p(-1 / stride));
}

/**
 * Takes a sample of an add to a short list.
 *
 * @param {object} emitter
 * @param {string | symbol} type
 * @param {object | undefined} listener as the emitter keeps it
 * @param {Attached} attached
 * @param {Function} below frames from this function up are left out
 * @param {() => number} newKey
 * @returns {number} adds to pass over until the next
 */
function sample(emitter, type, listener, attached, below, newKey) {
  const called = /** @type {any} */ (listener)?.listener ?? listener;
  const times = called === undefined ? 0 : (own.get(called) ?? 0);
  if (times >= TIMES_OWN && random() * OWN_STRIDE >= 1) return gap();
  const weight = stride;
  pace();
  const site = siteAbove(below);
  // Node's own listeners come and go with its sockets and streams.
  if (site === null) {
    if (called !== undefined) own.set(called, times + 1);
    return gap();
  }
  if (times > 0) own.delete(called);
  young.push({
    emitter: new WeakRef(emitter),
    type,
    listener: listener === undefined ? null : new WeakRef(listener),
    attached,
    weight,
    line: lineOf(site, emitter, type, newKey),
  });
  if (young.length > MAX_YOUNG) {
    young = everyOther(young);
    stride = Math.min(2 * stride, MAX_STRIDE);
  }
  return gap();
}

/** Half as many samples as soon as they are too frequent. */
function pace() {
  const now = clock.now();
  if (taken === 0) spanBegan = now;
  if (++taken < SAMPLES_PER_SPAN) return;
  taken = 0;
  if (now - spanBegan < SPAN_MS) stride = Math.min(2 * stride, MAX_STRIDE);
}

/**
 * Twice as many samples once they have become rare; called now and then.
 *
 * @returns {number | null} a new distance to the next sample, null if nothing changed
 */
function relax() {
  const now = clock.now();
  if (stride === 1 || now - spanBegan < 2 * SPAN_MS) return null;
  stride /= 2;
  taken = 0;
  spanBegan = now;
  return gap();
}

/**
 * @param {Site} site
 * @param {object} emitter
 * @param {string | symbol} type
 * @param {() => number} newKey
 */
function lineOf(site, emitter, type, newKey) {
  const name = className(emitter);
  const event = String(type).slice(0, 120);
  const identity = `${site.file}:${site.line}:${site.column} ${name}`;
  let line = lines.get(identity);
  if (line === undefined) {
    line = { key: newKey(), emitter: name, event, site, samples: 0, count: 0, used: true };
    lines.set(identity, line);
  } else if (line.event !== event) {
    line.event = '*';
  }
  return line;
}

/** Counts what is still attached. Called just after a major GC, on the JS thread. */
function settle() {
  rounds++;
  for (const line of lines.values()) {
    line.samples = 0;
    line.count = 0;
    line.used = false;
  }
  /** @type {Map<object, Sample[]>} */
  const seen = new Map();
  const still = (/** @type {Sample} */ one) => isStillThere(one, seen);
  // What was there already stands first: a listener taken off and put on again is the same one.
  kept = kept.filter(still);
  for (const one of older) if (still(one)) kept.push(one);
  if (kept.length > MAX_KEPT) kept = everyOther(kept);
  older = young;
  young = [];
  for (const { line } of older) line.used = true;
  for (const { line, weight } of kept) {
    line.used = true;
    line.samples++;
    line.count += weight;
  }
  for (const [identity, line] of lines) if (!line.used) lines.delete(identity);
}

/**
 * @param {Sample} one
 * @param {Map<object, Sample[]>} seen samples of each emitter that are there, to count none twice
 */
function isStillThere(one, seen) {
  const emitter = one.emitter.deref();
  if (emitter === undefined) return false;
  const listener = one.listener?.deref();
  if (one.listener !== null && listener === undefined) return false;
  try {
    if (!one.attached(emitter, one.type, listener)) return false;
  } catch {
    return false;
  }
  const others = seen.get(emitter);
  if (others === undefined) {
    seen.set(emitter, [one]);
    return true;
  }
  if (others.some((other) => other.type === one.type && other.listener?.deref() === listener))
    return false;
  others.push(one);
  return true;
}

/**
 * Every other sample of each line, for twice as many adds. Not by chance, which would move the counts.
 *
 * @param {Sample[]} samples
 */
function everyOther(samples) {
  /** @type {Set<Line>} lines whose last sample was left out */
  const out = new Set();
  return samples.filter((one) => {
    if (!out.delete(one.line)) {
      out.add(one.line);
      return false;
    }
    one.weight *= 2;
    return true;
  });
}

/** @returns {{ lines: Line[], rounds: number }} those with most listeners, and the major GCs that were counted after */
function report() {
  const known = [...lines.values()].filter((line) => line.samples >= LEAST_SAMPLES);
  known.sort((a, b) => b.count - a.count);
  return { lines: known.slice(0, MAX_LINES), rounds };
}

function clear() {
  young = [];
  older = [];
  kept = [];
  lines.clear();
  own = new WeakMap();
}

module.exports = { sample, relax, settle, report, clear };
