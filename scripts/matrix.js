'use strict';

/**
 * `npm run test:matrix [-- --node 20,22]`: the whole JS test suite, with one and the same native binary,
 * on several versions of Node, and docs/MATRIX.md from what came out. The Rust tests do not depend on
 * Node and are not run. A run of some versions only prints its table and leaves the file alone.
 */

const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { triple } = require('../lib/load.js');
const { MAJORS, nodeBinary, versionOf } = require('../test/matrix/nodes.js');
const { testArguments } = require('./check.js');
const { setup } = require('./setup.js');
const { ROOT, Steps, run } = require('./steps.js');
const { installMissing } = require('./system.js');

const REPORT = path.join(ROOT, 'docs', 'MATRIX.md');

/** How long a fresh guard may take to say how it reads the live heap. */
const WAY_DEADLINE_MS = 10_000;

/** Asks the guard of a fresh process how it reads the live heap. */
const ASK_WAY = `
  const leakguard = require(${JSON.stringify(ROOT)});
  const deadline = Date.now() + ${WAY_DEADLINE_MS};
  const timer = setInterval(() => {
    const way = leakguard.status().liveHeap?.way;
    if (!way && Date.now() < deadline) return;
    clearInterval(timer);
    leakguard.stop();
    console.log(way ?? 'not known');
  }, 50);
`;

/**
 * @typedef {object} Row
 * @property {string} version of Node
 * @property {string} way of reading the live heap
 * @property {number} tests
 * @property {number} passed
 * @property {number} failed
 * @property {number} skipped
 */

/**
 * The totals at the end of a TAP report.
 *
 * @param {string} tap
 * @param {string} name
 * @returns {number}
 * @throws if the report has no such total: the runner did not come to its end
 */
function total(tap, name) {
  const found = tap.match(new RegExp(`^# ${name} (\\d+)$`, 'm'));
  if (!found) throw new Error(`the report has no line "# ${name}"`);
  return Number(found[1]);
}

/**
 * Runs the suite on one version.
 *
 * @param {string} node path of the binary
 * @param {string} directory for the report of the runner
 * @returns {Promise<Row>}
 */
async function suite(node, directory) {
  const version = versionOf(node);
  const report = path.join(directory, `${version}.tap`);
  const args = [
    '--test-reporter=tap',
    `--test-reporter-destination=${report}`,
    '--test-reporter-destination=stdout',
    ...testArguments(),
  ];
  // The counts tell of failures, and a version that fails is a row as well.
  await run(node, args).catch(() => {});
  const env = { LEAKGUARD_DIR: directory };
  const way = (await run(node, ['-e', ASK_WAY], { capture: true, env })).trim();
  const tap = fs.readFileSync(report, 'utf8');
  return {
    version,
    way,
    tests: total(tap, 'tests'),
    passed: total(tap, 'pass'),
    failed: total(tap, 'fail') + total(tap, 'cancelled'),
    skipped: total(tap, 'skipped'),
  };
}

/**
 * @param {Row[]} rows
 * @param {string} binary
 * @returns {string} the report
 */
function markdown(rows, binary) {
  const sha256 = crypto.createHash('sha256').update(fs.readFileSync(binary)).digest('hex');
  const table = rows.map(
    ({ version, way, tests, passed, failed, skipped }) =>
      `| ${version} | ${way} | ${tests} | ${passed} | ${failed} | ${skipped} |`,
  );
  return `# One binary, all versions of Node

Written by \`npm run test:matrix\`: the whole JavaScript test suite on each version, all with the same file
\`${path.basename(binary)}\` (SHA-256 ${sha256.slice(0, 16)}…).

| Node | way of reading the live heap | tests | passed | failed | skipped |
|---|---|---:|---:|---:|---:|
${table.join('\n')}
`;
}

async function main() {
  const { values } = parseArgs({ options: { node: { type: 'string' } } });
  const majors = values.node ? values.node.split(',').map(Number) : MAJORS;
  const binary = path.join(ROOT, `leakguard.${triple()}.node`);
  const steps = new Steps();
  /** @type {Row[]} */
  const rows = [];
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-matrix-'));
  try {
    if (await steps.step('set-up', setup)) {
      await steps.step('system packages', installMissing);
      for (const major of majors) {
        await steps.step(`Node ${major}`, async () => {
          const row = await suite(nodeBinary(major), directory);
          rows.push(row);
          if (row.failed > 0) throw new Error(`${row.failed} of ${row.tests} tests failed`);
        });
      }
    }
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
  if (rows.length > 0) console.log(`\n${markdown(rows, binary)}`);
  if (rows.length === MAJORS.length) fs.writeFileSync(REPORT, markdown(rows, binary));
  steps.summary();
}

main();
