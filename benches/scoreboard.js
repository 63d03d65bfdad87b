'use strict';

// The scoreboard: runs every program of test/apps under its load with the guard loaded as a user loads it, and writes
// what the guard said beside what is true: verdict, series, seconds to the finding, cause, snapshot, slope. A control
// run without the guard (cached per program, Node and seed) gives the true slope and the trace that the field's
// rules of thumb are judged by. Unattended; it judges the guard only by the files it leaves.

const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { setTimeout: delay } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const apps = require('../test/apps/index.js');
const { runLoad } = require('../test/apps/load.js');
const { FAST_SETTINGS, startApp } = require('../test/harness.js');
const { countHeld } = require('../test/heap-contents.js');
const { nodeBinary, versionOf } = require('../test/matrix/nodes.js');
const { BASELINES, parseTrace } = require('./baselines.js');
const { mean } = require('./support/statistics.js');
const { renderDetection, renderReadme, replaceBlock } = require('./scoreboard-report.js');

const ROOT = path.join(__dirname, '..');
const README = path.join(ROOT, 'README.md');
const CONTROL = path.join(ROOT, 'test', 'apps', 'control.js');
const CACHE = path.join(ROOT, 'target', 'scoreboard');

const USAGE = `npm run scoreboard -- [options]
  --node 20,22        Node versions, default the running one
  --seeds 2           seeds of the load, default 1
  --only NAME,...     only these programs
  --half              every other program, the other half on the next version
  --full              all that docs/DETECTION.md is made of: every program on Node 22 with two seeds, every other one
                      on 20, 24 and 26. What the report holds already is not run again: an interrupted run goes on
  --fresh             with --full: run again what is there already
  --for 30m           begin no program after this time; with --full the next call goes on from there
  --jobs 1            programs at a time; more than 1 is for a look, not for figures
  --rate 1MB/min --window 32s --warmup 10s    the guard's settings
  --control 75s       length of a control run; 0s leaves control runs and baselines out
  --out docs/DETECTION.md      the report; its rows go beside it as detection.json
  --merge             keep the rows of other programs, versions and seeds that are there already
  --readme            only the programs of the README's table, and write that table
  --routes            instead: a leak on one route of twelve, twenty seeds, or --seeds 11-20; see benches/routes-board.js
  --render            run nothing: write the reports from the rows that are there
  --register FILE     preload this in place of register.js`;

/**
 * What --full runs. One control run a program is enough for its true slope and the field's rules: it holds no guard
 * whose version could differ.
 */
const FULL = [
  { node: '22', seeds: '2', half: false, controlSeeds: 1 },
  { node: '20,24,26', seeds: '1', half: true, controlSeeds: 0 },
];

/** Milliseconds a finding's heavy evidence may take after the finding itself. */
const EVIDENCE_DEADLINE_MS = 60_000;
/** Forced readings of a run that measures the true slope, milliseconds apart. */
const SLOPE_PACE_MS = 5_000;
/** A control run's first forced reading, after the app's own start. */
const CONTROL_WARMUP_MS = 15_000;
const MB = 1024 * 1024;

/** @typedef {import('../test/apps/index.js').App} App */
/** @typedef {import('../test/apps/load.js').LoadResult} LoadResult */
/** @typedef {import('../test/apps/control.js').Reading} Reading */
/** @typedef {import('../test/harness.js').Finding} Finding */

/**
 * @typedef {object} Control what a run without the guard says
 * @property {Reading} first
 * @property {Reading} last
 * @property {number} leakingPerMinute requests to leaking routes
 * @property {Record<string, boolean>} baselines by id: did it fire?
 *
 * @typedef {object} Row
 * @property {string} name
 * @property {boolean | 'undecidable'} leaks
 * @property {boolean} readme
 * @property {string} node version
 * @property {number} seed
 * @property {'found' | 'missed' | 'wrong series' | 'too early' | 'silent' | 'false alarm' | 'crashed'} verdict
 * @property {string[]} series of the finding
 * @property {number | null} seconds from the start of the load to the finding
 * @property {'right' | 'wrong' | null} cause
 * @property {string | null} sentence
 * @property {string | null} snapshot `held (1234)`, `not held (3)`, `broken: ...`, `refused: ...`; null if none is due
 * @property {number | null} slopeFound in slopeUnit
 * @property {number | null} slopeTrue in slopeUnit
 * @property {string | null} slopeUnit `MB/min` or `/min`
 * @property {boolean} constant
 * @property {Record<string, boolean> | null} baselines
 * @property {number} requests
 * @property {number} errors
 * @property {string | null} problem what went wrong with the run itself
 */

async function main() {
  const { values } = parseArgs({
    options: {
      node: { type: 'string', default: String(process.versions.node.split('.')[0]) },
      seeds: { type: 'string' },
      only: { type: 'string' },
      half: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
      fresh: { type: 'boolean', default: false },
      for: { type: 'string' },
      jobs: { type: 'string', default: '1' },
      rate: { type: 'string', default: FAST_SETTINGS.LEAKGUARD_GROWTH_RATE },
      window: { type: 'string', default: FAST_SETTINGS.LEAKGUARD_WINDOW },
      warmup: { type: 'string', default: FAST_SETTINGS.LEAKGUARD_WARMUP },
      control: { type: 'string', default: '75s' },
      out: { type: 'string', default: path.join('docs', 'DETECTION.md') },
      merge: { type: 'boolean', default: false },
      readme: { type: 'boolean', default: false },
      routes: { type: 'boolean', default: false },
      render: { type: 'boolean', default: false },
      register: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  if (values.routes) {
    const { seeds, merge, render } = values;
    const [jobs, node] = [Number(values.jobs), Number(values.node)];
    await require('./routes-board.js').run({ jobs, node, seeds, merge, render });
    return;
  }
  const report = path.resolve(ROOT, values.out);
  const json = path.join(path.dirname(report), 'detection.json');
  const settings = {
    LEAKGUARD_GROWTH_RATE: values.rate,
    LEAKGUARD_WINDOW: values.window,
    LEAKGUARD_WARMUP: values.warmup,
  };

  if (values.render) {
    const board = JSON.parse(fs.readFileSync(json, 'utf8'));
    fs.writeFileSync(report, renderDetection(board));
    if (values.readme) writeReadme(board);
    return;
  }

  // Said before the hour of work, not after it.
  if (values.readme) replaceBlock(fs.readFileSync(README, 'utf8'), '');
  const before = fs.existsSync(json) ? JSON.parse(fs.readFileSync(json, 'utf8')) : null;
  const kept = before && (values.merge || values.full) && !values.fresh ? before.rows : [];
  const { seeds = '1' } = values;
  let plan = values.full
    ? FULL.flatMap((part) => planOf({ ...values, ...part }))
    : planOf({ ...values, seeds });
  if (values.full && kept.length > 0) {
    if (JSON.stringify(before.settings) !== JSON.stringify(settings))
      throw new Error(`${values.out} was made with other settings; --fresh starts it anew`);
    const done = new Set(kept.filter((/** @type {Row} */ row) => row.problem === null).map(keyOf));
    const whole = plan.length;
    plan = plan.filter(
      ({ app, version, seed }) => !done.has(keyOf({ name: app.name, node: version, seed })),
    );
    process.stderr.write(
      `${whole - plan.length} of ${whole} runs are there already (${before.date.slice(0, 10)})\n`,
    );
  }
  /** @type {Row[]} */
  const rows = [];
  const publish = () => {
    const board = {
      schema: 1,
      date: new Date().toISOString(),
      machine: machine(),
      jobs: Number(values.jobs),
      settings,
      notes: kept.length > 0 ? before.notes : undefined,
      rows: inTableOrder([...without(kept, rows), ...rows]),
    };
    if (values.readme) return writeReadme(board);
    fs.mkdirSync(path.dirname(report), { recursive: true });
    fs.writeFileSync(json, `${JSON.stringify(board, null, 1)}\n`);
    fs.writeFileSync(report, renderDetection(board));
  };

  const queue = [...plan];
  const register = values.register === undefined ? undefined : path.resolve(values.register);
  const controlMs = 1000 * seconds(values.control);
  const until =
    values.for === undefined ? Number.POSITIVE_INFINITY : Date.now() + 1000 * seconds(values.for);
  const worker = async () => {
    for (let task = queue.shift(); task && Date.now() < until; task = queue.shift()) {
      const row = await judge(task, { settings, register, controlMs });
      rows.push(row);
      process.stderr.write(`${String(rows.length).padStart(4)}/${plan.length} ${lineOf(row)}\n`);
      // After each program, so that a run that is interrupted leaves what it has.
      publish();
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, worker));
  if (plan.length === 0) publish();
  if (rows.length < plan.length)
    process.stderr.write(`${plan.length - rows.length} runs are left; the same call goes on\n`);
}

/**
 * @typedef {{ app: App, node: string, version: string, seed: number, controlled: boolean }} Task
 * @param {{ node: string, seeds: string, only?: string, half: boolean, readme: boolean, controlSeeds?: number }} options
 * @returns {Task[]}
 */
function planOf({ node, seeds, only, half, readme, controlSeeds = Number(seeds) }) {
  const chosen = only
    ? only.split(',').map(apps.find)
    : apps.ALL.filter((app) => !readme || app.readme);
  return node.split(',').flatMap((major, position) => {
    const binary = nodeBinary(Number(major));
    const version = versionOf(binary);
    return Array.from({ length: Number(seeds) }, (_, index) => index + 1).flatMap((seed) =>
      chosen
        .filter((_, index) => !half || (index + position) % 2 === 0)
        .map((app) => ({
          app,
          node: binary,
          version,
          seed,
          controlled: seed <= controlSeeds,
        })),
    );
  });
}

/**
 * @param {Task} task
 * @param {{ settings: Record<string, string>, register?: string, controlMs: number }} options
 * @returns {Promise<Row>}
 */
async function judge(task, { settings, register, controlMs }) {
  const { app } = task;
  /** @type {Row} */
  const row = {
    name: app.name,
    leaks: app.leaks,
    readme: app.readme,
    node: task.version,
    seed: task.seed,
    verdict: app.leaks === true ? 'missed' : 'silent',
    series: [],
    seconds: null,
    cause: null,
    sentence: null,
    snapshot: null,
    slopeFound: null,
    slopeTrue: null,
    slopeUnit: null,
    constant: app.constant,
    baselines: null,
    requests: 0,
    errors: 0,
    problem: null,
  };
  /** @type {Finding | null} */
  let finding = null;
  /** @type {LoadResult | null} */
  let load = null;
  try {
    ({ finding, load } = await guardedRun(task, { settings, register, row }));
  } catch (error) {
    row.verdict = 'crashed';
    row.problem = sentenceOf(error);
  }
  if (controlMs > 0 && task.controlled) {
    try {
      const control = await controlRun(task, controlMs, settings);
      row.baselines = control.baselines;
      if (finding) await compareSlopes(row, task, finding, control, load);
    } catch (error) {
      row.problem = `control run: ${sentenceOf(error)}`;
    }
  }
  return row;
}

/**
 * One run with the guard; fills the row with what was found.
 * @param {Task} task
 * @param {{ settings: Record<string, string>, register?: string, row: Row }} options
 */
async function guardedRun({ app, node, seed }, { settings, register, row }) {
  const running = await startApp(app.name, { node, env: settings, register });
  const stop = new AbortController();
  const started = Date.now();
  const loading = runLoad(running.port, app.load, {
    seed,
    durationMs: app.seconds * 1000 + EVIDENCE_DEADLINE_MS,
    signal: stop.signal,
  });
  try {
    const deadline = app.seconds * 1000;
    /** @param {Finding} finding */
    const expected = (finding) => isExpected(app, finding);
    let finding = await running
      .waitForFinding(deadline, app.leaks === true ? expected : undefined)
      .catch((error) => {
        if (running.exited) throw error;
        return running.findings()[0] ?? null;
      });
    if (finding) {
      row.seconds = Math.round((Date.parse(finding.time) - started) / 100) / 10;
      row.verdict = verdictOn(app, finding, row.seconds);
      row.series = finding.series.map((series) => series.id);
      row.sentence = withoutRoot(finding.sentence);
      if (app.leaks !== false) {
        finding = await evidenceOf(running, finding);
        row.cause = causeIsNamed(app, finding) ? 'right' : 'wrong';
        row.sentence = withoutRoot(finding.sentence);
        row.snapshot = app.holds && snapshotVerdict(app.holds, finding, running.dir);
      }
    }
    stop.abort();
    const load = await loading;
    row.requests = load.requests;
    row.errors = load.errors + load.skipped;
    return { finding, load };
  } finally {
    stop.abort();
    await loading;
    await running.stop();
  }
}

/** @param {string} sentence that may name files by their path on this machine */
function withoutRoot(sentence) {
  return sentence.replaceAll(path.join(ROOT, path.sep), '');
}

/**
 * The finding once nothing of its evidence is pending, or as it is after a minute.
 * @param {Awaited<ReturnType<typeof startApp>>} running
 * @param {Finding} finding
 */
async function evidenceOf(running, finding) {
  /** @param {Finding} candidate */
  const settled = (candidate) =>
    candidate.id === finding.id &&
    candidate.evidence.some((evidence) => evidence.kind === 'snapshot') &&
    candidate.evidence.every((evidence) => evidence.state !== 'pending');
  return running
    .waitForFinding(EVIDENCE_DEADLINE_MS, settled)
    .catch(() => running.findings().find((candidate) => candidate.id === finding.id) ?? finding);
}

/**
 * @param {App} app
 * @param {Finding} finding
 * @param {number} afterSeconds
 * @returns {Row['verdict']}
 */
function verdictOn(app, finding, afterSeconds) {
  if (app.leaks === false) return 'false alarm';
  if (!isExpected(app, finding)) return 'wrong series';
  return afterSeconds < app.notBefore ? 'too early' : 'found';
}

/**
 * @param {App} app
 * @param {Finding} finding
 */
function isExpected(app, finding) {
  return finding.series.some((series) => app.series.some((id) => id === series.id));
}

/**
 * Right: the finding names a marked line of the program, or the kind of thing that leaks where no line is to be had.
 * @param {App} app
 * @param {Finding} finding
 */
function causeIsNamed(app, { cause, sentence }) {
  if (!cause || !app.cause) return false;
  const site = cause.site;
  if (
    site &&
    path.basename(site.file) === path.basename(app.file) &&
    apps.leakLines(app).includes(site.line)
  )
    return true;
  // Of memory that no line explains, the series is the kind.
  const kind = cause.kind === 'memory' ? (cause.series ?? cause.kind) : cause.kind;
  return app.cause.kinds.includes(kind) && (app.cause.text?.test(sentence) ?? true);
}

/**
 * @param {import('../test/apps/index.js').Held} held
 * @param {Finding} finding
 * @param {string} dir
 */
function snapshotVerdict(held, finding, dir) {
  const snapshot = finding.evidence.find((evidence) => evidence.kind === 'snapshot');
  if (!snapshot) return 'absent';
  if (snapshot.state !== 'written')
    return `${snapshot.state}: ${snapshot.sentence ?? snapshot.reason ?? ''}`;
  try {
    const count = countHeld(path.resolve(dir, snapshot.file ?? ''), held);
    return count >= held.min ? `held (${count})` : `not held (${count})`;
  } catch (error) {
    return `broken: ${sentenceOf(error)}`;
  }
}

/**
 * One run without the guard: forced readings after the start and at the end, and the trace between them.
 * @param {Task} task
 * @param {number} lengthMs
 * @param {Record<string, string>} settings
 * @returns {Promise<Control>}
 */
async function controlRun({ app, node, version, seed }, lengthMs, settings) {
  const identity = JSON.stringify([
    app,
    version,
    seed,
    lengthMs,
    settings,
    fs.readFileSync(app.file, 'utf8'),
    fs.readFileSync(CONTROL, 'utf8'),
    apps.environment(app),
  ]);
  const digest = crypto.createHash('sha256').update(identity).digest('hex').slice(0, 16);
  const cached = path.join(CACHE, `control.${app.name}.${digest}.json`);
  if (fs.existsSync(cached)) return JSON.parse(fs.readFileSync(cached, 'utf8'));

  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'scoreboard-'));
  const traceFile = path.join(scratch, 'trace');
  const running = await startApp(app.name, { node, guarded: false, control: true, traceFile });
  const stop = new AbortController();
  const loading = runLoad(running.port, app.load, {
    seed,
    durationMs: 10 * lengthMs,
    signal: stop.signal,
  });
  try {
    await delay(app.notBefore * 1000 + CONTROL_WARMUP_MS);
    const first = await running.read();
    await delay(lengthMs - CONTROL_WARMUP_MS);
    const last = await running.read();
    stop.abort();
    const load = await loading;
    const trace = parseTrace(fs.readFileSync(traceFile, 'utf8'), {
      fromMs: first.at + 1,
      toMs: last.at - 100,
    });
    const threshold = { bytesPerMs: bytesPerMinute(settings.LEAKGUARD_GROWTH_RATE) / 60_000 };
    /** @type {Control} */
    const control = {
      first,
      last,
      leakingPerMinute: (60 * load.leaking) / load.seconds,
      baselines: Object.fromEntries(
        BASELINES.map(({ id, judge: fires }) => [id, fires(trace, threshold).fired]),
      ),
    };
    fs.mkdirSync(CACHE, { recursive: true });
    fs.writeFileSync(cached, JSON.stringify(control));
    return control;
  } finally {
    stop.abort();
    await loading;
    await running.stop();
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

/**
 * The true slope of a series over the stretch of the program's life that the finding's slope is of: least squares over
 * readings after forced garbage collections, in a run of the same program under the same load without the guard. A later
 * stretch would do for the leak alone; but what a program compiles and caches in its first minute grows as well.
 * @param {Task} task
 * @param {keyof Reading} id
 * @param {{ fromMs: number, toMs: number }} stretch milliseconds after the load began
 * @returns {Promise<number>} per minute
 */
async function trueSlope({ app, node, seed }, id, { fromMs, toMs }) {
  const running = await startApp(app.name, { node, guarded: false, control: true });
  const stop = new AbortController();
  const started = Date.now();
  const loading = runLoad(running.port, app.load, {
    seed,
    durationMs: 10 * toMs,
    signal: stop.signal,
  });
  try {
    /** @type {[number, number][]} */
    const points = [];
    for (let at = SLOPE_PACE_MS; at < toMs + SLOPE_PACE_MS; at += SLOPE_PACE_MS) {
      await delay(started + at - Date.now());
      const reading = await running.read();
      points.push([(Date.now() - started) / 60_000, reading[id]]);
    }
    return leastSquares(
      points.filter(
        ([minute]) =>
          minute * 60_000 > fromMs - SLOPE_PACE_MS && minute * 60_000 < toMs + SLOPE_PACE_MS,
      ),
    );
  } finally {
    stop.abort();
    await loading;
    await running.stop();
  }
}

/**
 * Requests to leaking routes per minute over the stretch that the finding's slope is of: least squares over how many there
 * had been by each second. Of two a second a half-minute gets a fifth more or less than the whole run, by chance.
 * @param {LoadResult} load
 * @param {{ fromMs: number, toMs: number }} stretch milliseconds after the load began
 */
function leakingRate(load, { fromMs, toMs }) {
  let sent = 0;
  /** @type {[number, number][]} */
  const points = load.leakingBySecond.map((count, second) => {
    sent += count;
    return [(second + 1) / 60, sent];
  });
  return leastSquares(
    points.filter(([minute]) => minute * 60_000 >= fromMs && minute * 60_000 <= toMs),
  );
}

/**
 * The slope of the straight line with the least sum of squares.
 * @param {[number, number][]} points
 */
function leastSquares(points) {
  const x = mean(points.map(([at]) => at));
  const y = mean(points.map(([, value]) => value));
  const sum = (/** @type {(point: [number, number]) => number} */ of) =>
    points.reduce((total, point) => total + of(point), 0);
  return sum(([at, value]) => (at - x) * (value - y)) / sum(([at]) => (at - x) ** 2);
}

/**
 * Compares the slope of the series that the control run measures, if the finding has it, else of the best series.
 * @param {Row} row
 * @param {Task} task
 * @param {Finding} finding
 * @param {Control} control
 * @param {LoadResult | null} load
 */
async function compareSlopes(row, task, finding, control, load) {
  const { app } = task;
  const ids = [app.measure, ...app.series];
  const series = ids
    .map((id) => finding.series.find((candidate) => candidate.id === id))
    .find((found) => found);
  if (!series || row.seconds === null) return;
  const unit = series.unit === 'bytes' ? MB : 1;
  row.slopeUnit = series.unit === 'bytes' ? 'MB/min' : '/min';
  row.slopeFound = series.slopePerHour / 60 / unit;
  // The slope's own stretch ends later than the finding came, where later readings were of use.
  const later = Date.parse(series.until) - Date.parse(finding.time);
  const toMs = 1000 * row.seconds + later;
  const stretch = { fromMs: toMs - series.windowMs, toMs };
  const leakingPerMinute = load ? leakingRate(load, stretch) : control.leakingPerMinute;
  if (series.id === 'listeners') {
    row.slopeTrue = leakingPerMinute;
  } else if (app.arithmetic && series.id === app.measure) {
    row.slopeTrue = (apps.LEAK_MB_PER_MIN * app.growth * leakingPerMinute) / (60 * app.leakRps);
  } else if (app.leaks === true && app.constant) {
    row.slopeTrue =
      (await trueSlope(task, /** @type {keyof Reading} */ (series.id), stretch)) / unit;
  } else {
    const id = /** @type {keyof Reading} */ (series.id);
    const minutes = (control.last.at - control.first.at) / 60_000;
    row.slopeTrue = (control.last[id] - control.first[id]) / minutes / unit;
  }
}

/** @param {any} board */
function writeReadme(board) {
  fs.writeFileSync(README, replaceBlock(fs.readFileSync(README, 'utf8'), renderReadme(board)));
}

/**
 * The earlier rows that no row of now replaces.
 * @param {Row[]} before
 * @param {Row[]} now
 */
function without(before, now) {
  const done = new Set(now.map(keyOf));
  return before.filter((row) => !done.has(keyOf(row)));
}

/** @param {{ name: string, node: string, seed: number }} row */
function keyOf({ name, node, seed }) {
  return `${name} ${node} ${seed}`;
}

/** @param {Row[]} rows */
function inTableOrder(rows) {
  const order = new Map(apps.ALL.map((app, index) => [app.name, index]));
  return rows.sort(
    (a, b) =>
      (order.get(a.name) ?? 0) - (order.get(b.name) ?? 0) ||
      a.node.localeCompare(b.node, 'en', { numeric: true }) ||
      a.seed - b.seed,
  );
}

function machine() {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? 'unknown',
    cores: cpus.length,
    memoryGB: Math.round(os.totalmem() / MB / 1024),
    system: `${os.type()} ${os.release()}`,
  };
}

/** @param {Row} row */
function lineOf(row) {
  const parts = [
    row.name.padEnd(22),
    row.node.padEnd(9),
    `seed ${row.seed}`,
    row.verdict.padEnd(11),
    row.seconds === null ? '' : `${row.seconds} s`,
    row.series.join(', '),
    row.cause === null ? '' : `cause ${row.cause}`,
    row.snapshot ?? '',
    row.problem ?? '',
  ];
  return parts.filter((part) => part !== '').join('  ');
}

/** @param {unknown} error */
function sentenceOf(error) {
  return (error instanceof Error ? error.message : String(error)).slice(0, 400);
}

/** @param {string} duration such as `75s` or `2m` */
function seconds(duration) {
  const match = /^(\d+(?:\.\d+)?)(s|m)$/.exec(duration);
  if (!match)
    throw new Error(`expected a duration like 75s or 2m, got ${JSON.stringify(duration)}`);
  return Number(match[1]) * (match[2] === 'm' ? 60 : 1);
}

/** @param {string} rate such as `1MB/min` */
function bytesPerMinute(rate) {
  const match = /^(\d+(?:\.\d+)?)(B|KB|MB|GB)\/(s|min|h|d)$/.exec(rate);
  if (!match) throw new Error(`--rate: expected a rate like 1MB/min, got ${JSON.stringify(rate)}`);
  const size = { B: 1, KB: 1024, MB, GB: 1024 * MB }[
    /** @type {'B' | 'KB' | 'MB' | 'GB'} */ (match[2])
  ];
  const perMinute = { s: 60, min: 1, h: 1 / 60, d: 1 / 1440 }[
    /** @type {'s' | 'min' | 'h' | 'd'} */ (match[3])
  ];
  return Number(match[1]) * size * perMinute;
}

main().catch((error) => {
  process.stderr.write(`scoreboard: ${sentenceOf(error)}\n`);
  process.exitCode = 2;
});
