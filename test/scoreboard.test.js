'use strict';

// The scoreboard's report: what it counts, and that it leaves the rest of a README alone.

const assert = require('node:assert/strict');
const { describe, test } = require('node:test');
const { renderDetection, renderReadme, replaceBlock } = require('../benches/scoreboard-report.js');

/** @param {Partial<import('../benches/scoreboard.js').Row>} given */
function row(given) {
  return {
    name: 'map-cache',
    leaks: true,
    readme: true,
    node: 'v22.1.0',
    seed: 1,
    verdict: 'found',
    series: ['live_heap'],
    seconds: 40,
    cause: 'right',
    sentence: 'the live heap grows | 4 MB/min',
    snapshot: 'held (700)',
    slopeFound: 4.1,
    slopeTrue: 4,
    slopeUnit: 'MB/min',
    constant: true,
    baselines: {
      heap_total: false,
      endpoints: true,
      least_squares: true,
      memwatch: false,
      holmes: false,
    },
    requests: 2000,
    errors: 0,
    problem: null,
    ...given,
  };
}

/** @type {any} */
const board = {
  date: '2026-01-02T03:04:05.000Z',
  machine: { cpu: 'a processor', cores: 2, memoryGB: 24, system: 'Linux 6' },
  jobs: 1,
  settings: { LEAKGUARD_WINDOW: '32s' },
  rows: [
    row({}),
    row({ seed: 2, slopeFound: 6, cause: 'wrong', snapshot: 'refused: 3 GB short', seconds: 60 }),
    row({
      name: 'timers',
      verdict: 'missed',
      series: [],
      seconds: null,
      cause: null,
      snapshot: null,
      slopeFound: null,
    }),
    row({
      name: 'lru-cache',
      leaks: false,
      verdict: 'silent',
      series: [],
      seconds: null,
      cause: null,
      snapshot: null,
    }),
  ],
};

describe('scoreboard report', () => {
  test('totals_count_found_leaks_false_alarms_causes_and_slopes', () => {
    const line = renderDetection(board)
      .split('\n')
      .find((text) => text.startsWith('| v22.1.0'));
    assert.equal(
      line,
      '| v22.1.0 | 2 of 3 (67 %) | 0 of 1 (0 %) | 1 of 2 (50 %) | 1 of 2 (50 %) | 1 of 2 (50 %) | 26 % | 50 s |',
    );
  });

  test('the_field_stands_beside_it', () => {
    const text = renderDetection(board);
    assert.match(text, /\| leakguard \| 2 of 3 \(67 %\) \| 0 of 1 \(0 %\) \|/);
    assert.match(text, /\| endpoint difference \| 3 of 3 \(100 %\) \| 1 of 1 \(100 %\) \|/);
  });

  test('a_sentence_cannot_break_the_table', () => {
    assert.match(renderDetection(board), /the live heap grows \\\| 4 MB\/min/);
  });

  test('only_the_block_of_the_readme_changes', () => {
    const readme = 'before\n<!-- scoreboard:begin -->\nold\n<!-- scoreboard:end -->\nafter\n';
    const written = replaceBlock(readme, renderReadme(board));
    assert.match(written, /^before\n<!-- scoreboard:begin -->\n\| program \|/);
    assert.match(written, /\n<!-- scoreboard:end -->\nafter\n$/);
    assert.match(
      written,
      /\| map-cache \| leaks \| found 2x \| live_heap 2x \| 50 s \| right 1x, wrong 1x \| held 1x, refused 1x \|/,
    );
    assert.doesNotMatch(written, /old/);
    assert.throws(() => replaceBlock('no marks', ''), /scoreboard:begin/);
  });
});
