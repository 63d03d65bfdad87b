'use strict';

// `leakguard report DIR --json` of a real directory against the table of docs/HISTORY-JSON.md: every field of the
// output is in the table with its type, and what the table does not call optional is in the output.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { act, directory, heard, start } = require('./ending.js');

const ROOT = path.join(__dirname, '..');

/**
 * @typedef {object} Documented
 * @property {string} type
 * @property {boolean} optional
 * @property {boolean} nullable
 */

/** @returns {Map<string, Documented>} */
function documented() {
  const text = fs.readFileSync(path.join(ROOT, 'docs', 'HISTORY-JSON.md'), 'utf8');
  const rows = [...text.matchAll(/^\| `([^`]+)`\s*\| ([^|]+?)\s*\|/gm)];
  return new Map(
    rows.map(([, field, words]) => {
      const [type, ...rest] = words.split(' ');
      return [
        field,
        {
          type: type.replace('?', ''),
          optional: type.endsWith('?'),
          nullable: rest.join(' ') === 'or null',
        },
      ];
    }),
  );
}

/** @type {Record<string, (value: any) => boolean>} */
const TYPES = {
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number',
  integer: Number.isInteger,
  boolean: (value) => typeof value === 'boolean',
  array: Array.isArray,
  object: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  pair: (value) => Array.isArray(value) && value.length === 2 && value.every(Number.isFinite),
  value: () => true,
};

/**
 * What is wrong with a value by the table; notes each field it meets.
 *
 * @param {Map<string, Documented>} table
 * @param {Set<string>} met
 * @param {string} field
 * @param {unknown} value
 * @returns {string[]}
 */
function problems(table, met, field, value) {
  met.add(field);
  const row = table.get(field);
  if (row === undefined) return [`${field} is not documented`];
  if (value === null && row.nullable) return [];
  if (!TYPES[row.type](value)) return [`${field} is no ${row.type}: ${JSON.stringify(value)}`];
  if (row.type === 'value' || row.type === 'pair') return [];
  if (Array.isArray(value)) {
    return value.flatMap((one) =>
      table.has(`${field}[]`)
        ? problems(table, met, `${field}[]`, one)
        : members(table, met, `${field}[].`, one),
    );
  }
  return row.type === 'object' ? members(table, met, `${field}.`, value) : [];
}

/**
 * @param {Map<string, Documented>} table
 * @param {Set<string>} met
 * @param {string} prefix
 * @param {any} object
 * @returns {string[]}
 */
function members(table, met, prefix, object) {
  const known = [...table].filter(
    ([field]) => field.startsWith(prefix) && /^\w+$/.test(field.slice(prefix.length)),
  );
  const absent = known.filter(
    ([field, { optional }]) => !optional && !(field.slice(prefix.length) in object),
  );
  return [
    ...absent.map(([field]) => `${field} is absent`),
    ...Object.entries(object).flatMap(([key, value]) =>
      problems(table, met, `${prefix}${key}`, value),
    ),
  ];
}

test('the JSON of a directory is as docs/HISTORY-JSON.md says', async (t) => {
  const dir = path.join(directory(t), 'evidence');
  const run = await start(dir, {
    env: {
      LEAKGUARD_SNAPSHOT: 'inline',
      LEAKGUARD_INTERVAL: '200ms',
      LEAKGUARD_MAX_SNAPSHOTS: '1',
    },
  });
  // One snapshot that is taken, and one that is refused.
  for (let round = 0; round < 2; round++) {
    act(run.app, 'snapshot');
    await heard(run, 'answer');
    run.messages.length = 0;
  }
  act(run.app, 'exit', 0);
  await run.app.exit;
  const finding = { schema: 1, kind: 'finding', sentence: 'made by hand' };
  fs.writeFileSync(path.join(dir, 'Finding.20200101.000000.1.0.001.json'), JSON.stringify(finding));
  fs.writeFileSync(path.join(dir, 'Finding.20200101.000001.1.0.002.json'), '{"kind":');

  const cli = path.join(ROOT, 'bin', 'leakguard.js');
  const text = execFileSync(process.execPath, [cli, 'report', dir, '--json'], { encoding: 'utf8' });
  assert.equal(text.indexOf('\n'), text.length - 1);
  const history = JSON.parse(text);
  assert.equal(history.schema, 1);
  assert.deepEqual(history.findings[0].content, finding);

  const table = documented();
  /** @type {Set<string>} */
  const met = new Set();
  assert.deepEqual(members(table, met, '', history), []);
  const required = [...table].filter(([, { optional }]) => !optional).map(([field]) => field);
  assert.deepEqual(
    required.filter((field) => !met.has(field)),
    [],
  );
  const kinds = history.runs[0].events.map((/** @type {{ kind: string }} */ { kind }) => kind);
  for (const kind of ['snapshot_started', 'snapshot_ended', 'refused', 'exit']) {
    assert.ok(kinds.includes(kind), `${kind} in ${kinds}`);
  }
});
