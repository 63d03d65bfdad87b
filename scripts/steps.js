'use strict';

/**
 * What the scripts share: running a program, telling whether something is stale, and a list of timed
 * steps with a summary. No logic of any single script.
 */

const { spawn } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

/** The root of the repository. */
const ROOT = path.join(__dirname, '..');

/** Whether a service runs us: nothing may be skipped there. */
const IN_CI = Boolean(process.env.CI) && process.env.CI !== 'false';

/**
 * @typedef {object} RunOptions
 * @property {string} [cwd] default: the root of the repository
 * @property {NodeJS.ProcessEnv} [env] added to ours
 * @property {number} [deadlineMs] after it the program is ended and the run has failed; default: none
 * @property {boolean} [capture] give stdout back instead of showing it
 */

/**
 * Runs a program to its end, its output shown as it comes.
 *
 * @param {string} program
 * @param {string[]} args
 * @param {RunOptions} [options]
 * @returns {Promise<string>} its stdout where `capture` asked for it, else an empty string
 * @throws if it cannot be started, ends with another code than 0, or does not end in time
 */
function run(program, args, { cwd = ROOT, env = {}, deadlineMs, capture = false } = {}) {
  const shown = `${path.basename(program)} ${args.join(' ')}`;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', capture ? 'pipe' : 'inherit', 'inherit'],
    });
    let output = '';
    let late = false;
    child.stdout?.setEncoding('utf8').on('data', (chunk) => {
      output += chunk;
    });
    const timer =
      deadlineMs &&
      setTimeout(() => {
        late = true;
        child.kill('SIGTERM');
        setTimeout(() => child.kill('SIGKILL'), 5000).unref();
      }, deadlineMs);
    child.on('error', (error) => reject(new Error(`${shown}: ${error.message}`)));
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (late) reject(new Error(`${shown}: not done after ${seconds(Number(deadlineMs))}`));
      else if (code !== 0) reject(new Error(`${shown}: ended with ${signal ?? `code ${code}`}`));
      else resolve(output);
    });
  });
}

/**
 * Runs npm with the npm that runs us, else with the one on the path.
 *
 * @param {string[]} args
 * @param {RunOptions} [options]
 */
function npm(args, options) {
  const cli = process.env.npm_execpath;
  if (cli && /npm-cli\.c?js$/.test(cli)) return run(process.execPath, [cli, ...args], options);
  if (process.platform === 'win32')
    return run('cmd.exe', ['/d', '/s', '/c', 'npm', ...args], options);
  return run('npm', args, options);
}

/**
 * Runs the JS program of a development dependency.
 *
 * @param {string} file path below node_modules
 * @param {string[]} args
 * @param {RunOptions} [options]
 */
function tool(file, args, options) {
  return run(process.execPath, [path.join(ROOT, 'node_modules', file), ...args], options);
}

/**
 * @param {number} milliseconds
 * @returns {string} such as `4.2 s` or `3 min 07 s`
 */
function seconds(milliseconds) {
  const total = milliseconds / 1000;
  if (total < 60) return `${total.toFixed(1)} s`;
  const whole = Math.round(total);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
}

/**
 * Digest of files, for stamps that say what a result was made from.
 *
 * @param {string[]} files
 * @returns {string}
 */
function digest(files) {
  const hash = crypto.createHash('sha256');
  for (const file of files) {
    const content = fs.readFileSync(file);
    hash.update(`${path.relative(ROOT, file)}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

/**
 * All files below a directory, sorted; what the directory holds is all ours, so links are not followed.
 *
 * @param {string} directory
 * @returns {string[]} absolute paths
 */
function filesBelow(directory) {
  return fs
    .readdirSync(directory, { withFileTypes: true })
    .flatMap((entry) => {
      const full = path.join(directory, entry.name);
      if (entry.isDirectory()) return filesBelow(full);
      return entry.isFile() ? [full] : [];
    })
    .sort();
}

/**
 * A list of named steps: each is announced, timed and its failure kept, so that one run shows all that
 * is wrong.
 */
class Steps {
  /** @type {{ name: string, milliseconds: number, failure?: string, skipped?: string }[]} */
  #done = [];

  /**
   * @param {string} name
   * @param {() => unknown} action failed if it throws; a string it returns says why it was skipped
   * @returns {Promise<boolean>} whether it passed or was skipped
   */
  async step(name, action) {
    console.log(`\n── ${name}`);
    const start = performance.now();
    try {
      const outcome = await action();
      const skipped = typeof outcome === 'string' ? outcome : undefined;
      if (skipped) console.log(`skipped: ${skipped}`);
      this.#done.push({ name, milliseconds: performance.now() - start, skipped });
      return true;
    } catch (error) {
      const failure = error instanceof Error ? error.message : String(error);
      console.error(failure);
      this.#done.push({ name, milliseconds: performance.now() - start, failure });
      return false;
    }
  }

  /**
   * Prints one line for each step and sets the exit code.
   *
   * @returns {boolean} whether no step failed
   */
  summary() {
    const width = Math.max(...this.#done.map(({ name }) => name.length));
    const total = this.#done.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
    console.log('\n── summary');
    for (const { name, milliseconds, failure, skipped } of this.#done) {
      const mark = failure ? 'FAILED ' : skipped ? 'skipped' : 'passed ';
      const why = failure ?? skipped ?? '';
      console.log(
        `${mark} ${name.padEnd(width)} ${seconds(milliseconds).padStart(12)}  ${why}`.trimEnd(),
      );
    }
    const failures = this.#done.filter(({ failure }) => failure).length;
    const verdict = failures
      ? `${failures} of ${this.#done.length} steps failed`
      : 'all steps passed';
    console.log(`${verdict}, ${seconds(total)} in all`);
    if (failures) process.exitCode = 1;
    return failures === 0;
  }
}

module.exports = { ROOT, IN_CI, Steps, run, npm, tool, seconds, digest, filesBelow };
