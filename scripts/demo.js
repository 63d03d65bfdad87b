'use strict';

/**
 * `npm run demo`: a leaking Express app under load, what its guard sees, and what the guard says; then it
 * ends. `npm run demo -- healthy` does the same with the mended app. The app in examples/express is left as a
 * user would write it; demo-probe.js tells what its guard sees, demo-chart.js draws it.
 *
 * It ends with code 0 if the guard was right: the finding names the line, or it stayed silent.
 */

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { fileURLToPath } = require('node:url');
const { MIN_SCREEN, frame, megabytes, painter, plainLine, thousands } = require('./demo-chart.js');
const { setup } = require('./setup.js');
const { ROOT } = require('./steps.js');

const EXAMPLE = path.join(ROOT, 'examples', 'express');
const EVIDENCE = path.join(EXAMPLE, 'leakguard');

/** So fast that it fits a demo: by default the guard takes its time and sees 1 MB an hour. */
const SETTINGS = Object.freeze({
  LEAKGUARD_GROWTH_RATE: '1MB/min',
  LEAKGUARD_WINDOW: '32s',
  LEAKGUARD_WARMUP: '10s',
});
const WARMUP_MS = 10_000;

/** The leaking app ends earlier, as soon as all is said. */
const LEAKING_MS = 85_000;
const HEALTHY_MS = 75_000;

/** How much longer the leaking app goes on while the evidence for its finding is being written, on a busy machine. */
const EVIDENCE_MS = 60_000;

const REDRAW_MS = 250;
const PLAIN_LINE_MS = 5000;

const CONNECTIONS = 8;
const REQUESTS_PER_SECOND = 100;

/** The guard's words for what it does, for people. */
const STATES = /** @type {Record<string, string>} */ ({
  'warm-up': 'warming up',
  armed: 'watching',
  collecting: 'growth found, taking evidence',
});

/**
 * @typedef {object} Site
 * @property {string} file
 * @property {number} line
 * @property {string} [function]
 */

/** The app, its load, and everything that is known of them. */
class Demo {
  /** @param {'app' | 'healthy'} program */
  constructor(program) {
    this.program = program;
    this.lengthMs = program === 'app' ? LEAKING_MS : HEALTHY_MS;
    this.start = performance.now();
    /** @type {any} */
    this.status = null;
    /** @type {import('./demo-chart.js').Reading[]} */
    this.heap = [];
    /** @type {import('./demo-chart.js').Reading[]} */
    this.listeners = [];
    this.requests = 0;
    this.news = 'the app starts';
    /** What the app wrote to its stderr: findings are in there, as they would be in anybody's log. */
    this.log = '';
    /** @type {Map<string, any>} newest state of each finding: series and causes may join later */
    this.findingsById = new Map();
    /** @type {any[]} */
    this.refusals = [];
    /** @type {number | undefined} when the first finding came */
    this.foundMs = undefined;
    /** @type {string | null} */
    this.snapshot = null;
    /** @type {() => void} */
    this.onChange = () => {};
    /** @type {Promise<never>} */
    this.died = new Promise((_, reject) => {
      this.fail = reject;
    });
    // Whoever waits for it hears of it; until then it is nobody's unhandled rejection.
    this.died.catch(() => {});
  }

  get nowMs() {
    return performance.now() - this.start;
  }

  /**
   * Starts the app.
   *
   * @returns {Promise<string>} its address
   */
  launch() {
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('LEAKGUARD'));
    const child = spawn(
      process.execPath,
      ['-r', path.join(__dirname, 'demo-probe.js'), `${this.program}.js`],
      {
        cwd: EXAMPLE,
        env: { ...Object.fromEntries(inherited), ...SETTINGS, PORT: '0' },
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      },
    );
    this.child = child;
    child.stderr?.setEncoding('utf8').on('data', (text) => {
      this.log += text;
    });
    child.on('message', (message) => this.#hear(/** @type {any} */ (message)));
    child.on('error', this.fail);
    child.on('close', (code, signal) => {
      this.fail?.(new Error(`the app ended (${signal ?? `code ${code}`})\n${this.log}`));
    });
    return new Promise((resolve, reject) => {
      let output = '';
      child.stdout?.setEncoding('utf8').on('data', (text) => {
        output += text;
        const address = output.match(/http:\/\/[\d.]+:\d+/);
        if (address) resolve(address[0]);
      });
      this.died.catch(reject);
    });
  }

  /**
   * Puts load on the app until it ends.
   *
   * @param {string} address
   */
  drive(address) {
    const autocannon = require('autocannon');
    let visit = 0;
    const options = {
      url: address,
      connections: CONNECTIONS,
      overallRate: REQUESTS_PER_SECOND,
      duration: Math.ceil((this.lengthMs + EVIDENCE_MS) / 1000) + 60,
      requests: [
        {
          /** @param {object} request */
          setupRequest: (request) => {
            visit += 1;
            return { ...request, path: `/products/${1 + (visit % 100)}?visit=${visit}` };
          },
        },
      ],
    };
    // The result at the end is of no interest, and an app that died is told of elsewhere.
    const load = autocannon(options, () => {});
    load.on('response', () => {
      this.requests += 1;
    });
    this.load = load;
  }

  /** @param {{ kind: string, content: any }} message */
  #hear({ kind, content }) {
    if (kind === 'status') this.#look(content);
    if (kind === 'finding') {
      this.foundMs ??= this.nowMs;
      this.findingsById.set(content.id, content);
      this.news = `finding: ${content.sentence}`;
    }
    if (kind === 'snapshot') {
      this.snapshot = content.path;
      this.news = `snapshot written: ${path.basename(content.path)}`;
    }
    if (kind === 'refused') this.refusals.push(content);
    if (kind === 'error') this.news = content;
    this.onChange();
  }

  /** @param {any} status */
  #look(status) {
    this.status = status;
    for (const finding of status.findings ?? []) this.findingsById.set(finding.id, finding);
    const ms = this.nowMs;
    const bytes = status.liveHeap?.lastBytes;
    if (typeof bytes === 'number') this.heap.push({ ms, value: bytes });
    const listeners = status.isolates?.[0]?.series?.listeners;
    if (listeners) this.listeners.push({ ms, value: listeners.top?.[0]?.count ?? 0 });
    if (this.news === 'the app starts') this.news = '';
  }

  /** The emitter with the most listeners, in words. */
  get listenersWhere() {
    const top = this.status?.isolates?.[0]?.series?.listeners?.top?.[0];
    if (!top) return '';
    return top.site ? `'${top.event}' added at ${place(top.site)}` : `'${top.event}'`;
  }

  /** @returns {import('./demo-chart.js').Picture} */
  get picture() {
    return {
      title:
        this.program === 'app'
          ? 'examples/express/app.js: a shop with two leaks'
          : 'examples/express/healthy.js: the same shop, mended',
      nowMs: this.nowMs,
      lengthMs: this.lengthMs,
      warmupMs: WARMUP_MS,
      state: STATES[this.status?.state] ?? this.status?.state ?? 'starting',
      requests: this.requests,
      heap: this.heap,
      listeners: this.listeners,
      listenersWhere: this.listenersWhere,
      news: this.news,
    };
  }

  /** @returns {any[]} */
  get findings() {
    return [...this.findingsById.values()];
  }

  /** The line that adds the listeners, as soon as a finding names it. */
  get site() {
    return /** @type {Site | undefined} */ (
      this.findings.find(({ cause }) => cause?.site && cause.kind.startsWith('listener'))?.cause
        .site
    );
  }

  /** Whether there is nothing more to wait for. */
  get complete() {
    const refused = this.refusals.some(({ kind }) => kind === 'snapshot');
    return this.site !== undefined && (this.snapshot !== null || refused);
  }

  /** Ends app and load. */
  async stop() {
    this.load?.stop();
    const { child } = this;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
    await ended;
    clearTimeout(timer);
  }
}

/**
 * The file of a place; in an ES module V8 names it by its URL.
 *
 * @param {Site} site
 */
function fileOf({ file }) {
  return file.startsWith('file:') ? fileURLToPath(file) : file;
}

/**
 * A place in the source, relative to the repository.
 *
 * @param {Site} site
 */
function place(site) {
  const inside = path.relative(ROOT, fileOf(site));
  return `${inside.startsWith('..') ? fileOf(site) : inside}:${site.line}`;
}

/**
 * Shows a demo while it runs: redrawn in place on a terminal, else a line now and then.
 *
 * @param {Demo} demo
 * @returns {() => void} ends the show; the last frame stays
 */
function show(demo) {
  const { stdout } = process;
  const small = stdout.columns < MIN_SCREEN.columns || stdout.rows < MIN_SCREEN.rows;
  if (!stdout.isTTY || small) {
    const timer = setInterval(() => console.log(plainLine(demo.picture)), PLAIN_LINE_MS);
    return () => clearInterval(timer);
  }
  let drawn = 0;
  const draw = () => {
    const screen = { columns: stdout.columns || 80, rows: stdout.rows || 24, colour: coloured() };
    const lines = frame(demo.picture, screen);
    const home = drawn > 0 ? `\x1b[${drawn}A\r` : '';
    stdout.write(`${home}${lines.map((line) => `${line}\x1b[K`).join('\n')}\n\x1b[J`);
    drawn = lines.length;
  };
  stdout.write('\x1b[?25l');
  const timer = setInterval(draw, REDRAW_MS);
  return () => {
    clearInterval(timer);
    draw();
    stdout.write('\x1b[?25h');
  };
}

function coloured() {
  return Boolean(process.stdout.isTTY) && !process.env.NO_COLOR && process.stdout.hasColors();
}

/**
 * The line of source that a finding names, with its number.
 *
 * @param {Site} site
 */
function excerpt(site) {
  try {
    const text = fs.readFileSync(fileOf(site), 'utf8').split('\n')[site.line - 1];
    return text === undefined ? '' : `    ${site.line} │ ${text}\n`;
  } catch {
    return '';
  }
}

/**
 * What came out of the leaking app.
 *
 * @param {Demo} demo
 * @returns {boolean} whether the finding names the line
 */
function conclude(demo) {
  const paint = painter(coloured());
  const { findings, site, snapshot } = demo;
  if (findings.length === 0) {
    console.log(paint(`No finding after ${Math.round(demo.nowMs / 1000)} s.`, 'red', 'bold'));
    return false;
  }
  const foundAfter = Math.round((demo.foundMs ?? demo.nowMs) / 1000);
  console.log(paint(`Leak found ${foundAfter} s after the start:`, 'red', 'bold'));
  for (const { sentence } of findings) console.log(`  ${sentence}`);
  if (site) {
    console.log(`\nThe line that adds the listeners: ${paint(place(site), 'bold')}`);
    process.stdout.write(excerpt(site));
  } else {
    console.log('\nNo finding names the line that adds the listeners.');
  }
  if (snapshot) {
    const file = path.relative(ROOT, snapshot);
    console.log(`\nSnapshot: ${paint(file, 'bold')} (${megabytes(fs.statSync(snapshot).size)})`);
    console.log(`  node bin/leakguard.js analyze ${file}`);
  } else {
    console.log('\nNo snapshot was taken:');
    for (const { sentence } of demo.refusals) console.log(`  ${sentence}`);
  }
  return site !== undefined && snapshot !== null;
}

/**
 * What came out of the healthy app.
 *
 * @param {Demo} demo
 * @returns {boolean} whether the guard stayed silent
 */
function concludeHealthy(demo) {
  const paint = painter(coloured());
  const served = `${thousands(demo.requests)} requests in ${Math.round(demo.nowMs / 1000)} s`;
  if (demo.findings.length > 0) {
    console.log(paint(`A false alarm, after ${served}:`, 'red', 'bold'));
    for (const { sentence } of demo.findings) console.log(`  ${sentence}`);
    return false;
  }
  const files = fs.existsSync(EVIDENCE) ? fs.readdirSync(EVIDENCE) : [];
  const evidence = files.filter((name) => /^(Finding|Heap)\./.test(name));
  if (evidence.length > 0) {
    console.log(paint(`No finding, but files: ${evidence.join(', ')}`, 'red', 'bold'));
    return false;
  }
  if (demo.heap.length === 0) {
    console.log(paint('The guard read no live heap, so its silence means nothing.', 'red', 'bold'));
    return false;
  }
  console.log(
    paint(`The guard stayed silent: ${served}, no finding, no snapshot.`, 'green', 'bold'),
  );
  return true;
}

/** What a user does by `npm install`: the app finds the guard of this repository. */
function linkGuard() {
  const link = path.join(EXAMPLE, 'node_modules', 'leakguard');
  if (fs.existsSync(link)) return;
  fs.mkdirSync(path.dirname(link), { recursive: true });
  fs.rmSync(link, { force: true });
  fs.symlinkSync(ROOT, link, 'junction');
}

async function main() {
  const [variant] = process.argv.slice(2);
  if (variant !== undefined && variant !== 'healthy') {
    console.error('usage: npm run demo [-- healthy]');
    process.exitCode = 2;
    return;
  }
  await setup();
  linkGuard();
  // Counts and cooldowns live in the directory: a second demo would be silent with those of the first.
  fs.rmSync(EVIDENCE, { recursive: true, force: true });

  const demo = new Demo(variant === 'healthy' ? 'healthy' : 'app');
  const settings = Object.entries(SETTINGS).map((pair) => pair.join('='));
  console.log(`\n${settings.join(' ')} node ${demo.program}.js\n`);
  /** @type {() => void} */
  let endShow = () => {};
  process.once('SIGINT', () => {
    endShow();
    demo.child?.kill('SIGKILL');
    process.exit(130);
  });
  process.once('exit', () => demo.child?.kill('SIGKILL'));

  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  try {
    demo.drive(await demo.launch());
    endShow = show(demo);
    const over = new Promise((resolve) => {
      timer = setTimeout(() => {
        const writing = demo.findings.length > 0 && !demo.complete;
        timer = setTimeout(resolve, writing ? EVIDENCE_MS : 0);
      }, demo.lengthMs - demo.nowMs);
      if (demo.program === 'app') demo.onChange = () => demo.complete && resolve(undefined);
    });
    await Promise.race([over, demo.died]);
  } finally {
    clearTimeout(timer);
    endShow();
    demo.fail = () => {};
    await demo.stop();
  }
  if (demo.log) console.log(`\nIn the log of the app:\n${demo.log.replace(/^/gm, '  ').trimEnd()}`);
  console.log();
  const right = demo.program === 'app' ? conclude(demo) : concludeHealthy(demo);
  process.exitCode = right ? 0 : 1;
}

if (require.main === module) {
  main().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
