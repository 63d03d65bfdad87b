'use strict';

// What the tests of post-mortem and hook share: starting test/apps/ending.js in a directory that outlives it.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { startApp } = require('./harness.js');
const { readRun } = require('../lib/run.js');

/** @typedef {Awaited<ReturnType<typeof startApp>>} App */

const APP = path.join(__dirname, 'apps', 'ending.js');
const DEADLINE_MS = 60_000;
const INTERVAL_MS = 1000;

/** @type {{ dir: string, app: App }[]} */
const started = [];

/**
 * A directory for the runs of a test. When the test ends, however it does, apps that still run in it are killed:
 * one that is left behind would keep this process waiting for it.
 *
 * @param {import('node:test').TestContext} t
 */
function directory(t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-runs-'));
  t.after(() => {
    for (const one of started) if (one.dir.startsWith(dir)) one.app.child.kill('SIGKILL');
    fs.rmSync(dir, { recursive: true, force: true });
  });
  return dir;
}

/**
 * Starts the app and waits until it has recorded a few samples. `messages` holds all it ever sent.
 *
 * @param {string} dir
 * @param {import('./harness.js').StartOptions} [options]
 */
async function start(dir, options = {}) {
  const app = await startApp(APP, {
    ...options,
    waitForPort: false,
    env: {
      LEAKGUARD_INTERVAL: `${INTERVAL_MS}ms`,
      LEAKGUARD_SNAPSHOT: 'off',
      LEAKGUARD_LOG: 'warn',
      ...options.env,
      LEAKGUARD_DIR: dir,
    },
  });
  started.push({ dir, app });
  /** @type {any[]} */
  const messages = [];
  app.child.on('message', (message) => messages.push(message));
  const ready = await app.message((message) => message.ready, DEADLINE_MS, 'it was ready');
  return { app, messages, ready };
}

/**
 * Has the app do something.
 *
 * @param {App} app
 * @param {string} action
 * @param {unknown} [argument]
 */
function act(app, action, argument) {
  app.child.send({ action, argument });
}

/**
 * The first message of a kind that `accept` takes, also if it has come already.
 *
 * @param {{ app: App, messages: any[] }} run
 * @param {string} kind
 * @param {(about: any) => boolean} [accept]
 * @returns {Promise<any>}
 */
async function heard({ app, messages }, kind, accept = () => true) {
  const about = (/** @type {any} */ message) =>
    message[kind] && accept(message[kind]) ? message[kind] : undefined;
  return messages.map(about).find(Boolean) ?? app.message(about, DEADLINE_MS, `a ${kind}`);
}

/** @param {string} dir @returns {string[]} run files */
function runFiles(dir) {
  return fs
    .readdirSync(dir)
    .filter((name) => /^run\..*\.rec$/.test(name))
    .map((name) => path.join(dir, name));
}

module.exports = { APP, DEADLINE_MS, INTERVAL_MS, act, directory, heard, readRun, runFiles, start };
