'use strict';

// Does the analyzer name the leak? Every program of test/apps under load, three snapshots each, and what `analyze` of
// the last and `diff` of the three (by node ids and by signatures) and of two say; DevTools' comparison beside it:
//
//   node benches/heap/answers.js [--node BINARY] [--only NAME,NAME] [--keep DIRECTORY]
//
// Prints a table in Markdown: the rank at which the leak is told, with `line` when a guilty line is told with it;
// for healthy programs the number of suspects, which should be 0.

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs, promisify } = require('node:util');
const { installPackages } = require('../../scripts/setup.js');
const apps = require('../../test/apps/index.js');
const { HELD_BY, answer, snapshots } = require('../../test/heap-drive.js');

const ROOT = path.join(__dirname, '..', '..');
const CLI = path.join(ROOT, 'bin', 'leakguard.js');
const ORACLE = path.join(ROOT, 'test', 'oracle');
const LEAK_MS = 6_000;
/** Long enough for what has a bound to reach it. */
const WARM_UP_MS = 35_000;

const execute = promisify(execFile);

/** @param {string[]} args */
async function node(args) {
  const options = { maxBuffer: 1 << 28, env: { ...process.env, LEAKGUARD: 'off' } };
  const { stdout } = await execute(process.execPath, args, options);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
}

/**
 * Files of a former run, or new ones.
 * @param {import('../../test/apps/index.js').App} app
 * @param {string} directory
 * @param {string} binary
 */
async function files(app, directory, binary) {
  const kept = [0, 1, 2].map((index) => path.join(directory, `${app.name}.${index}.heapsnapshot`));
  if (kept.every((file) => fs.existsSync(file))) return kept;
  const first = app.leaks === true ? Math.max(LEAK_MS, app.notBefore * 1000) : WARM_UP_MS;
  const portions = [first, LEAK_MS, LEAK_MS].map((ms) => ({ ms }));
  return snapshots(app, { node: binary, directory, portions, speed: app.leaks === true ? 3 : 1 });
}

/**
 * @param {import('../../test/apps/index.js').App} app
 * @param {string[]} files
 */
async function row(app, [a, b, c]) {
  const analysis = await node([CLI, 'analyze', c, '--json']);
  const ids = await node([CLI, 'diff', a, b, c, '--by', 'node-ids', '--json']);
  const signatures = await node([CLI, 'diff', a, b, c, '--by', 'signatures', '--json']);
  const two = await node([CLI, 'diff', a, c, '--json']);
  const oracle = await node([path.join(ORACLE, 'oracle.mjs'), c, '--diff', a]);
  const { name, sizeDelta } = oracle.diff[0];
  const devtools = `${name} +${Math.round(sizeDelta / 1024)} KB`;
  const cells = [analysis, ids, signatures, two].map(({ suspects }) => {
    if (app.leaks !== true) return `${suspects.length}`;
    const found = answer(app, suspects);
    return found ? `${found.rank}${found.line ? ', line' : ''}` : '-';
  });
  return { app, cells, devtools, first: ids.suspects[0]?.sentence ?? '' };
}

async function main() {
  const { values } = parseArgs({
    options: {
      node: { type: 'string', default: process.execPath },
      only: { type: 'string' },
      keep: { type: 'string' },
    },
  });
  await installPackages(ORACLE);
  await execute(process.execPath, [path.join(ORACLE, 'build.mjs')]);
  const directory = values.keep ?? fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-answers-'));
  fs.mkdirSync(directory, { recursive: true });
  const known = apps.LEAKING.filter(({ name }) => HELD_BY[name]);
  const wanted = [...known, ...apps.HEALTHY].filter(
    ({ name }) => !values.only || values.only.split(',').includes(name),
  );
  console.log(
    '| program | analyze | diff of 3, ids | diff of 3, signatures | diff of 2 | DevTools: largest growth | told first |',
  );
  console.log('|---|---|---|---|---|---|---|');
  for (const app of wanted) {
    const { cells, devtools, first } = await row(app, await files(app, directory, values.node));
    const told = first.replaceAll(`${ROOT}/`, '').replaceAll('|', '\\|');
    console.log(`| ${app.name} | ${cells.join(' | ')} | ${devtools} | ${told} |`);
  }
  if (!values.keep) fs.rmSync(directory, { recursive: true, force: true });
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
