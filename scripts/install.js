'use strict';

/**
 * `npm run test:install [-- --node 20,22]`: the install test (test/package.test.js) on several versions of Node,
 * by npm without a compiler on its path, and docs/INSTALL.md from what came out. A run of some versions only prints
 * its table. What is built must be there already: `npm run build`.
 */

const fs = require('node:fs');
const path = require('node:path');
const { execFileSync, spawnSync } = require('node:child_process');
const { parseArgs } = require('node:util');
const { MAJORS, nodeBinary, versionOf } = require('../test/matrix/nodes.js');
const { ROOT } = require('./steps.js');

const REPORT = path.join(ROOT, 'docs', 'INSTALL.md');
const TEST = path.join(ROOT, 'test', 'package.test.js');

/**
 * @typedef {object} Row
 * @property {string} version
 * @property {number} passed
 * @property {number} failed
 * @property {number} express4 seconds
 * @property {number} express5 seconds
 */

/** The program file of npm, so that it runs on the Node under test. */
function npmCli() {
  if (process.env.npm_execpath) return process.env.npm_execpath;
  return fs.realpathSync(
    execFileSync('/bin/sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim(),
  );
}

/**
 * @param {number} major
 * @returns {Row}
 */
function install(major) {
  const node = nodeBinary(major);
  const args = ['--test', '--test-reporter=tap', TEST];
  const env = { ...process.env, npm_execpath: npmCli(), NODE_TEST_CONTEXT: undefined };
  const { stdout } = spawnSync(node, args, { encoding: 'utf8', env, maxBuffer: 64 << 20 });
  const number = (/** @type {RegExp} */ pattern) => {
    const [, found] = pattern.exec(stdout) ?? [];
    if (found === undefined) throw new Error(`Node ${major}: no ${pattern} in\n${stdout}`);
    return Number(found);
  };
  return {
    version: versionOf(node),
    passed: number(/^# pass (\d+)$/m),
    failed: number(/^# fail (\d+)$/m),
    express4: number(/^# installed express-4 in ([\d.]+) s$/m),
    express5: number(/^# installed express-5 in ([\d.]+) s$/m),
  };
}

/** @param {Row[]} rows */
function markdown(rows) {
  const table = rows.map(
    ({ version, passed, failed, express4, express5 }) =>
      `| ${version} | ${express4.toFixed(2)} s | ${express5.toFixed(2)} s | ${passed} | ${failed} |`,
  );
  return `# Installing

Written by \`npm run test:install\`: test/package.test.js on each version, all with the same binary. The packed tarballs are installed by npm
into empty projects, offline, with Node alone on the path (no compiler, no make, no python), and no script runs. Then the one-line app serves under
Express 4 and Express 5, is loaded by \`require\`, \`import\`, \`-r\` and \`--import\`, and a strict TypeScript program compiles against the types. Wall time
of \`npm install\`, other work on the machine included.

| Node | install, Express 4 project | install, Express 5 project | tests passed | failed |
| --- | --- | --- | --- | --- |
${table.join('\n')}
`;
}

function main() {
  const { values } = parseArgs({ options: { node: { type: 'string' } } });
  const majors = values.node ? values.node.split(',').map(Number) : MAJORS;
  const rows = majors.map(install);
  console.log(markdown(rows));
  if (rows.length === MAJORS.length) fs.writeFileSync(REPORT, markdown(rows));
  if (rows.some(({ failed }) => failed > 0)) process.exitCode = 1;
}

main();
