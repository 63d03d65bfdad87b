'use strict';

// Turns the scoreboard's rows into the tables of docs/DETECTION.md and README.md. Pure: rows in, text out.

const { BASELINES } = require('./baselines.js');

const BEGIN = '<!-- scoreboard:begin -->';
const END = '<!-- scoreboard:end -->';
/** A slope is right if it is within this share of the true one. */
const SLOPE_TOLERANCE = 0.2;

/**
 * @typedef {import('./scoreboard.js').Row} Row
 * @typedef {object} Board
 * @property {string} date
 * @property {{ cpu: string, cores: number, memoryGB: number, system: string }} machine
 * @property {number} jobs
 * @property {Record<string, string>} settings
 * @property {Row[]} rows
 * @property {string[]} [notes] what a reader must know of how the rows were made, written by hand
 */

/**
 * The whole of docs/DETECTION.md.
 * @param {Board} board
 */
function renderDetection(board) {
  const { rows, machine } = board;
  const of = (/** @type {Row['leaks']} */ leaks) => rows.filter((row) => row.leaks === leaks);
  const versions = [...new Set(rows.map((row) => row.node))];
  const settings = Object.entries(board.settings).map(([name, value]) => `\`${name}=${value}\``);
  return `${[
    '# Detection scoreboard',
    'Written by `npm run scoreboard`; do not edit. Each row is one run of a program of `test/apps` under its seeded load with the guard preloaded. ' +
      'True slopes come from a run of the same program without the guard: readings after forced garbage collections over the same stretch of its life. ' +
      'Where what a call leaks is known better than two such readings tell, it is that times the calls of the stretch; ' +
      "the field's rules of thumb are judged on the trace of a control run, over its whole length.",
    `${board.date.slice(0, 10)}, ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGB} GB, ${machine.system}; Node ${versions.join(', ')}; ` +
      `${board.jobs} at a time; ${settings.join(' ')}.`,
    ...(board.notes ?? []),
    '## Totals',
    totals(rows, versions),
    '## The field beside it',
    'Leaking programs for which each rule fired, and healthy programs for which it fired as well.',
    field(rows),
    '## Leaking programs',
    leakingTable(of(true)),
    '## Healthy programs',
    healthyTable(of(false)),
    '## Undecidable programs',
    'A cache that fills during the whole run is a leak until it is full. What the guard says of such programs is neither right nor wrong.',
    leakingTable(of('undecidable')),
    '## What the guard said',
    sentences(rows),
  ].join('\n\n')}\n`;
}

/**
 * The README's table, one row a program: how many of its runs were right.
 * @param {Board} board
 */
function renderReadme(board) {
  const names = [...new Set(board.rows.filter((row) => row.readme).map((row) => row.name))];
  const versions = [...new Set(board.rows.map((row) => row.node))];
  const lines = names.map((name) => {
    const runs = board.rows.filter((row) => row.name === name);
    const found = runs.filter((row) => row.seconds !== null);
    return [
      name,
      runs[0].leaks ? 'leaks' : 'healthy',
      tally(runs.map((row) => row.verdict)),
      tally(found.flatMap((row) => row.series)),
      found.length ? `${median(found.map((row) => row.seconds ?? 0)).toFixed(0)} s` : '',
      tally(found.map((row) => row.cause)),
      tally(found.map((row) => row.snapshot?.replace(/[ :(].*/, '') ?? null)),
    ];
  });
  const settings = Object.entries(board.settings).map(
    ([setting, value]) => `\`${setting}=${value}\``,
  );
  return [
    table(['program', 'is', 'verdict', 'series', 'found after', 'cause', 'snapshot'], lines),
    `${board.date.slice(0, 10)}, Node ${versions.join(', ')}, ${settings.join(' ')}; by \`npm run scoreboard -- --readme\`.`,
  ].join('\n\n');
}

/**
 * @param {string} text a file with the two marks
 * @param {string} block
 */
function replaceBlock(text, block) {
  const begin = text.indexOf(BEGIN);
  const end = text.indexOf(END);
  if (begin < 0 || end < begin)
    throw new Error(`README.md: expected the marks ${BEGIN} and ${END}`);
  return `${text.slice(0, begin + BEGIN.length)}\n${block}\n${text.slice(end)}`;
}

/**
 * @param {Row[]} rows
 * @param {string[]} versions
 */
function totals(rows, versions) {
  const groups = [
    ...versions.map((version) => ({ version, group: rows.filter((row) => row.node === version) })),
  ];
  if (versions.length > 1) groups.push({ version: 'all', group: rows });
  return table(
    [
      'Node',
      'leaks found',
      'false alarms',
      'cause right',
      'snapshot holds the leak',
      'slope within 20 %',
      'median slope error',
      'median time to finding',
    ],
    groups.map(({ version, group }) => {
      const leaking = group.filter((row) => row.leaks === true);
      const found = leaking.filter((row) => row.verdict === 'found');
      const healthy = group.filter((row) => row.leaks === false);
      const snapshots = found.filter((row) => row.snapshot !== null);
      const errors = found.map(slopeError).filter((error) => error !== null);
      return [
        version,
        share(found.length, leaking.length),
        share(healthy.filter((row) => row.verdict === 'false alarm').length, healthy.length),
        share(found.filter((row) => row.cause === 'right').length, found.length),
        share(snapshots.filter((row) => row.snapshot?.startsWith('held')).length, snapshots.length),
        share(errors.filter((error) => error <= SLOPE_TOLERANCE).length, errors.length),
        errors.length ? `${(100 * median(errors)).toFixed(0)} %` : '',
        found.length ? `${median(found.map((row) => row.seconds ?? 0)).toFixed(0)} s` : '',
      ];
    }),
  );
}

/** @param {Row[]} rows */
function field(rows) {
  const judged = rows.filter((row) => row.baselines !== null);
  const leaking = judged.filter((row) => row.leaks === true);
  const healthy = judged.filter((row) => row.leaks === false);
  const guard = [
    'leakguard',
    share(leaking.filter((row) => row.verdict === 'found').length, leaking.length),
    share(healthy.filter((row) => row.verdict === 'false alarm').length, healthy.length),
  ];
  const others = BASELINES.map(({ id, label }) => [
    label,
    share(leaking.filter((row) => row.baselines?.[id]).length, leaking.length),
    share(healthy.filter((row) => row.baselines?.[id]).length, healthy.length),
  ]);
  return table(['rule', 'leaks found', 'false alarms'], [guard, ...others]);
}

/** @param {Row[]} rows */
function leakingTable(rows) {
  return table(
    [
      'program',
      'Node',
      'seed',
      'verdict',
      'series',
      'after',
      'cause',
      'snapshot',
      'slope found',
      'true slope',
      'error',
      'the field fired',
    ],
    rows.map((row) => [
      row.name,
      row.node,
      String(row.seed),
      row.problem && row.verdict === 'crashed' ? `crashed: ${row.problem}` : row.verdict,
      row.series.join(', '),
      row.seconds === null ? '' : `${row.seconds} s`,
      row.cause ?? '',
      row.snapshot ?? '',
      rate(row.slopeFound, row.slopeUnit),
      row.constant ? rate(row.slopeTrue, row.slopeUnit) : 'not constant',
      errorOf(row),
      fired(row),
    ]),
  );
}

/** @param {Row[]} rows */
function healthyTable(rows) {
  return table(
    [
      'program',
      'Node',
      'seed',
      'verdict',
      'series',
      'after',
      'requests',
      'errors',
      'the field fired',
    ],
    rows.map((row) => [
      row.name,
      row.node,
      String(row.seed),
      row.problem && row.verdict === 'crashed' ? `crashed: ${row.problem}` : row.verdict,
      row.series.join(', '),
      row.seconds === null ? '' : `${row.seconds} s`,
      String(row.requests),
      String(row.errors),
      fired(row),
    ]),
  );
}

/** @param {Row[]} rows */
function sentences(rows) {
  const said = rows.filter((row) => row.sentence !== null);
  if (said.length === 0) return 'Nothing.';
  return said
    .map((row) => `- ${row.name} (${row.node}, seed ${row.seed}): ${cellText(row.sentence ?? '')}`)
    .join('\n');
}

/**
 * Relative error of the slope, null where there is nothing to compare.
 * @param {Row} row
 */
function slopeError(row) {
  if (!row.constant || row.slopeFound === null || row.slopeTrue === null || row.slopeTrue === 0)
    return null;
  return Math.abs(row.slopeFound / row.slopeTrue - 1);
}

/** @param {Row} row with its sign: too steep or too flat */
function errorOf(row) {
  if (slopeError(row) === null) return '';
  const error = 100 * ((row.slopeFound ?? 0) / (row.slopeTrue ?? 1) - 1);
  return `${error < 0 ? '' : '+'}${error.toFixed(0)} %`;
}

/** @param {Row} row */
function fired(row) {
  if (row.baselines === null) return '';
  return BASELINES.filter(({ id }) => row.baselines?.[id])
    .map(({ id }) => id)
    .join(', ');
}

/**
 * @param {number | null} value
 * @param {string | null} unit
 */
function rate(value, unit) {
  if (value === null || unit === null) return '';
  return `${value.toFixed(unit === '/min' ? 0 : 2)} ${unit}`;
}

/**
 * @param {number} part
 * @param {number} whole
 */
function share(part, whole) {
  return whole === 0 ? 'none run' : `${part} of ${whole} (${((100 * part) / whole).toFixed(0)} %)`;
}

/** @param {(string | null)[]} words */
function tally(words) {
  const counts = new Map();
  for (const word of words) if (word !== null) counts.set(word, (counts.get(word) ?? 0) + 1);
  const several = words.length > 1;
  return [...counts].map(([word, count]) => (several ? `${word} ${count}x` : word)).join(', ');
}

/** @param {number[]} numbers */
function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * @param {string[]} head
 * @param {string[][]} lines
 */
function table(head, lines) {
  if (lines.length === 0) return 'None run.';
  const row = (/** @type {string[]} */ cells) => `| ${cells.map(cellText).join(' | ')} |`;
  return [row(head), row(head.map(() => '---')), ...lines.map(row)].join('\n');
}

/** @param {string} cell */
function cellText(cell) {
  return cell.replaceAll('|', '\\|').replace(/\s*\n\s*/g, ' ');
}

module.exports = { renderDetection, renderReadme, replaceBlock };
