'use strict';

/**
 * Carries out snapshot jobs of the native thread. Inline: writes into its pipe while the loop stands still; the
 * budget for that was asked before. Forked: says what the child is to do, and goes on; the functions named
 * `...InChild` run in the child alone, which has this one thread and ends when they return. They must neither call
 * the native guard nor set a flag of V8.
 */

const fs = require('node:fs');
const clock = require('./clock');
const { obtainGc } = require('./gc');

/** @param {any} native the native guard */
function takeSnapshot(native) {
  const job = native.takeSnapshotJob();
  if (job === null) return;
  if (job.way === 'inline') write(native, job);
  else if (job.way === 'gc-stage') forkGcStage(native, job.path);
  else forkSnapshot(native, job.path);
}

/**
 * @param {any} native
 * @param {{ id: number, path: string }} job
 */
function write(native, { id, path }) {
  const v8 = require('node:v8');
  const began = clock.now();
  let problem;
  try {
    v8.writeHeapSnapshot(path);
  } catch (error) {
    problem = String(error instanceof Error ? error.message : error);
  }
  native.snapshotWritten(id, clock.now() - began, problem);
}

/**
 * @param {any} native
 * @param {string} path
 */
function forkSnapshot(native, path) {
  // Loaded before the fork: the child should do nothing but what it is there for.
  const v8 = require('node:v8');
  const { report } = process;
  native.forkSnapshot(function writeInChild() {
    // A child that runs out of memory is no crash of the app: no report of it.
    if (report?.reportOnFatalError) report.reportOnFatalError = false;
    v8.writeHeapSnapshot(path);
  });
}

/**
 * @param {any} native
 * @param {string} path
 */
function forkGcStage(native, path) {
  const gc = obtainGc();
  native.forkSnapshot(function collectInChild() {
    if (gc === null) throw new Error('no gc()');
    gc();
    gc();
    fs.writeFileSync(path, 'ok');
  });
}

module.exports = { takeSnapshot };
