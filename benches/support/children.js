'use strict';

/**
 * Starts the programs that the benches measure, each in a fresh directory and with none of our own settings,
 * and talks to them: one question, one answer, with a deadline. All of them die with this process.
 */

const { execFile, execFileSync, fork } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const ROOT = path.join(__dirname, '..', '..');
const PROGRAMS = path.join(__dirname, '..', 'programs');

const START_DEADLINE_MS = 60_000;
const STOP_DEADLINE_MS = 5_000;

/** @type {Set<Child>} */
const running = new Set();
process.once('exit', () => {
  for (const child of running) child.kill();
});
for (const [signal, code] of /** @type {const} */ ([
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
])) {
  process.once(signal, () => process.exit(code));
}

/**
 * Our environment without what would configure the guard or Node.
 *
 * @param {Record<string, string>} [added]
 */
function cleanEnvironment(added) {
  const kept = Object.entries(process.env).filter(
    ([name]) => name !== 'LEAKGUARD' && !name.startsWith('LEAKGUARD_') && name !== 'NODE_OPTIONS',
  );
  return { ...Object.fromEntries(kept), ...added };
}

class Child {
  #process;
  #directory = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-bench-'));
  #exited;
  #stderr = '';
  /** How the program ended; none while it runs. @type {Error | undefined} */
  #ended;
  /** @type {Map<number, { resolve: (answer: any) => void, reject: (error: Error) => void }>} */
  #questions = new Map();
  #next = 1;

  /**
   * @param {string} node path of the Node binary
   * @param {string} program file below programs/
   * @param {{ settings?: object, env?: Record<string, string>, execArgv?: string[] }} [options]
   */
  constructor(node, program, { settings = {}, env, execArgv = [] } = {}) {
    this.#process = fork(path.join(PROGRAMS, program), [JSON.stringify(settings)], {
      execPath: node,
      execArgv,
      cwd: this.#directory,
      env: cleanEnvironment(env),
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    running.add(this);
    this.pid = this.#process.pid ?? 0;
    this.#process.stderr?.setEncoding('utf8').on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-4000);
    });
    this.#process.on('message', (/** @type {any} */ message) => {
      const question = this.#questions.get(message.number);
      this.#questions.delete(message.number);
      if (message.error) question?.reject(new Error(`${program}: ${message.error}`));
      else question?.resolve(message.answer);
    });
    this.#exited = new Promise((resolve) => {
      const end = (/** @type {string} */ how) => {
        running.delete(this);
        fs.rmSync(this.#directory, { recursive: true, force: true });
        this.#ended = new Error(`${program} ended (${how}): ${this.#stderr}`);
        for (const { reject } of this.#questions.values()) reject(this.#ended);
        this.#questions.clear();
        resolve(undefined);
      };
      this.#process.once('error', (error) => end(error.message));
      this.#process.once('exit', (code, signal) => end(String(signal ?? code)));
    });
  }

  /**
   * @param {string} what a function of the program
   * @param {unknown} [argument]
   * @param {number} [deadlineMs]
   * @returns {Promise<any>}
   */
  ask(what, argument, deadlineMs = START_DEADLINE_MS) {
    if (this.#ended) return Promise.reject(this.#ended);
    const number = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#questions.delete(number);
        reject(new Error(`no answer to '${what}' within ${deadlineMs} ms: ${this.#stderr}`));
      }, deadlineMs);
      this.#questions.set(number, {
        resolve: (answer) => {
          clearTimeout(timer);
          resolve(answer);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      // A channel that is closed is a program that ends: its 'exit' says how, with what it wrote last.
      this.#process.send({ number, what, argument }, () => {});
    });
  }

  /**
   * Keeps all its threads on one core, also those that it starts later.
   *
   * @param {number} core from 0
   * @returns {boolean} whether that can be done here: it takes the `taskset` of Linux
   */
  pin(core) {
    try {
      const args = ['--all-tasks', '--cpu-list', '--pid', String(core), String(this.pid)];
      execFileSync('taskset', args, { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  }

  /** Ends the program and waits for that. */
  async stop() {
    if (this.#process.connected) this.#process.disconnect();
    const timer = setTimeout(() => this.kill(), STOP_DEADLINE_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  kill() {
    this.#process.kill('SIGKILL');
    fs.rmSync(this.#directory, { recursive: true, force: true });
  }
}

/**
 * Runs a program that prints JSON, to its end, in a fresh directory and without a channel to us.
 *
 * @param {string} node path of the Node binary
 * @param {string[]} args
 * @param {Record<string, string>} [env]
 * @returns {Promise<any>}
 */
async function run(node, args, env) {
  const cwd = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-bench-'));
  try {
    return await new Promise((resolve, reject) => {
      const options = { cwd, env: cleanEnvironment(env), timeout: START_DEADLINE_MS };
      execFile(node, args, options, (error, stdout) => {
        if (error) reject(error);
        else resolve(JSON.parse(stdout));
      });
    });
  } finally {
    fs.rmSync(cwd, { recursive: true, force: true });
  }
}

/** Ends every program that still runs: after a failure, before the next measurement. */
async function stopAll() {
  await Promise.all([...running].map((child) => child.stop()));
}

/** @param {number} ms @returns {Promise<void>} */
function delay(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

module.exports = { Child, ROOT, cleanEnvironment, delay, run, stopAll };
