'use strict';

/**
 * Runs the command line in a process of its own: the columns of a large snapshot have no place in the app.
 */

const { execFile } = require('node:child_process');
const path = require('node:path');

const COMMAND = path.join(__dirname, '..', 'bin', 'leakguard.js');

/** JSON of an analysis is tens of KB; this is where something is wrong. */
const MAX_OUTPUT_BYTES = 256 << 20;

/**
 * @param {string[]} args
 * @returns {Promise<unknown>}
 */
function run(args) {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LEAKGUARD: 'off', NODE_OPTIONS: '' };
    const options = { env, maxBuffer: MAX_OUTPUT_BYTES, windowsHide: true };
    execFile(process.execPath, [COMMAND, ...args], options, (error, stdout, stderr) => {
      if (error !== null) {
        const message = stderr.trim() || error.message;
        reject(
          Object.assign(new Error(message), {
            code: 'ERR_LEAKGUARD_ANALYZE',
            exitCode: error.code,
          }),
        );
        return;
      }
      try {
        resolve(JSON.parse(stdout));
      } catch (problem) {
        reject(problem);
      }
    });
  });
}

/**
 * @param {string} file
 * @param {{ top?: number }} [options]
 */
function analyze(file, options) {
  const top = options?.top === undefined ? [] : ['--top', String(options.top)];
  return run(['analyze', file, '--json', ...top]);
}

/**
 * @param {string} before
 * @param {string} after
 * @param {string} [later]
 */
function diff(before, after, later) {
  return run(['diff', before, after, ...(later === undefined ? [] : [later]), '--json']);
}

module.exports = { analyze, diff };
