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
  let fallback = null;
  for (const frame of frames) {
    const name = frame.getFileName() ?? frame.getEvalOrigin?.();
    if (typeof name !== 'string' || name.startsWith('node:')) continue;
    if (name.startsWith(__dirname)) continue;
    const site = {
      function: frame.getFunctionName() ?? frame.getMethodName() ?? '',
      file: name.startsWith('file://') ? fileURLToPath(name) : name,
      line: frame.getLineNumber() ?? 0,
      column: frame.getColumnNumber() ?? 0,
    };
    if (!/[\\/]node_modules[\\/]/.test(site.file)) return site;
    fallback ??= site;
  }
  return fallback;
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
