'use strict';

/**
 * V8's sampling heap profiler, as the native thread orders it: begin, read, read and end. Loaded with the first
 * order, because it loads `node:inspector`. It samples nothing that somebody else began, and ends only its own.
 *
 * V8 has one sampling profiler per isolate for all inspector sessions, and a second start is silently nothing. So the
 * profiler is asked first whether it runs, and ours holds a mark: an object so large that V8 samples it for certain,
 * allocated by a function of this file. A profile without it is not ours, whoever ended ours meanwhile.
 *
 * The session stays connected for the life of its isolate: disconnecting any session makes V8 number all heap objects
 * anew, and the snapshots before and after could no longer be compared.
 */

const path = require('node:path');
const clock = require('./clock');

/** Longest text of a reading, characters. */
const MAX_TEXT = 4 * 1024 * 1024;

/** The mark in intervals: V8 passes it over once in 10^7. */
const MARK_INTERVALS = 16;

/** Directory of this package, with a separator at its end. */
const OWN = path.join(__dirname, '..', path.sep);

/**
 * What V8 answers; the types of Node leave out ids and samples.
 *
 * @typedef {object} HeapNode
 * @property {import('node:inspector').Runtime.CallFrame} callFrame
 * @property {number} selfSize
 * @property {number} id
 * @property {HeapNode[]} children
 *
 * @typedef {object} HeapProfile
 * @property {HeapNode} head
 * @property {{ size: number, nodeId: number, ordinal: number }[]} samples
 */

/** @type {import('node:inspector').Session | null} */
let session = null;

/** @type {number[] | null} held while our profile runs */
let mark = null;

/** Why something was not done. */
class Refusal extends Error {
  /**
   * @param {'busy' | 'unavailable' | 'failed'} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const REPLACED = 'the app or another tool ended this profile, or began one of its own';

/**
 * Does what the native thread has ordered.
 *
 * @param {any} native the native guard
 */
function doOrders(native) {
  for (let order = native.takeProfileOrder(); order !== null; order = native.takeProfileOrder()) {
    const [run, what, interval, atLimit] = order;
    const began = clock.now();
    try {
      const text = obey(what, interval, atLimit);
      native.profileAnswer(run, what, text, clock.now() - began);
    } catch (error) {
      const code = error instanceof Refusal ? error.code : 'failed';
      const message = error instanceof Error ? error.message : String(error);
      native.profileFailed(run, code, message);
    }
  }
}

/**
 * @param {string} what
 * @param {number} interval
 * @param {boolean} atLimit
 * @returns {string | undefined} a reading; of `begin` the directory of a profile at V8's heap limit
 */
function obey(what, interval, atLimit) {
  if (what === 'begin') {
    begin(interval);
    return atLimit ? profileAtLimit() : undefined;
  }
  if (what === 'stop') {
    end();
    return undefined;
  }
  const last = what === 'finish';
  const profile = readOurs();
  // Ending is another major GC: in a turn of its own, so that two stops do not become one long one.
  if (last) setImmediate(endOurs);
  return toText(profile, last);
}

/** @param {number} interval mean distance of samples, bytes */
function begin(interval) {
  connect();
  if (mark !== null) throw new Refusal('busy', 'a profile is under way');
  if (read() !== null) throw new Refusal('busy', 'the app or another tool samples allocations');
  command('HeapProfiler.startSampling', { samplingInterval: interval });
  mark = leaveMark((interval * MARK_INTERVALS) / 8);
}

function connect() {
  if (session !== null) return;
  try {
    const { Session } = require('node:inspector');
    const fresh = new Session();
    fresh.connect();
    session = fresh;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Refusal('unavailable', `node:inspector cannot be used: ${why}`);
  }
}

/**
 * Has Node (26 and later) write the profile once more when V8 reaches its heap limit, from inside the allocation that
 * reached it: the one way to see a loop that never returns. It cannot be taken back, and lifts the limit for what it
 * needs itself; the native thread has looked whether that fits, and brings the file in.
 *
 * @returns {string | undefined} the directory that Node will write it to
 */
function profileAtLimit() {
  const v8 = /** @type {any} */ (require('node:v8'));
  if (typeof v8.setHeapProfileNearHeapLimit !== 'function') return undefined;
  try {
    v8.setHeapProfileNearHeapLimit(1);
  } catch {
    return undefined;
  }
  return diagnosticDirectory();
}

/** Where Node writes diagnostic files. */
function diagnosticDirectory() {
  const given = [...(process.env.NODE_OPTIONS ?? '').split(' '), ...process.execArgv]
    .map((option) => /^--diagnostic-dir=(.+)$/.exec(option)?.[1])
    .filter((directory) => directory !== undefined)
    .at(-1);
  return path.resolve(given ?? process.cwd());
}

/** @param {number} length */
function leaveMark(length) {
  // Doubles, so that the elements are the object's own memory whatever V8's pointer size.
  return new Array(Math.ceil(length)).fill(0.5);
}

/**
 * @param {string} method
 * @param {object} [parameters]
 * @returns {any}
 */
function command(method, parameters) {
  /** @type {Error | null} */
  let problem = new Error(`${method}: no answer`);
  /** @type {any} */
  let answer;
  // The session lives in this thread: its answer comes before post() returns.
  session?.post(method, parameters, (error, result) => {
    problem = error;
    answer = result;
  });
  if (problem !== null) throw problem;
  return answer;
}

/** @returns {HeapProfile | null} null if nobody samples */
function read() {
  try {
    return command('HeapProfiler.getSamplingProfile').profile;
  } catch (error) {
    if (/not started/.test(String(error))) return null;
    throw error;
  }
}

/** @returns {HeapProfile} */
function readOurs() {
  const profile = mark === null ? null : read();
  if (profile !== null && hasMark(profile)) return profile;
  mark = null;
  throw new Refusal('busy', REPLACED);
}

/** @param {HeapProfile} profile */
function hasMark(profile) {
  return walk(profile.head).some(
    ({ node }) =>
      node.callFrame.functionName === leaveMark.name && node.callFrame.url.endsWith(__filename),
  );
}

/** Ends our profile, if it still is ours. */
function end() {
  if (mark === null) return;
  readOurs();
  setImmediate(endOurs);
}

/** Called in the turn after a reading found the profile to be ours. */
function endOurs() {
  if (mark === null) return;
  mark = null;
  try {
    command('HeapProfiler.stopSampling');
  } catch {
    // Somebody ended it in between.
  }
}

/**
 * The nodes in an order in which callers stand before the called.
 *
 * @param {HeapNode} head
 */
function walk(head) {
  const list = [{ node: head, parent: -1 }];
  for (let at = 0; at < list.length; at++) {
    const item = list[at];
    if (item === undefined) break;
    for (const node of item.node.children) list.push({ node, parent: at });
  }
  return list;
}

/**
 * The reading as a flat list, which the native thread parses without recursion and within bounds.
 *
 * @param {HeapProfile} profile
 * @param {boolean} withSamples
 * @param {number} [limit]
 * @returns {string}
 */
function toText(profile, withSamples, limit = MAX_TEXT) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const { nodeId } of profile.samples) counts.set(nodeId, (counts.get(nodeId) ?? 0) + 1);
  const nodes = walk(profile.head);
  // What a node and all it called hold: a stack that holds little goes first where not all can stay.
  const totals = nodes.map(({ node }) => node.selfSize);
  for (let at = nodes.length - 1; at > 0; at--) {
    const parent = nodes[at]?.parent ?? 0;
    totals[parent] = (totals[parent] ?? 0) + (totals[at] ?? 0);
  }
  const whole = totals[0] ?? 0;
  let samples = withSamples
    ? profile.samples.map(({ size, nodeId, ordinal }) => [size, nodeId, ordinal])
    : [];
  for (let least = 0; ; least = Math.max(2 * least, whole / 10_000, 1)) {
    /** @type {Map<number, number>} */
    const places = new Map();
    /** @type {unknown[][]} */
    const rows = [];
    let kept = 0;
    nodes.forEach(({ node, parent }, at) => {
      const place = parent === -1 ? -1 : places.get(parent);
      if (place === undefined || (parent !== -1 && (totals[at] ?? 0) < least)) return;
      places.set(at, rows.length);
      kept += node.selfSize;
      const { functionName, scriptId, url, lineNumber, columnNumber } = node.callFrame;
      rows.push([
        place,
        functionName.slice(0, 256),
        scriptId,
        url.slice(0, 1024),
        lineNumber,
        columnNumber,
        node.id,
        node.selfSize,
        counts.get(node.id) ?? 0,
      ]);
    });
    const text = JSON.stringify({ own: OWN, nodes: rows, samples, leftOutBytes: whole - kept });
    if (text.length <= limit || (rows.length <= 1 && samples.length === 0)) return text;
    samples = [];
  }
}

/** Ends our profile when the guard stops: nobody waits for an answer. */
function stop() {
  try {
    end();
  } catch {
    // It was not ours any more.
  }
}

module.exports = { doOrders, stop, toText };
