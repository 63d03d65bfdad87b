'use strict';

// The field's rules of thumb, each on the smallest trace that fires it and on one that must not.

const assert = require('node:assert/strict');
const { describe, test } = require('node:test');
const baselines = require('../benches/baselines.js');

const MB = 1024 * 1024;
const ONE_MB_PER_MINUTE = { bytesPerMs: MB / 60_000 };

/**
 * A minute of samples, one a second.
 * @param {(second: number) => { heapUsed?: number, heapTotal?: number, rss?: number }} at
 */
function minute(at) {
  const samples = Array.from({ length: 61 }, (_, second) => {
    return { t: second * 1000, heapUsed: 10 * MB, heapTotal: 20 * MB, rss: 50 * MB, ...at(second) };
  });
  return { samples, collections: [] };
}

/** @param {number[]} heaps MB after each major collection */
function majors(heaps) {
  const collections = heaps.map((heap, index) => {
    return { t: index * 1000, gc: /** @type {const} */ ('major'), heapUsed: heap * MB };
  });
  return { samples: [], collections };
}

const steady = minute(() => ({}));
const growing = minute((second) => ({ heapUsed: (10 + second / 30) * MB }));
const sawtooth = minute((second) => ({ heapUsed: (10 + (second % 6)) * MB }));

describe('baselines', () => {
  test('a_full_heap_total_fires_at_once', () => {
    const full = minute((second) => ({ heapUsed: second === 7 ? 18 * MB : 10 * MB }));
    assert.deepEqual(baselines.heapTotalShare(full), { fired: true, atMs: 7000 });
    assert.equal(baselines.heapTotalShare(steady).fired, false);
  });

  test('endpoints_and_least_squares_fire_on_growth_above_the_rate_only', () => {
    for (const judge of [baselines.endpointDifference, baselines.leastSquares]) {
      assert.equal(judge(growing, ONE_MB_PER_MINUTE).fired, true, judge.name);
      assert.equal(judge(growing, { bytesPerMs: (3 * MB) / 60_000 }).fired, false, judge.name);
      assert.equal(judge(steady, ONE_MB_PER_MINUTE).fired, false, judge.name);
      assert.equal(
        judge({ samples: [], collections: [] }, ONE_MB_PER_MINUTE).fired,
        false,
        judge.name,
      );
    }
    assert.equal(baselines.leastSquares(sawtooth, ONE_MB_PER_MINUTE).fired, false);
  });

  test('memwatch_wants_five_growing_collections_in_a_row', () => {
    assert.deepEqual(baselines.fiveGrowingCollections(majors([1, 2, 3, 4, 5, 6])), {
      fired: true,
      atMs: 5000,
    });
    assert.equal(baselines.fiveGrowingCollections(majors([1, 2, 3, 4, 5])).fired, false);
    assert.equal(baselines.fiveGrowingCollections(majors([1, 2, 3, 2, 3, 4, 5])).fired, false);
  });

  test('holmes_wants_a_quarter_above_the_mean_of_fifty_seconds', () => {
    const jump = minute((second) => ({ rss: second >= 50 ? 63 * MB : 50 * MB }));
    assert.deepEqual(baselines.tenReadingAverage(jump), { fired: true, atMs: 50_000 });
    const early = minute((second) => ({ rss: second >= 20 ? 63 * MB : 50 * MB }));
    assert.equal(baselines.tenReadingAverage(early).fired, false);
  });

  test('a_trace_is_cut_to_its_span_and_survives_a_torn_last_line', () => {
    const text =
      '{"t":1,"heapUsed":1,"heapTotal":1,"rss":1}\n{"t":5,"gc":"major","heapUsed":2}\n{"t":9,"gc":"minor","heapUsed":2}\n{"t":6,"he';
    const trace = baselines.parseTrace(text, { fromMs: 2, toMs: 8 });
    assert.deepEqual(trace, { samples: [], collections: [{ t: 5, gc: 'major', heapUsed: 2 }] });
  });
});
