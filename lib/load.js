'use strict';

/**
 * Finds and loads the native binary: the local build of a checkout first, else the platform package
 * that npm installed. It never throws, prints nothing, searches no directories and downloads nothing;
 * what to do without a binary is the caller's decision.
 */

const fs = require('node:fs');
const path = require('node:path');

/** Every platform that has a package. The release builds exactly these (see npm/platforms.js). */
const TRIPLES = Object.freeze([
  'linux-x64-gnu',
  'linux-x64-musl',
  'linux-arm64-gnu',
  'linux-arm64-musl',
  'darwin-x64',
  'darwin-arm64',
  'win32-x64',
]);

/**
 * The part of the executable that names its dynamic loader. The interpreter string of an ELF file
 * follows the program headers, far inside the first page.
 */
const ELF_HEAD_BYTES = 4096;

/**
 * @typedef {object} LoadError
 * @property {'LEAKGUARD_BINARY'} code Code of the process warning.
 * @property {string} message One line: the platform, what is missing and the command that mends it.
 * @property {string} triple Platform as in the package name, such as `linux-x64-gnu`.
 * @property {string | null} package Platform package; null where there is none for this platform.
 * @property {unknown} [cause] What the loader of Node said, when a binary was there but did not load.
 */

/**
 * @typedef {{ binding: any, file: string, error: null }
 *   | { binding: null, file: null, error: LoadError }} Loaded
 */

/**
 * Whether this Node runs on musl, which needs a binary of its own. The dynamic loader named in the
 * executable decides; it is read in a tenth of the time that a diagnostic report takes. The report is
 * for an executable that cannot be read (Node's permission model) or has no loader.
 *
 * @returns {boolean} false where it cannot be known, since glibc is by far the more common.
 */
function isMusl() {
  try {
    const head = Buffer.alloc(ELF_HEAD_BYTES);
    const fd = fs.openSync(process.execPath, 'r');
    try {
      fs.readSync(fd, head, 0, ELF_HEAD_BYTES, 0);
    } finally {
      fs.closeSync(fd);
    }
    if (head.includes('/ld-musl-')) return true;
    if (head.includes('/ld-linux')) return false;
  } catch {
    // The report below answers too.
  }
  try {
    const report = /** @type {any} */ (process.report);
    const excluded = report.excludeNetwork;
    // Without it the report resolves the name of every connected peer, which can take seconds.
    report.excludeNetwork = true;
    try {
      return !report.getReport().header.glibcVersionRuntime;
    } finally {
      report.excludeNetwork = excluded;
    }
  } catch {
    return false;
  }
}

/**
 * The platform this process runs on, as packages and local builds name it.
 *
 * @returns {string} `linux-x64-gnu`, `darwin-arm64`; also for a platform that has no package.
 */
function triple() {
  const base = `${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') return base;
  return `${base}-${isMusl() ? 'musl' : 'gnu'}`;
}

/**
 * Requires a file or package that may be absent.
 *
 * @param {string} request
 * @returns {{ binding?: any, cause?: unknown }} neither when it is not there; `cause` when it is there
 *   but does not load.
 */
function attempt(request) {
  try {
    return { binding: require(request) };
  } catch (error) {
    const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
    // A module missing further down the chain names itself, not the request.
    if (code === 'MODULE_NOT_FOUND' && String(message).includes(request)) return {};
    return { cause: error };
  }
}

/**
 * The first line of what went wrong, without the trailing dot.
 *
 * @param {unknown} cause
 * @returns {string}
 */
function firstLine(cause) {
  const text = cause instanceof Error ? cause.message : String(cause);
  return text.split('\n', 1)[0].replace(/\.$/, '');
}

/**
 * @param {string} name platform triple
 * @param {unknown} cause
 * @returns {LoadError}
 */
function explain(name, cause) {
  const code = 'LEAKGUARD_BINARY';
  if (!TRIPLES.includes(name)) {
    const message = `no native binary for ${name}, so nothing is guarded; there is one for ${TRIPLES.join(', ')}`;
    return { code, message, triple: name, package: null, cause };
  }
  const wanted = `@leakguard/${name}`;
  const { version } = require('../package.json');
  const command = `npm install --include=optional --save-optional ${wanted}@${version}`;
  const message = cause
    ? `the native binary for ${name} does not load (${firstLine(cause)}), so nothing is guarded; to install it anew: ${command}`
    : `the native binary for ${name} is not installed (package ${wanted}), so nothing is guarded; to install it: ${command}`;
  return { code, message, triple: name, package: wanted, cause };
}

/**
 * Loads the native binary of this platform.
 *
 * @returns {Loaded} the binding and the file or package it came from, or an error in one line.
 */
function load() {
  const name = triple();
  let failure;
  for (const request of [
    path.join(__dirname, '..', `leakguard.${name}.node`),
    `@leakguard/${name}`,
  ]) {
    const { binding, cause } = attempt(request);
    if (binding) return { binding, file: request, error: null };
    // The local build is newer than any package beside it: its failure is the one to tell.
    failure ??= cause;
  }
  return { binding: null, file: null, error: explain(name, failure) };
}

module.exports = { load, triple, TRIPLES };
