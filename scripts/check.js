'use strict';

/**
 * What CI runs first: formatting, lints and types, then the tests. All of them run even if one fails,
 * so that one run shows all that is wrong. It changes no file: `npx biome check --write` and
 * `cargo fmt` do.
 */

const fs = require('node:fs');
const path = require('node:path');
const { build } = require('./build.js');
const { IN_CI, ROOT, Steps, run, tool } = require('./steps.js');

/** Nothing takes as long; but CI ends after 25 minutes with no word about what hung. */
const JS_TESTS_DEADLINE_MS = 20 * 60_000;
const RUST_TESTS_DEADLINE_MS = 8 * 60_000;

/**
 * Whether a part of the Rust toolchain that a minimal install leaves out is there.
 *
 * @param {string} subcommand of cargo
 */
async function hasCargo(subcommand) {
  return run('cargo', [subcommand, '--version'], { capture: true }).then(
    () => true,
    () => false,
  );
}

/**
 * Runs a lint of the Rust toolchain; where it is not installed that is said, and in CI it is a failure.
 *
 * @param {string} subcommand of cargo
 * @param {string[]} args
 * @returns {Promise<string | undefined>} why it was skipped
 */
async function cargoLint(subcommand, args) {
  if (!IN_CI && !(await hasCargo(subcommand))) return `cargo ${subcommand} is not installed`;
  await run('cargo', [subcommand, ...args]);
  return undefined;
}

/**
 * Formatting, lints and types.
 *
 * @param {InstanceType<typeof Steps>} steps
 */
async function lint(steps) {
  await steps.step('rustfmt', () => cargoLint('fmt', ['--check']));
  await steps.step('clippy', () =>
    cargoLint('clippy', ['--locked', '--all-targets', '--', '-D', 'warnings']),
  );
  await steps.step('biome', () =>
    tool('@biomejs/biome/bin/biome', ['check', '--error-on-warnings']),
  );
  await steps.step('tsc (our JavaScript)', () => tool('typescript/bin/tsc', ['-p', ROOT]));
  await steps.step('tsc (the report page)', () =>
    tool('typescript/bin/tsc', ['-p', path.join(ROOT, 'src', 'report', 'assets')]),
  );
  await steps.step('tsc (a strict TypeScript user)', () =>
    tool('typescript/bin/tsc', ['-p', path.join(ROOT, 'test', 'types')]),
  );
}

/**
 * The files of the JS tests.
 *
 * @returns {string[]} absolute paths, sorted
 */
function testFiles() {
  const directory = path.join(ROOT, 'test');
  return fs
    .readdirSync(directory)
    .filter((name) => name.endsWith('.test.js'))
    .sort()
    .map((name) => path.join(directory, name));
}

/**
 * Arguments with which Node runs the JS tests.
 *
 * @param {{ reporter?: string, files?: string[] }} [options]
 */
function testArguments({ reporter = 'spec', files = testFiles() } = {}) {
  // Each file starts apps under load; more of them side by side only take each other's time.
  return ['--test', `--test-reporter=${reporter}`, '--test-concurrency=2', ...files];
}

/**
 * The JS tests with the binary that is in place, then the Rust tests.
 *
 * @param {InstanceType<typeof Steps>} steps
 */
async function test(steps) {
  await steps.step('documents made from the option table', () =>
    run(process.execPath, [path.join(__dirname, 'update.js'), '--check']),
  );
  await steps.step('JavaScript tests', () =>
    run(process.execPath, testArguments(), { deadlineMs: JS_TESTS_DEADLINE_MS }),
  );
  await steps.step('Rust tests', () =>
    run('cargo', ['test', '--locked'], { deadlineMs: RUST_TESTS_DEADLINE_MS }),
  );
}

async function main() {
  const steps = new Steps();
  await lint(steps);
  if (await steps.step('build', async () => void (await build()))) await test(steps);
  steps.summary();
}

module.exports = { lint, test, testArguments, testFiles };

if (require.main === module) main();
