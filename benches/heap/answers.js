'use strict';

// Does the analyzer name the leak? Every program of test/apps under load, three snapshots each, and what `analyze` of
// the last and `diff` say, by node ids and by signatures; memlab and DevTools on the same files beside it:
//
//   node benches/heap/answers.js [--jobs 2] [--minutes 7] [--only NAME,NAME] [--again] [--node BINARY] [--keep DIRECTORY]
//
// What a program's row needs is kept in target/answers, so that a run that ends after --minutes, or is ended, is
// continued by the next; --again forgets it. Writes docs/ANSWERS.md from the rows that are there. The exit code is 1
// when an answer is wrong.

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs, promisify } = require('node:util');
const { installPackages } = require('../../scripts/setup.js');
const apps = require('../../test/apps/index.js');
const { HELD_BY, answer, snapshots } = require('../../test/heap-drive.js');

const ROOT = path.join(__dirname, '..', '..');
const CLI = path.join(ROOT, 'bin', 'leakguard.js');
const ORACLE = path.join(ROOT, 'test', 'oracle');
const PEERS = path.join(ROOT, 'benches', 'peers');
const ROWS = path.join(ROOT, 'target', 'answers');
const OUT = path.join(ROOT, 'docs', 'ANSWERS.md');

/** A leaking program is driven this much faster than for the guard, a healthy one too. */
const SPEED = 6;
/** Requests of each portion; the first one of a healthy program fills what has a bound. */
const LEAKING_REQUESTS = [300, 500, 500];
/** They leak so little of the JavaScript heap each time that more must come before it is more than noise. */
const MORE_REQUESTS = {
  'outbound-sockets': [300, 2200, 2200],
  'two-hundred-bytes': [300, 2500, 2500],
};
const HEALTHY_REQUESTS = [3000, 600, 600];
/**
 * Driven as for the guard. The first one's batch is flushed by the clock: driven faster, each batch would outweigh what
 * leaks meanwhile. The other one's pool serves 40 requests a second: driven faster, requests pile up before it.
 */
const AT_THEIR_OWN_PACE = new Set(['slow-under-sawtooth', 'connection-pool']);
/** A portion ends after this time at the latest. */
const PORTION_MS = 40_000;
/** `analyze` is to have the leak among so many. */
const AMONG = 3;
const PEER_DEADLINE_MS = 120_000;

const execute = promisify(execFile);

/**
 * @typedef {import('../../test/apps/index.js').App} App
 *
 * @typedef {{ rank: number, line: boolean } | null} Found
 *
 * @typedef {object} Row
 * @property {string} name
 * @property {boolean} leaks
 * @property {{ suspects: number, found: Found }} analyze of the last snapshot
 * @property {{ suspects: number, found: Found }} ids `diff` of the first and the last by node ids
 * @property {{ suspects: number, found: Found }} signatures the same by signatures
 * @property {{ suspects: number, found: Found }} three `diff` of all
 * @property {string} told what `diff` says first, else `analyze`
 * @property {{ leaks: number, named: boolean } | { failure: string }} memlab
 * @property {string} devtools the class with the largest growth in the comparison
 * @property {string} node
 */

/** @param {string} binary @param {string[]} args @param {number} [timeout] */
async function json(binary, args, timeout) {
  const options = { maxBuffer: 1 << 28, timeout, env: { ...process.env, LEAKGUARD: 'off' } };
  const { stdout } = await execute(binary, args, options);
  // memlab's progress display writes on after its answer.
  return JSON.parse(stdout.split('\n').findLast((line) => line.startsWith('{')) ?? '');
}

/** @param {App} app @param {string} directory @param {string} binary */
function drive(app, directory, binary) {
  /** @type {Record<string, number[]>} */
  const more = MORE_REQUESTS;
  const requests = app.leaks === true ? (more[app.name] ?? LEAKING_REQUESTS) : HEALTHY_REQUESTS;
  const portions = requests.map((count) => ({ requests: count, ms: PORTION_MS }));
  if (app.leaks === true && app.notBefore > 0) {
    // It leaks only after a time, and that does not run faster.
    portions[0] = { requests: Number.POSITIVE_INFINITY, ms: app.notBefore * 1000 + 2_000 };
  }
  const unhurried = AT_THEIR_OWN_PACE.has(app.name);
  if (unhurried) for (const portion of portions) portion.requests = Number.POSITIVE_INFINITY;
  return snapshots(app, { node: binary, directory, portions, speed: unhurried ? 1 : SPEED });
}

/** The variable that holds the leak, as one word. @param {string} name */
function holderWord(name) {
  return HELD_BY[name]?.holder?.source.match(/\w+/)?.[0];
}

/**
 * @param {App} app
 * @param {string[]} files
 * @returns {Promise<Row['memlab']>}
 */
async function askMemlab(app, files) {
  try {
    const { leaks, text } = await json(
      process.execPath,
      [path.join(PEERS, 'memlab-leaks.cjs'), ...files],
      PEER_DEADLINE_MS,
    );
    const word = holderWord(app.name);
    return { leaks, named: word !== undefined && new RegExp(`\\b${word}\\b`).test(text) };
  } catch (error) {
    return { failure: String(error).split('\n')[0].slice(0, 60) };
  }
}

/**
 * @param {App} app
 * @param {string[]} files
 * @param {string} binary
 * @returns {Promise<Row>}
 */
async function ask(app, files, binary) {
  const [a, , c] = files;
  /** @param {string[]} args */
  const told = async (...args) => {
    const { suspects } = await json(process.execPath, [CLI, ...args, '--json']);
    return {
      suspects: suspects.length,
      found: answer(app, suspects),
      first: suspects[0]?.sentence,
    };
  };
  const analyze = await told('analyze', c);
  const ids = await told('diff', a, c, '--by', 'node-ids');
  const signatures = await told('diff', a, c, '--by', 'signatures');
  const three = await told('diff', ...files);
  const oracle = await json(process.execPath, [path.join(ORACLE, 'oracle.mjs'), c, '--diff', a]);
  const { name, sizeDelta } = oracle.diff[0] ?? { name: 'nothing', sizeDelta: 0 };
  const version = (await execute(binary, ['--version'])).stdout.trim();
  return {
    name: app.name,
    leaks: app.leaks === true,
    analyze,
    ids,
    signatures,
    three,
    told: String(ids.first ?? three.first ?? '').replaceAll(`${ROOT}/`, ''),
    memlab: await askMemlab(app, files),
    devtools: `${name} ${sizeDelta < 0 ? '-' : '+'}${Math.abs(Math.round(sizeDelta / 1024))} KB`,
    node: version,
  };
}

/** What is wrong with our answers of a row. @param {Row} row @returns {string[]} */
function mistakes(row) {
  const diffs = { ids: row.ids, signatures: row.signatures, three: row.three };
  if (!row.leaks) {
    return Object.entries(diffs).flatMap(([way, { suspects }]) =>
      suspects > 0 ? [`${row.name}: diff by ${way} has ${suspects} suspects`] : [],
    );
  }
  const { holder, waits } = HELD_BY[row.name] ?? {};
  const needsLine = holder !== undefined || waits !== undefined;
  /** @param {string} way @param {Found} found @param {number} among */
  const judge = (way, found, among) => {
    if (found === null) return [`${row.name}: ${way} does not name it`];
    if (found.rank > among) return [`${row.name}: ${way} has it at rank ${found.rank}`];
    return needsLine && !found.line ? [`${row.name}: ${way} names no line of it`] : [];
  };
  return [
    ...judge('analyze', row.analyze.found, AMONG),
    ...Object.entries(diffs).flatMap(([way, { found }]) => judge(`diff by ${way}`, found, 1)),
  ];
}

/** @param {string[]} cells */
const line = (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;

/** @param {Row[]} rows */
function render(rows) {
  /** @param {Found} found */
  const cell = (found) => (found ? `${found.rank}${found.line ? ', line' : ''}` : '-');
  /** @param {Row['memlab']} memlab */
  const memlab = (memlab) =>
    'failure' in memlab ? 'failed' : `${memlab.leaks}${memlab.named ? ', named' : ''}`;
  const leaking = rows.filter(({ leaks }) => leaks);
  const healthy = rows.filter(({ leaks }) => !leaks);
  const wrong = rows.flatMap(mistakes);
  const quiet = healthy.filter((row) => mistakes(row).length === 0).length;
  const right = leaking.filter((row) => mistakes(row).length === 0).length;
  const memlabRight = leaking.filter(({ memlab }) => 'named' in memlab && memlab.named).length;
  const head = ['program', 'analyze', 'diff, ids', 'diff, signatures', 'diff of 3'];
  return [
    '# Does the analyzer name the leak?',
    'Made by `node benches/heap/answers.js`; do not edit. Each program of test/apps under load, three snapshots of one process. The numbers are the rank at which the leak is told, right only with the variable or property that holds it; `line`: with one of its guilty lines. `diff` compares the first snapshot with the last, by node ids as for two snapshots of one process, and by signatures as for two processes, builds or pods.',
    "memlab (`find-leaks` of the same three files with its own rules, made for detached DOM and React nodes): how many leaks it reports, and whether any trace names that variable. DevTools: the class with the largest growth in its comparison of the same two files, which is all that it says without a person's clicks.",
    `Of ${leaking.length} leaking programs all four answers are right for ${right}; memlab names ${memlabRight}. Of ${healthy.length} healthy programs \`diff\` is silent about ${quiet}. Node ${[...new Set(rows.map(({ node }) => node))].join(', ')}.`,
    '## Leaking',
    [
      line([...head, 'memlab', 'DevTools', 'told first by diff']),
      line(['---', '---', '---', '---', '---', '---', '---', '---']),
      ...leaking.map((row) =>
        line([
          row.name,
          ...[row.analyze, row.ids, row.signatures, row.three].map(({ found }) => cell(found)),
          memlab(row.memlab),
          row.devtools,
          row.told,
        ]),
      ),
    ].join('\n'),
    '## Healthy',
    'The number of suspects, which should be 0. `analyze` of one snapshot cannot tell a cache from a leak, and is not shown.',
    [
      line(['program', 'diff, ids', 'diff, signatures', 'diff of 3', 'memlab', 'DevTools']),
      line(['---', '---', '---', '---', '---', '---']),
      ...healthy.map((row) =>
        line([
          row.name,
          ...[row.ids, row.signatures, row.three].map(({ suspects }) => String(suspects)),
          'failure' in row.memlab ? 'failed' : String(row.memlab.leaks),
          row.devtools,
        ]),
      ),
    ].join('\n'),
    ...(wrong.length > 0 ? ['## Wrong', wrong.map((one) => `- ${one}`).join('\n')] : []),
  ].join('\n\n');
}

async function main() {
  const { values } = parseArgs({
    options: {
      node: { type: 'string', default: process.execPath },
      only: { type: 'string' },
      keep: { type: 'string' },
      jobs: { type: 'string', default: '1' },
      minutes: { type: 'string', default: '600' },
      again: { type: 'boolean', default: false },
    },
  });
  const stopAt = Date.now() + Number(values.minutes) * 60_000;
  await installPackages(ORACLE);
  // Of memlab only what reads files: its browser is not fetched.
  await installPackages(PEERS, ['--ignore-scripts']);
  await execute(process.execPath, [path.join(ORACLE, 'build.mjs')]);
  fs.mkdirSync(ROWS, { recursive: true });
  const known = [...apps.LEAKING.filter(({ name }) => HELD_BY[name]), ...apps.HEALTHY];
  const only = values.only?.split(',');
  const rowFile = (/** @type {App} */ { name }) => path.join(ROWS, `${name}.json`);
  const waiting = known.filter(
    (app) =>
      (only?.includes(app.name) ?? true) &&
      (values.again || only !== undefined || !fs.existsSync(rowFile(app))),
  );
  const worker = async () => {
    for (;;) {
      const app = Date.now() < stopAt ? waiting.shift() : undefined;
      if (app === undefined) return;
      const directory = values.keep ?? path.join(ROWS, app.name);
      fs.mkdirSync(directory, { recursive: true });
      try {
        const kept = [0, 1, 2].map((at) => path.join(directory, `${app.name}.${at}.heapsnapshot`));
        const files = kept.every((file) => fs.existsSync(file))
          ? kept
          : await drive(app, directory, values.node);
        const row = await ask(app, files, values.node);
        fs.writeFileSync(rowFile(app), JSON.stringify(row));
        console.log([app.name, ...mistakes(row)].join('\n  '));
      } catch (error) {
        console.log(`${app.name}\n  failed: ${error instanceof Error ? error.message : error}`);
      } finally {
        if (!values.keep) fs.rmSync(directory, { recursive: true, force: true });
      }
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker));
  /** @type {Row[]} */
  const rows = known
    .filter((app) => fs.existsSync(rowFile(app)))
    .map((app) => JSON.parse(fs.readFileSync(rowFile(app), 'utf8')));
  fs.writeFileSync(OUT, `${render(rows)}\n`);
  const wrong = rows.flatMap(mistakes);
  console.log(`${rows.length} of ${known.length} programs, ${wrong.length} wrong answers`);
  if (wrong.length > 0) process.exitCode = 1;
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
