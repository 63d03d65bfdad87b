'use strict';

/**
 * Where a listener is added and on what: the nearest frame of the app, and the class of an emitter. It takes a stack
 * each time it is asked (8 to 18 us, 100 us inside Express): how often is the caller's business.
 */

const { fileURLToPath } = require('node:url');

/** Frames looked at for the code that adds a listener. */
const FRAMES = 24;

/** @typedef {{ function: string, file: string, line: number, column: number }} Site */

/**
 * The code that calls: the nearest frame of the app, else the nearest of a package.
 *
 * @param {Function} below frames from this function up are left out
 * @returns {Site | null} null if only Node's own code is on the stack
 */
function siteAbove(below) {
  const { stackTraceLimit, prepareStackTrace } = Error;
  /** @type {NodeJS.CallSite[]} */
  let frames = [];
  try {
    Error.stackTraceLimit = FRAMES;
    Error.prepareStackTrace = (_, sites) => sites;
    const holder = /** @type {{ stack: any }} */ ({ stack: undefined });
    Error.captureStackTrace(holder, below);
    frames = holder.stack;
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
    Error.prepareStackTrace = prepareStackTrace;
  }
  if (!Array.isArray(frames)) return null;
  let fallback;
  for (const frame of frames) {
    const name = fileOf(frame);
    if (name === undefined || name.startsWith('node:') || name.startsWith(__dirname)) continue;
    if (!/[\\/]node_modules[\\/]/.test(name)) return siteOf(frame, name);
    fallback ??= frame;
  }
  return fallback === undefined ? null : siteOf(fallback, fileOf(fallback) ?? '');
}

/** @param {NodeJS.CallSite} frame */
function fileOf(frame) {
  const name = frame.getFileName() ?? frame.getEvalOrigin?.();
  return typeof name === 'string' ? name : undefined;
}

/**
 * Line and column are asked of the one frame that is told: V8 keeps a table of the lines of every script that it was
 * ever asked of.
 *
 * @param {NodeJS.CallSite} frame
 * @param {string} name of its file
 * @returns {Site}
 */
function siteOf(frame, name) {
  return {
    function: frame.getFunctionName() ?? frame.getMethodName() ?? '',
    file: name.startsWith('file://') ? fileURLToPath(name) : name,
    line: frame.getLineNumber() ?? 0,
    column: frame.getColumnNumber() ?? 0,
  };
}

/** @param {object} emitter */
function className(emitter) {
  try {
    const { name } = emitter.constructor;
    return typeof name === 'string' && name !== '' ? name.slice(0, 80) : 'Object';
  } catch {
    return 'Object';
  }
}

module.exports = { siteAbove, className };
