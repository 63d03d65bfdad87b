'use strict';

// Starts programs of test/apps (or any other script), with the guard or without, and waits for what they do: for
// events and files, each with a deadline, never for a span of time. Everything started dies with this process.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const apps = require('./apps/index.js');

/** @typedef {import('./apps/control.js').Reading} Reading */

const REGISTER = path.join(__dirname, '..', 'register.js');
const CONTROL = path.join(__dirname, 'apps', 'control.js');
const TRACE = path.join(__dirname, 'apps', 'trace.js');

/** The settings of the scoreboard: a leak of 1 MB/min is to be found within some half a minute of readings. */
const FAST_SETTINGS = {
  LEAKGUARD_GROWTH_RATE: '1MB/min',
  LEAKGUARD_WINDOW: '32s',
  LEAKGUARD_WARMUP: '10s',
  LEAKGUARD_SNAPSHOT: 'inline',
  // Tests share two cores; those of the analysis switch it on.
  LEAKGUARD_ANALYZE: 'off',
};

const START_DEADLINE_MS = 30_000;
const STOP_DEADLINE_MS = 5_000;
/** Output kept of each stream; an app that writes more loses the middle of what it says, not this process. */
const OUTPUT_LIMIT = 1024 * 1024;

/**
 * @typedef {object} Series
 * @property {string} id
 * @property {string} unit
 * @property {number} slopePerHour
 * @property {number} windowMs
 * @property {string} until
 *
 * @typedef {object} Evidence
 * @property {'snapshot' | 'profile' | 'analysis'} kind
 * @property {'written' | 'refused' | 'pending' | 'failed'} state
 * @property {string} [file]
 * @property {string} [reason]
 * @property {string} [sentence]
 *
 * @typedef {object} Finding the fields that tests and the scoreboard look at; the schema is in docs/
 * @property {number} schema
 * @property {string} id
 * @property {string} time
 * @property {number} pid
 * @property {string} sentence
 * @property {{ kind: string, series?: string, site?: { file: string, line: number, function?: string } } | null} cause
 * @property {Series[]} series
 * @property {Evidence[]} evidence
 * @property {{ file: string, against: string | null, suspects: Suspect[] } | null} analysis
 *
 * @typedef {object} Suspect
 * @property {string} sentence
 * @property {string} pattern
 * @property {string | null} holder
 * @property {{ file: string, line: number } | null} site
 * @property {{ site: { file: string, line: number } }[]} itemSites
 * @property {string} itemClass
 * @property {string[]} path
 *
 * @typedef {object} StartOptions
 * @property {string} [node] path of the Node binary, default the running one
 * @property {Record<string, string | undefined>} [env] added to the environment; undefined removes a variable
 * @property {string[]} [execArgv]
 * @property {string[]} [args]
 * @property {boolean} [guarded] load the guard as a user does (default true), with FAST_SETTINGS
 * @property {string} [register] what is preloaded as the guard, default register.js of this repository
 * @property {boolean} [control] load test/apps/control.js, for read()
 * @property {string} [traceFile] load test/apps/trace.js, writing here
 * @property {boolean} [waitForPort] default true
 *
 * @typedef {object} Exit
 * @property {number | null} code
 * @property {NodeJS.Signals | null} signal
 */

/** @type {Set<RunningApp>} */
const running = new Set();
process.once('exit', () => {
  for (const app of running) app.killNow();
});

class RunningApp {
  /**
   * @param {import('node:child_process').ChildProcess} child
   * @param {string} dir
   */
  constructor(child, dir) {
    this.child = child;
    /** LEAKGUARD_DIR: a fresh directory that stop() removes. */
    this.dir = dir;
    this.pid = child.pid ?? 0;
    this.port = 0;
    this.stdout = '';
    this.stderr = '';
    /** @type {Exit | null} */
    this.exited = null;
    this.reads = 0;
    running.add(this);
    child.stdout?.setEncoding('utf8').on('data', (text) => {
      this.stdout = clip(this.stdout + text);
    });
    child.stderr?.setEncoding('utf8').on('data', (text) => {
      this.stderr = clip(this.stderr + text);
    });
    // Not the child's 'close' event, which does not come once the parent has disconnected.
    const ends = [child.stdout, child.stderr].map((stream) => stream && once(stream, 'close'));
    /** @type {Promise<Exit>} */
    const ended = new Promise((resolve) => {
      child.once('error', (error) => {
        this.stderr += String(error);
        resolve({ code: null, signal: null });
      });
      child.once('exit', (code, signal) => resolve({ code, signal }));
    });
    /** Resolved when the process and its output have ended; never rejected. */
    this.exit = ended.then(async (exit) => {
      running.delete(this);
      await Promise.allSettled(ends);
      this.exited = exit;
      return exit;
    });
  }

  /**
   * The next message from the app that `accept` takes.
   * @template T
   * @param {(message: any) => T | undefined} accept
   * @param {number} deadlineMs
   * @param {string} what for the error's sentence
   * @returns {Promise<T>}
   */
  message(accept, deadlineMs, what) {
    return this.waitFor(deadlineMs, what, (settle) => {
      /** @param {unknown} message */
      const listener = (message) => {
        const accepted = accept(message);
        if (accepted !== undefined) settle(accepted);
      };
      this.child.on('message', listener);
      return () => this.child.off('message', listener);
    });
  }

  /**
   * The first finding on disk that `accept` takes, looked at each time the directory changes.
   * @param {number} deadlineMs
   * @param {(finding: Finding) => boolean} [accept]
   * @returns {Promise<Finding>} rejected at the deadline, or when the app ends first
   */
  waitForFinding(deadlineMs, accept = () => true) {
    return this.waitForFile(deadlineMs, 'a finding', () => this.findings().find(accept));
  }

  /**
   * Calls `look` each time something in the evidence directory changes, until it returns a value.
   * @template T
   * @param {number} deadlineMs
   * @param {string} what
   * @param {() => T | undefined} look
   * @returns {Promise<T>}
   */
  waitForFile(deadlineMs, what, look) {
    return this.waitFor(deadlineMs, what, (settle) => {
      const check = () => {
        const found = look();
        if (found !== undefined) settle(found);
      };
      const watcher = fs.watch(this.dir, check);
      watcher.on('error', check);
      check();
      return () => watcher.close();
    });
  }

  /**
   * Waits until the app's stderr, which comes by itself after what it speaks of, holds a line.
   * @param {number} deadlineMs
   * @param {RegExp} line
   * @returns {Promise<void>}
   */
  async waitForStderr(deadlineMs, line) {
    await this.waitFor(deadlineMs, `a line like ${line}`, (settle) => {
      const look = () => {
        if (line.test(this.stderr)) settle(undefined);
      };
      this.child.stderr?.on('data', look);
      look();
      return () => this.child.stderr?.off('data', look);
    });
  }

  /** All findings on disk, oldest first; a file that is no JSON is an error, since none may ever be half-written. */
  findings() {
    const names = fs.existsSync(this.dir) ? fs.readdirSync(this.dir) : [];
    return names
      .filter((name) => /^Finding\..*\.json$/.test(name))
      .sort()
      .map(
        (name) =>
          /** @type {Finding} */ (JSON.parse(fs.readFileSync(path.join(this.dir, name), 'utf8'))),
      );
  }

  /**
   * A reading after forced collections; only for apps started with `control`.
   * @param {number} [deadlineMs]
   * @returns {Promise<Reading>}
   */
  read(deadlineMs = 30_000) {
    this.reads += 1;
    const id = this.reads;
    const answer = this.message(
      (message) => (message?.id === id ? message.reading : undefined),
      deadlineMs,
      'a reading',
    );
    if (this.child.connected) this.child.send({ control: 'read', id }, () => {});
    return answer;
  }

  /**
   * Ends the app as its parent's death would, by force after five seconds, and removes its evidence directory.
   * Safe to call twice, and after the app has ended by itself.
   */
  async stop() {
    if (!this.exited) {
      if (this.child.connected) this.child.disconnect();
      else this.child.kill('SIGTERM');
      const force = setTimeout(() => this.child.kill('SIGKILL'), STOP_DEADLINE_MS);
      await this.exit;
      clearTimeout(force);
    }
    fs.rmSync(this.dir, { recursive: true, force: true });
    return /** @type {Exit} */ (this.exited);
  }

  killNow() {
    this.child.kill('SIGKILL');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  /**
   * @template T
   * @param {number} deadlineMs
   * @param {string} what
   * @param {(settle: (value: T) => void) => () => void} subscribe returns its undoing
   * @returns {Promise<T>}
   */
  waitFor(deadlineMs, what, subscribe) {
    return new Promise((resolve, reject) => {
      let settled = false;
      /** @type {(() => void) | undefined} */
      let unsubscribe;
      const finish = () => {
        settled = true;
        clearTimeout(timer);
        unsubscribe?.();
      };
      /** @param {string} why */
      const fail = (why) => {
        if (settled) return;
        finish();
        reject(new Error(`${why}; it said: ${this.stderr.slice(-2000) || 'nothing'}`));
      };
      const timer = setTimeout(
        () => fail(`no ${what.replace(/^an? /, '')} within ${deadlineMs} ms`),
        deadlineMs,
      );
      this.exit.then(({ code, signal }) =>
        fail(`the app ended (code ${code}, signal ${signal}) before ${what}`),
      );
      try {
        unsubscribe = subscribe((value) => {
          if (settled) return;
          finish();
          resolve(value);
        });
        if (settled) unsubscribe();
      } catch (error) {
        finish();
        reject(error);
      }
    });
  }
}

/**
 * Starts a program and waits until it listens.
 * @param {string} name of test/apps/index.js, or the path of a script
 * @param {StartOptions} [options]
 * @returns {Promise<RunningApp>}
 */
async function startApp(name, options = {}) {
  const { node = process.execPath, guarded = true, control = false, waitForPort = true } = options;
  const known = apps.ALL.find((app) => app.name === name);
  const file = known?.file ?? path.resolve(name);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-test-'));
  const preloads = [
    guarded && (options.register ?? REGISTER),
    control && CONTROL,
    options.traceFile && TRACE,
  ].filter((preload) => preload);
  const flags = [
    ...(known?.execArgv ?? []),
    ...(options.execArgv ?? []),
    ...preloads.flatMap((preload) => ['-r', String(preload)]),
  ];
  const env = {
    ...withoutGuardSettings(process.env),
    ...(known ? apps.environment(known) : {}),
    ...(guarded ? { ...FAST_SETTINGS, LEAKGUARD_DIR: dir } : {}),
    ...(options.traceFile ? { LEAK_TRACE_FILE: options.traceFile } : {}),
    ...options.env,
  };
  const child = spawn(node, [...flags, file, ...(options.args ?? [])], {
    env,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const app = new RunningApp(child, env.LEAKGUARD_DIR ?? dir);
  if (waitForPort) {
    try {
      app.port = await app.message((message) => message?.port, START_DEADLINE_MS, 'its port');
    } catch (error) {
      await app.stop();
      throw error;
    }
  }
  return app;
}

/** @param {NodeJS.ProcessEnv} env */
function withoutGuardSettings(env) {
  return Object.fromEntries(
    Object.entries(env).filter(
      ([name]) => !/^LEAKGUARD(_|$)/.test(name) && name !== 'NODE_OPTIONS',
    ),
  );
}

/** @param {string} text */
function clip(text) {
  if (text.length <= OUTPUT_LIMIT) return text;
  return `${text.slice(0, OUTPUT_LIMIT / 2)}\n[...]\n${text.slice(-OUTPUT_LIMIT / 2)}`;
}

module.exports = { FAST_SETTINGS, RunningApp, startApp };
