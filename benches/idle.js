'use strict';

/**
 * What the guard costs an idle Express app: CPU of all its threads and resident memory, beside the same app
 * without it, at the same time. Two of each make the A/A control.
 */

const { bootstrap, mean, median } = require('./support/statistics.js');
const { Child, ROOT, delay } = require('./support/children.js');
const { cpuNanoseconds, memory } = require('./support/proc.js');
const { interval, megabytes, percent, requirement } = require('./support/words.js');

/** Start-up, lazy compilation and the first ticks are not idling. */
const SETTLE_MS = 12_000;

const KINDS = /** @type {const} */ (['bare', 'bare', 'guarded', 'guarded']);

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  const rounds = quick ? 1 : 4;
  const spanMs = quick ? 15_000 : 45_000;
  /** @type {{ round: number, kind: string, share: number, rss: number, anonymous: number }[]} */
  const runs = [];
  for (let round = 0; round < rounds; round++) {
    // Idle processes do not get into each other's way, and side by side they see the same machine.
    const apps = KINDS.map(
      (kind) =>
        new Child(node, 'app.js', {
          settings: kind === 'guarded' ? { guard: ROOT } : {},
          env: { LEAKGUARD_LOG: 'silent' },
        }),
    );
    await Promise.all(apps.map((app) => app.ask('port')));
    await delay(SETTLE_MS);
    const began = process.hrtime.bigint();
    const before = apps.map((app) => cpuNanoseconds(app.pid));
    await delay(spanMs);
    const after = apps.map((app) => cpuNanoseconds(app.pid));
    const elapsed = Number(process.hrtime.bigint() - began);
    apps.forEach((app, at) => {
      const share = (after[at] - before[at]) / elapsed;
      runs.push({ round, kind: KINDS[at], share, ...memory(app.pid) });
    });
    await Promise.all(apps.map((app) => app.stop()));
  }
  const of = (/** @type {string} */ kind) => runs.filter((one) => one.kind === kind);
  const [bare, guarded] = [of('bare'), of('guarded')];
  const control = [bare.filter((_, at) => at % 2 === 0), bare.filter((_, at) => at % 2 === 1)];
  const pick = (
    /** @type {typeof runs} */ some,
    /** @type {'share' | 'rss' | 'anonymous'} */ what,
  ) => some.map((one) => one[what]);
  const extra = (/** @type {'share' | 'rss' | 'anonymous'} */ what) => {
    const value = median(pick(guarded, what)) - median(pick(bare, what));
    const ends = bootstrap(
      [pick(guarded, what), pick(bare, what)],
      (a, b) => median(a) - median(b),
    );
    return { value, ends };
  };
  const [cpu, rss, anonymous] = [extra('share'), extra('rss'), extra('anonymous')];
  const row = (/** @type {string} */ name, /** @type {typeof runs} */ some) => [
    name,
    String(some.length),
    percent(median(pick(some, 'share'))),
    `${percent(Math.min(...pick(some, 'share')))} to ${percent(Math.max(...pick(some, 'share')))}`,
    megabytes(median(pick(some, 'rss'))),
    `${megabytes(Math.min(...pick(some, 'rss')))} to ${megabytes(Math.max(...pick(some, 'rss')))}`,
    megabytes(median(pick(some, 'anonymous'))),
  ];
  return {
    columns: [
      'app',
      'runs',
      'CPU of one core, median',
      'range',
      'RSS, median',
      'range',
      'of it anonymous',
    ],
    rows: [
      row('guarded', guarded),
      row('bare', bare),
      row('bare, first of each round (A)', control[0]),
      row('bare, second (A)', control[1]),
    ],
    figures: {
      cpuShare: cpu.value,
      cpuShareInterval: cpu.ends,
      controlCpuShare: mean(pick(control[0], 'share')) - mean(pick(control[1], 'share')),
      rssBytes: rss.value,
      rssBytesInterval: rss.ends,
      anonymousBytes: anonymous.value,
      controlRssBytes: median(pick(control[0], 'rss')) - median(pick(control[1], 'rss')),
    },
    requirements: [
      requirement(
        'CPU of the guard in an idle app',
        percent(cpu.value),
        '< 0.1 % of a core',
        cpu.value < 0.001,
      ),
      requirement(
        'RSS of the guard in an idle app',
        megabytes(rss.value),
        '< 8 MB',
        rss.value < 8 * 1024 * 1024,
      ),
    ],
    notes: [
      `The guard adds ${percent(cpu.value)} of a core (95 % ${interval(cpu.ends, percent)}) and ${megabytes(rss.value)} of RSS (${interval(rss.ends, megabytes)}), ${megabytes(anonymous.value)} of it anonymous; spans of ${spanMs / 1000} s.`,
    ],
  };
}

module.exports = {
  name: 'idle',
  title: 'An idle Express app',
  method: [
    'Two guarded apps at default settings and two bare ones idle side by side, in fresh processes each round; CPU of all threads from schedstat (nanoseconds) after 12 s of settling, memory at the end.',
    'The figure is the difference of medians; the two bare apps of a round against each other are the A/A control.',
  ],
  perNode: true,
  seconds: { full: 250, quick: 40 },
  measure,
};
