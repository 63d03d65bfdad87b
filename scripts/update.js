'use strict';

/**
 * Rewrites what is made from the native tables: the settings in README.md, docs/SETTINGS.md and index.d.ts from that
 * of the options, docs/METRICS.md from that of the metric families. `--check` compares and changes nothing.
 */

const fs = require('node:fs');
const path = require('node:path');
const { load } = require('../lib/load.js');

const ROOT = path.join(__dirname, '..');

/**
 * Replaces the lines between two marks.
 *
 * @param {string} text
 * @param {string} begin start of the line that opens the block
 * @param {string} end start of the line that closes it
 * @param {string[]} lines
 */
function between(text, begin, end, lines) {
  const all = text.split('\n');
  const from = all.findIndex((line) => line.trim().startsWith(begin));
  const to = all.findIndex((line, i) => i > from && line.trim().startsWith(end));
  if (from < 0 || to < 0) throw new Error(`no block ${begin} … ${end}`);
  return [...all.slice(0, from + 1), ...lines, ...all.slice(to)].join('\n');
}

/** @returns {Map<string, string>} what each file should be */
function made() {
  const { binding, error } = load();
  if (error !== null) throw new Error(error.message);
  /** @type {{ key: string, variable: string, default: string, accepted: string, help: string }[]} */
  const options = binding.options();
  const table = [
    '| variable (option) | default | meaning |',
    '|---|---|---|',
    ...options.map(
      ({ key, variable, default: value, help }) =>
        `| \`${variable}\` (\`${key}\`) | \`${value}\` | ${help} |`,
    ),
  ];
  const types = options.flatMap(({ key, default: value, accepted, help }) => [
    `    /** ${capital(help)}. Accepted: ${accepted}. Default: \`${value}\`. */`,
    `    ${key}?: ${typeOf(accepted)};`,
  ]);
  /** @type {Map<string, string>} */
  const files = new Map();
  const put = (
    /** @type {string} */ name,
    /** @type {string} */ begin,
    /** @type {string} */ end,
    /** @type {string[]} */ lines,
  ) => {
    const text = fs.readFileSync(path.join(ROOT, name), 'utf8');
    files.set(name, between(text, begin, end, lines));
  };
  put('index.d.ts', '// options:begin', '// options:end', types);
  put('README.md', '<!-- options:begin', '<!-- options:end', table);
  const settings = options.flatMap(({ key, variable, default: value, accepted, help }) => [
    '',
    `## \`${variable}\` (\`${key}\`)`,
    '',
    `${capital(help)}.`,
    '',
    `- Accepted: ${accepted}`,
    `- Default: \`${value}\``,
  ]);
  put('docs/SETTINGS.md', '<!-- settings:begin', '<!-- settings:end', [...settings, '']);
  put('docs/METRICS.md', '<!-- metrics:begin', '<!-- metrics:end', metricsTable(binding));
  return files;
}

/** @param {any} binding */
function metricsTable(binding) {
  /** @type {import('../lib/families').Family[]} */
  const families = binding.metricFamilies();
  return [
    '| Prometheus | labels | OpenTelemetry (unit) | what |',
    '| --- | --- | --- | --- |',
    ...families.map(({ name, labels, otel, unit, help }) => {
      const cells = [
        `\`${name}\``,
        labels.map((label) => `\`${label}\``).join(', '),
        otel === undefined ? '' : `\`${otel}\` (\`${unit}\`)`,
        help,
      ];
      return `| ${cells.join(' | ')} |`;
    }),
  ];
}

/** @param {string} text */
function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** @param {string} accepted */
function typeOf(accepted) {
  if (accepted.startsWith('on or off')) return "boolean | 'on' | 'off'";
  if (accepted.startsWith('a whole number')) return 'number | string';
  const words = /^one of (.+)$/.exec(accepted);
  if (words)
    return words[1]
      .split(', ')
      .map((word) => `'${word}'`)
      .join(' | ');
  return 'string';
}

if (require.main === module) {
  const check = process.argv.includes('--check');
  let stale = 0;
  for (const [name, text] of made()) {
    if (fs.readFileSync(path.join(ROOT, name), 'utf8') === text) continue;
    stale++;
    if (check) console.error(`${name} is not what the native tables make it: run npm run update`);
    else fs.writeFileSync(path.join(ROOT, name), text);
  }
  process.exitCode = check && stale > 0 ? 1 : 0;
}

module.exports = { made };
