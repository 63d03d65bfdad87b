'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { test } = require('node:test');

const ROOT = path.join(__dirname, '..');
const RUN = path.join(ROOT, 'benches', 'run.js');

/** @param {string[]} args */
function bench(...args) {
  return spawnSync(process.execPath, [RUN, ...args], { encoding: 'utf8', timeout: 120_000 });
}

test('the bench measures unattended and writes what it measured', () => {
  const out = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-bench-test-'));
  try {
    const { status, stderr } = bench('--quick', '--only', 'require', '--out', out);
    assert.equal(status, 0, stderr);
    const { schema, results } = JSON.parse(fs.readFileSync(path.join(out, 'bench.json'), 'utf8'));
    assert.equal(schema, 1);
    assert.equal(results.length, 1);
    const [result] = results;
    assert.equal(result.name, 'require');
    assert.equal(result.node, process.version);
    assert.equal(result.failure, null);
    assert.ok(result.figures.wallMs > 0 && result.figures.cpuMs > 0);
    assert.equal(result.requirements.length, 1);
    const report = fs.readFileSync(path.join(out, 'BENCH.md'), 'utf8');
    for (const row of result.rows) assert.ok(report.includes(`| ${row.join(' | ')} |`), report);
    assert.ok(report.includes(result.requirements[0].measured));
  } finally {
    fs.rmSync(out, { recursive: true, force: true });
  }
});

test('the bench names the measurements there are when asked for another', () => {
  const { status, stderr } = bench('--only', 'speed');
  assert.equal(status, 1);
  assert.match(stderr, /no measurement named speed/);
  assert.match(stderr, /loop-gap/);
});

test('the bench names a number of rounds that is none', () => {
  for (const rounds of ['few', '0', '1.5']) {
    const { status, stderr } = bench('--rounds', rounds, '--only', 'idle');
    assert.equal(status, 1);
    assert.ok(stderr.includes(`--rounds: expected a whole number from 1, got ${rounds}`), stderr);
  }
});

test("the README's block is replaced between its marks and nowhere else", () => {
  const { replaceBlock } = require('../benches/support/report.js');
  const text = 'before <!-- bench:begin -->\nold\n<!-- bench:end --> after';
  const replaced = replaceBlock(text, 'new');
  assert.equal(replaced, 'before <!-- bench:begin -->\n\nnew\n\n<!-- bench:end --> after');
  assert.equal(replaceBlock('no marks', 'new'), null);
});

test('quantiles and intervals are those of the definition', () => {
  const { bootstrap, median, quantile } = require('../benches/support/statistics.js');
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(quantile([0, 10], 0.9), 9);
  const [low, high] = bootstrap([[1, 2, 3, 4, 5, 6, 7, 8, 9]], (values) => median(values));
  assert.ok(low >= 1 && low < 5 && high > 5 && high <= 9, `${low} ${high}`);
  assert.deepEqual(
    bootstrap([[2, 2, 2]], (values) => median(values)),
    [2, 2],
  );
});
