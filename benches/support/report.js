'use strict';

/**
 * Writes what was measured: docs/BENCH.md, and the block of README.md between its marks. Both are made from the
 * json alone, so that no figure is ever typed.
 */

const README_MARKS = { begin: '<!-- bench:begin -->', end: '<!-- bench:end -->' };

/**
 * @typedef {object} Result one measurement on one Node version
 * @property {string} name
 * @property {string} title
 * @property {string[]} method
 * @property {string | null} node version; null where no Node takes part
 * @property {string} date
 * @property {boolean} quick
 * @property {number} seconds
 * @property {number} loadAverage of the machine when it began
 * @property {Machine} machine
 * @property {string} leakguard version
 * @property {string | null} commit
 * @property {string | null} failure
 * @property {string[]} columns
 * @property {string[][]} rows
 * @property {import('./words.js').Requirement[]} requirements
 * @property {string[]} notes
 * @property {{ name: string, output: string }[]} [outputs]
 * @property {unknown} [figures]
 *
 * @typedef {object} Machine
 * @property {string} cpu
 * @property {number} cores
 * @property {number} memoryBytes
 * @property {string} system
 *
 * @typedef {{ schema: 1, results: Result[] }} Board
 */

/** @param {string[]} cells */
function line(cells) {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
}

/** @param {string[]} columns @param {string[][]} rows */
function table(columns, rows) {
  return [line(columns), line(columns.map(() => '---')), ...rows.map(line)].join('\n');
}

/** @param {Machine} machine */
function machineWords({ cpu, cores, memoryBytes, system }) {
  return `${cpu}, ${cores} cores, ${Math.round(memoryBytes / 1024 ** 3)} GB, ${system}`;
}

/** @param {Board} board */
function requirementRows(board) {
  return board.results.flatMap((result) =>
    result.failure
      ? [[result.title, result.node ?? '', `failed: ${result.failure}`, '', 'no']]
      : result.requirements.map(({ what, measured, limit, met }) => [
          what,
          result.node ?? '',
          measured,
          limit,
          met ? 'yes' : '**no**',
        ]),
  );
}

const REQUIREMENT_COLUMNS = ['what', 'Node', 'measured', 'wanted', 'met'];

/** @param {Board} board @returns {string} docs/BENCH.md */
function renderBench(board) {
  const parts = [
    '# Benchmarks',
    'Made by `npm run bench`; do not edit. Figures of one machine: trust ratios and differences more than times.',
    table(REQUIREMENT_COLUMNS, requirementRows(board)),
  ];
  let title = '';
  for (const result of board.results) {
    if (result.title !== title) {
      title = result.title;
      parts.push(`## ${title}`, result.method.join('\n'));
    }
    if (result.node) parts.push(`### Node ${result.node}`);
    if (result.failure) parts.push(`Failed: ${result.failure}`);
    if (result.rows.length > 0) parts.push(table(result.columns, result.rows));
    for (const { name, output } of result.outputs ?? []) {
      parts.push(`\`cargo bench --bench ${name}\``, `\`\`\`text\n${output}\n\`\`\``);
    }
    parts.push(...result.notes);
    parts.push(
      `*${result.date.slice(0, 16).replace('T', ' ')} UTC, ${machineWords(result.machine)}, load average ${result.loadAverage.toFixed(1)} at the start, leakguard ${result.leakguard}${result.commit ? ` (${result.commit})` : ''}${result.quick ? ', a quick run: for a look, not for figures' : ''}.*`,
    );
  }
  return `${parts.join('\n\n')}\n`;
}

/** @param {Board} board @returns {string} what stands between the marks */
function renderReadme(board) {
  const machines = [...new Set(board.results.map((result) => machineWords(result.machine)))];
  return [
    table(REQUIREMENT_COLUMNS, requirementRows(board)),
    `Made by \`npm run bench\` on ${machines.join('; ')}. Methods, spread and control runs are in [docs/BENCH.md](docs/BENCH.md).`,
  ].join('\n\n');
}

/**
 * @param {string} text
 * @param {string} block
 * @returns {string | null} null where the marks are not there
 */
function replaceBlock(text, block) {
  const begin = text.indexOf(README_MARKS.begin);
  const end = text.indexOf(README_MARKS.end, begin);
  if (begin < 0 || end < 0) return null;
  return `${text.slice(0, begin + README_MARKS.begin.length)}\n\n${block}\n\n${text.slice(end)}`;
}

module.exports = { renderBench, renderReadme, replaceBlock };
