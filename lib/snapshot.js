'use strict';

/**
 * Writes a heap snapshot where the native thread says: into the write end of its pipe. The loop stands still
 * meanwhile; the budget for that was asked before.
 */

const v8 = require('node:v8');

/** @param {any} native the native guard */
function writeSnapshot(native) {
  const job = native.takeSnapshotJob();
  if (job === null) return;
  const [id, path] = job;
  const began = performance.now();
  let problem;
  try {
    v8.writeHeapSnapshot(path);
  } catch (error) {
    problem = String(error instanceof Error ? error.message : error);
  }
  native.snapshotWritten(id, performance.now() - began, problem);
}

module.exports = { writeSnapshot };
