'use strict';

// What a scrape shows: as text to Prometheus' own tools and to a real Prometheus with our rules, to a registry of
// prom-client and to the OpenTelemetry SDK.

const assert = require('node:assert/strict');
const { spawn, spawnSync } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { need } = require('../scripts/system.js');
const { load } = require('../lib/load.js');
const { startApp } = require('./harness.js');
const { ROOT, ask, copyPackage, temporary } = require('./program.js');

const DEPLOY = path.join(ROOT, 'deploy');
const RULES = path.join(DEPLOY, 'prometheus-rules.yml');
const APP = path.join(__dirname, 'apps', 'scraped.js');

/** Labels that Prometheus itself gives a target, or that a family of ours is joined by. */
const TARGET_LABELS = ['job', 'instance', 'namespace'];

/** @type {import('../lib/families').Family[]} */
const FAMILIES = load().binding.metricFamilies();

const promtool = need('promtool');
const prometheus = need('prometheus');

/**
 * @typedef {{ name: string, labels: Record<string, string>, value: number }} Sample
 */

/**
 * Reads Prometheus text, strictly: what does not parse is an error.
 *
 * @param {string} text
 * @returns {{ samples: Sample[], types: Map<string, string> }}
 */
function parse(text) {
  const types = new Map();
  const samples = [];
  assert.ok(text.endsWith('\n'));
  for (const line of text.slice(0, -1).split('\n')) {
    const type = /^# TYPE (\w+) (\w+)$/.exec(line);
    if (type) {
      assert.ok(!types.has(type[1]), `${type[1]} twice`);
      types.set(type[1], type[2]);
    }
    if (line === '' || line.startsWith('#')) continue;
    const [, name, inner = '', value] =
      /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? assert.fail(`not a sample: ${line}`);
    /** @type {Record<string, string>} */
    const labels = {};
    const rest = inner.replace(/(\w+)="((?:[^"\\]|\\.)*)",?/g, (_, label, quoted) => {
      labels[label] = quoted.replace(
        /\\(.)/g,
        (/** @type {string} */ _, /** @type {string} */ c) => (c === 'n' ? '\n' : c),
      );
      return '';
    });
    assert.equal(rest, '', line);
    samples.push({ name, labels, value: Number(value) });
  }
  return { samples, types };
}

/**
 * @param {Sample[]} samples
 * @param {string} name
 * @param {Record<string, string>} [labels]
 */
function value(samples, name, labels = {}) {
  const found = samples.filter(
    (one) =>
      one.name === name && Object.entries(labels).every(([label, of]) => one.labels[label] === of),
  );
  assert.equal(found.length, 1, `${name} ${JSON.stringify(labels)}: ${found.length} samples`);
  return found[0].value;
}

/** @param {string[]} args @param {string} [input] */
function tool(args, input) {
  const options = { input, cwd: DEPLOY, encoding: /** @type {const} */ ('utf8'), timeout: 60_000 };
  const { status, stdout, stderr } = spawnSync(String(promtool.file), args, options);
  assert.equal(status, 0, `promtool ${args.join(' ')}: ${stdout}${stderr}`);
}

/** A guarded program that has seen a reading, listeners and handles, and reports its metrics. */
const GUARDED = `
  const { EventEmitter } = require('node:events');
  const leakguard = require(process.env.GUARD);
  const server = require('node:net').createServer().listen(0);
  class Rooms extends EventEmitter {}
  const rooms = new Rooms().setMaxListeners(0);
  for (let i = 0; i < 300; i++) rooms.on('message', () => {});
  const odd = new EventEmitter();
  leakguard.watch(odd, { name: 'a "quoted"\\\\name\\nof two lines' });
  odd.on('\\u{1f600} \\u0000"', () => {});
  for (let i = 0; i < 100; i++) leakguard.watch(new EventEmitter().on('e' + i, () => {}), { name: 'E' + i });
  (async () => {
    await until(() => {
      const text = leakguard.metrics();
      return /live_heap_bytes/.test(text) && /Rooms/.test(text) && /"other"/.test(text);
    });
    const status = leakguard.status();
    const text = leakguard.metrics();
    leakguard.stop();
    process.stdout.write(JSON.stringify({ text, status, after: leakguard.metrics() }));
    server.close();
  })();
`;

test('a scrape shows what the status says, each series once, with help, type and bounded labels', async (t) => {
  const { report } = await ask(t, GUARDED, { env: { LEAKGUARD_GC_SHARE: '20%' } });
  const { samples, types } = parse(report.text);
  const known = new Map(FAMILIES.map((family) => [family.name, family]));
  const seen = new Set();
  for (const { name, labels } of samples) {
    const family = known.get(name);
    assert.ok(family, name);
    assert.equal(types.get(name), family.kind);
    assert.deepEqual(Object.keys(labels), family.labels);
    const key = name + JSON.stringify(labels);
    assert.ok(!seen.has(key), key);
    seen.add(key);
  }
  const { status } = report;
  const [isolate] = status.isolates;
  assert.equal(value(samples, 'leakguard_up'), 1);
  assert.equal(value(samples, 'leakguard_fds'), status.process.series.fds.last);
  assert.equal(
    value(samples, 'leakguard_live_heap_bytes', { thread: 'main' }),
    isolate.series.live_heap.last,
  );
  const handles = samples.filter(({ name }) => name === 'leakguard_handles');
  assert.deepEqual(
    Object.fromEntries(handles.map(({ labels, value }) => [labels.type, value])),
    isolate.handles,
  );
  assert.equal(value(samples, 'leakguard_findings_total', { series: 'listeners' }), 0);
  assert.equal(value(samples, 'leakguard_refusals_total', { reason: 'memory' }), 0);
  assert.equal(value(samples, 'leakguard_directory_usable'), 1);
  assert.ok(value(samples, 'leakguard_cpu_seconds_total') > 0);
  assert.ok(value(samples, 'leakguard_live_heap_readings_total') > 0);
  const rooms = { emitter: 'Rooms', event: 'message' };
  assert.equal(value(samples, 'leakguard_listeners', rooms), 300);
  const room = samples.find(({ labels }) => labels.emitter === 'Rooms');
  assert.match(String(room?.labels.site), /app\.js:\d+$/);
  const listeners = samples.filter(({ name }) => name === 'leakguard_listeners');
  assert.equal(listeners.length, 21);
  assert.ok(value(samples, 'leakguard_listeners', { emitter: 'other' }) > 0);
  assert.equal(value(parse(report.after).samples, 'leakguard_up'), 0);
  assert.match(report.after, /^# leakguard: the guard is stopped$/m);
});

test('hostile names of emitters and events stay inside their labels', async (t) => {
  const { report } = await ask(
    t,
    `
    const { EventEmitter } = require('node:events');
    const leakguard = require(process.env.GUARD);
    const odd = (globalThis.kept = new EventEmitter()); // a watched emitter is held weakly
    leakguard.watch(odd, { name: 'a "quoted"\\\\name\\nof two lines' });
    odd.on('\\u{1f600} \\u0000"} 1\\n', () => {});
    until(() => /quoted/.test(leakguard.metrics())).then(() => {
      process.stdout.write(JSON.stringify({ text: leakguard.metrics() }));
    });
  `,
  );
  const { samples } = parse(report.text);
  const [odd] = samples.filter(({ name }) => name === 'leakguard_listeners');
  assert.equal(odd.labels.emitter, 'a "quoted"\\name of two lines');
  assert.equal(odd.labels.event, '\u{1f600}  "} 1 ');
  if (promtool.skip === false) tool(['check', 'metrics'], report.text);
});

test('workers are one thread among the labels, and leave no gap in a counter when they end', async (t) => {
  const { report } = await ask(
    t,
    `
    const { Worker } = require('node:worker_threads');
    const leakguard = require(process.env.GUARD);
    const texts = [];
    const worker = () => new Worker('require(process.env.GUARD); setInterval(() => {}, 1000)', { eval: true });
    const count = (text) => Number(/live_heap_readings_total (\\d+)/.exec(text)?.[1] ?? 0);
    (async () => {
      const pool = [worker(), worker(), worker()];
      await until(() => /heap_used_bytes{thread="workers"}/.test(leakguard.metrics()));
      await until(() => count(leakguard.metrics()) > 0);
      const during = leakguard.metrics();
      await Promise.all(pool.map((one) => one.terminate()));
      await until(() => !/thread="workers"/.test(leakguard.metrics()));
      const after = leakguard.metrics();
      process.stdout.write(JSON.stringify({ during, after, before: count(during), then: count(after) }));
    })();
  `,
    { env: { LEAKGUARD_GC_SHARE: '20%' } },
  );
  const { samples } = parse(report.during);
  const threads = new Set(
    samples.filter(({ labels }) => 'thread' in labels).map(({ labels }) => labels.thread),
  );
  assert.deepEqual([...threads].filter((thread) => thread !== '').sort(), ['main', 'workers']);
  assert.ok(report.then >= report.before, `${report.before} readings, then ${report.then}`);
});

describe('without a running guard', () => {
  const [up] = FAMILIES.filter(({ name }) => name === 'leakguard_up');
  /** @param {string} text @param {RegExp} why */
  const inert = (text, why) => {
    const { samples, types } = parse(text);
    assert.deepEqual(samples, [{ name: 'leakguard_up', labels: {}, value: 0 }]);
    assert.equal(types.get('leakguard_up'), 'gauge');
    assert.ok(text.includes(`# HELP leakguard_up ${up.help}\n`));
    assert.match(text.split('\n')[0], why);
    if (promtool.skip === false) tool(['check', 'metrics'], text);
  };
  const PROGRAM = `
    const leakguard = require(process.env.PACKAGE || process.env.GUARD);
    process.stdout.write(JSON.stringify({ text: leakguard.metrics() }));
  `;

  test('that is switched off, a scrape says so', async (t) => {
    const { report } = await ask(t, PROGRAM, { env: { LEAKGUARD: 'off' } });
    inert(report.text, /^# leakguard: the guard is off$/);
  });

  test('whose binary is missing, a scrape says so', async (t) => {
    const copy = copyPackage(path.join(temporary(t), 'leakguard'), { binary: false });
    const { report } = await ask(t, PROGRAM, { env: { PACKAGE: copy } });
    inert(report.text, /^# leakguard: .*linux-/);
  });

  test('the one family that is known without a binary is that of the table', () => {
    assert.deepEqual(require('../lib/families').UP, up);
  });
});

describe('prom-client', () => {
  const REGISTERED = `
    const client = require(process.env.GUARD + '/node_modules/prom-client');
    const leakguard = require(process.env.GUARD);
    const { register } = require(process.env.GUARD + '/prometheus');
  `;

  test('shows every metric once, with its default metrics and registered twice', async (t) => {
    const { report } = await ask(
      t,
      `${REGISTERED}
      client.collectDefaultMetrics();
      register();
      register();
      register(client.register);
      until(() => /leakguard_live_heap_bytes/.test(leakguard.metrics())).then(async () => {
        const ours = leakguard.metrics();
        const theirs = await client.register.metrics();
        client.register.clear();
        const cleared = await client.register.metrics();
        register();
        const again = await client.register.metrics();
        process.stdout.write(JSON.stringify({ ours, theirs, cleared, again }));
        process.exit();
      });
    `,
      { env: { LEAKGUARD_GC_SHARE: '20%' } },
    );
    const names = (/** @type {string} */ text) => [
      ...new Set(parse(text).samples.map(({ name }) => name)),
    ];
    const { samples, types } = parse(report.theirs);
    assert.deepEqual(
      names(report.theirs).filter((name) => name.startsWith('leakguard_')),
      names(report.ours),
    );
    assert.ok(types.has('nodejs_heap_size_used_bytes'));
    for (const { name, kind } of FAMILIES) assert.equal(types.get(name), kind);
    const keys = samples.map(({ name, labels }) => name + JSON.stringify(labels));
    assert.equal(new Set(keys).size, keys.length);
    const info = samples.find(({ name }) => name === 'leakguard_info');
    assert.equal(info?.labels.node, process.version);
    // A family without a value now is no zero.
    const limit = (/** @type {string} */ text) =>
      parse(text).samples.filter(({ name }) => name === 'leakguard_cgroup_limit_bytes').length;
    assert.equal(limit(report.theirs), limit(report.ours));
    assert.equal(report.cleared.trim(), '');
    assert.ok(names(report.again).includes('leakguard_live_heap_bytes'));
    if (promtool.skip === false) tool(['check', 'metrics'], report.again);
  });

  test('has what a cluster adds up and what it takes the highest of', async (t) => {
    const { report } = await ask(
      t,
      `${REGISTERED}
      const registry = new client.Registry();
      register(registry);
      until(() => /leakguard_ticks_total [1-9]/.test(leakguard.metrics())).then(async () => {
        const one = await registry.getMetricsAsJSON();
        const merged = client.AggregatorRegistry.aggregate([one, one]);
        const text = await merged.metrics();
        process.stdout.write(JSON.stringify({ text, default: await client.register.metrics() }));
        process.exit();
      });
    `,
    );
    const { samples } = parse(report.text);
    assert.equal(value(samples, 'leakguard_info'), 1);
    assert.equal(value(samples, 'leakguard_up'), 1);
    assert.equal(value(samples, 'leakguard_ticks_total') % 2, 0);
    assert.equal(report.default.trim(), '');
  });

  test('that is not installed is an error that says how to install it', async (t) => {
    const copy = copyPackage(path.join(temporary(t), 'leakguard'));
    const { report } = await ask(
      t,
      `
      const errors = ['prometheus', 'opentelemetry'].map((name) => {
        try {
          require(process.env.PACKAGE + '/' + name).register();
        } catch ({ code, message }) {
          return { code, message };
        }
      });
      process.stdout.write(JSON.stringify(errors));
    `,
      { env: { PACKAGE: copy } },
    );
    assert.deepEqual(report, [
      {
        code: 'ERR_LEAKGUARD_PEER',
        message:
          'leakguard/prometheus needs prom-client, which is not installed: npm install prom-client',
      },
      {
        code: 'ERR_LEAKGUARD_PEER',
        message:
          'leakguard/opentelemetry needs @opentelemetry/api, which is not installed: npm install @opentelemetry/api',
      },
    ]);
  });
});

describe('OpenTelemetry', () => {
  const SDK = `
    const modules = process.env.GUARD + '/node_modules/';
    const { metrics } = require(modules + '@opentelemetry/api');
    const sdk = require(modules + '@opentelemetry/sdk-metrics');
    const leakguard = require(process.env.GUARD);
    const { register } = require(process.env.GUARD + '/opentelemetry');
    const exporter = new sdk.InMemoryMetricExporter(sdk.AggregationTemporality.CUMULATIVE);
    const reader = new sdk.PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3600000 });
    const start = () => metrics.setGlobalMeterProvider(new sdk.MeterProvider({ readers: [reader] }));
    const collect = async () => {
      exporter.reset();
      await reader.forceFlush();
      return exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics).flatMap(({ scope, metrics }) =>
        metrics.map(({ descriptor, dataPoints, isMonotonic }) => ({
          scope: scope.name, name: descriptor.name, unit: descriptor.unit, isMonotonic,
          points: dataPoints.map(({ attributes, value }) => ({ attributes, value })),
        })));
    };
    const live = () => until(() => /leakguard_live_heap_bytes/.test(leakguard.metrics()));
    const tell = (report) => { process.stdout.write(JSON.stringify(report)); process.exit(); };
  `;
  const env = { LEAKGUARD_GC_SHARE: '20%' };

  test('reads the instruments once, under the names and units of the conventions', async (t) => {
    const { report, warnings } = await ask(
      t,
      `${SDK}
      start();
      register();
      register();
      live().then(async () => tell({ read: await collect(), text: leakguard.metrics() }));
    `,
      { env },
    );
    assert.deepEqual(
      warnings.filter((line) => line.includes('OPENTELEMETRY')),
      [],
    );
    /** @type {any[]} */
    const all = report.read;
    const byName = new Map(all.map((metric) => [metric.name, metric]));
    assert.equal(byName.size, all.length, 'a name twice');
    const { samples } = parse(report.text);
    for (const { name, otel, unit, kind, merge } of FAMILIES) {
      const shown = samples.filter((one) => one.name === name && one.name !== 'leakguard_handles');
      if (otel === undefined || shown.length === 0) continue;
      const metric = byName.get(otel);
      assert.ok(metric, otel);
      assert.equal(metric.unit, unit);
      assert.equal(metric.scope, 'leakguard');
      assert.equal(metric.isMonotonic, kind === 'counter' || (merge === 'sum' ? false : undefined));
      assert.equal(metric.points.length, shown.length, otel);
    }
    const spaces = byName.get('v8js.memory.heap.used').points;
    const names = spaces.map((/** @type {any} */ one) => one.attributes['v8js.heap.space.name']);
    assert.ok(names.includes('old_space') && names.includes('new_space'), names.join());
    const [heap] = byName.get('leakguard.live_heap').points;
    assert.deepEqual(heap.attributes, { 'leakguard.thread': 'main' });
    assert.ok(heap.value > 1_000_000);
    const conventions = Object.values(require('@opentelemetry/semantic-conventions/incubating'));
    for (const name of byName.keys()) {
      if (!name.startsWith('leakguard.')) assert.ok(conventions.includes(name), name);
    }
  });

  test('tells of listeners that are gone that there are none, to an SDK that would remember them', async (t) => {
    const { report } = await ask(
      t,
      `${SDK}
      const { EventEmitter } = require('node:events');
      const bus = (globalThis.kept = new EventEmitter().setMaxListeners(0));
      for (let i = 0; i < 20; i++) bus.on('gone', () => {});
      start();
      register();
      const counts = async () => (await collect()).filter(({ name }) => name === 'leakguard.listeners')
        .flatMap(({ points }) => points).filter(({ attributes }) => attributes['leakguard.event'] === 'gone').map(({ value }) => value);
      const shown = () => leakguard.metrics().includes('event="gone"');
      until(shown).then(async () => {
        const before = await counts();
        bus.removeAllListeners('gone');
        leakguard.stop();
        leakguard.start();
        // Of another reading, which knows nothing of them.
        await live();
        tell({ before, shown: shown(), after: [await counts(), await counts()] });
      });
    `,
      { env },
    );
    assert.deepEqual(report, { before: [20], shown: false, after: [[0], [0]] });
  });

  test('observes no more once unregistered, and nothing of the runtime if so asked', async (t) => {
    const { report } = await ask(
      t,
      `${SDK}
      start();
      const unregister = register({ runtime: false });
      live().then(async () => {
        const uptime = async () => {
          const [{ points }] = (await collect()).filter(({ name }) => name === 'leakguard.uptime');
          return points[0].value;
        };
        const names = (await collect()).map(({ name }) => name);
        const before = await uptime();
        await until(() => leakguard.status().uptimeMs / 1000 > before);
        const during = await uptime();
        unregister();
        await until(() => leakguard.status().uptimeMs / 1000 > during);
        // The SDK goes on exporting what it was told last.
        tell({ names, before, during, after: await uptime() });
      });
    `,
      { env },
    );
    assert.ok(report.names.length > 20);
    assert.ok(report.names.every((/** @type {string} */ name) => name.startsWith('leakguard.')));
    assert.ok(report.during > report.before);
    assert.equal(report.after, report.during);
  });

  test('is waited for: before there is a provider a warning says so, and afterwards it works', async (t) => {
    const { report, warnings } = await ask(
      t,
      `${SDK}
      register();
      start();
      register();
      live().then(async () => tell({ names: (await collect()).map(({ name }) => name) }));
    `,
      { env },
    );
    assert.equal(warnings.filter((line) => line.includes('call register() after')).length, 1);
    assert.ok(report.names.includes('leakguard.live_heap'));
  });
});

describe('rules and dashboard', () => {
  /** @param {string} text of expressions @param {string} where */
  const check = (text, where) => {
    const uses = [...text.matchAll(/\b(leakguard_\w+)(?:\{([^}]*)\})?/g)];
    assert.ok(uses.length > 0, where);
    for (const [use, name, selector = ''] of uses) {
      const family = FAMILIES.find((one) => one.name === name);
      assert.ok(family, `${where}: there is no ${name}`);
      for (const [, label] of selector.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)) {
        const known = [...family.labels, ...TARGET_LABELS];
        assert.ok(known.includes(label), `${where}: ${use}: there is no label ${label}`);
      }
    }
    const all = [...FAMILIES.flatMap(({ labels }) => labels), ...TARGET_LABELS];
    for (const [use, labels] of text.matchAll(/\b(?:by|on|group_left)\s*\(([^)]*)\)/g)) {
      for (const label of labels.split(',').map((one) => one.trim())) {
        assert.ok(all.includes(label), `${where}: ${use}: there is no label ${label}`);
      }
    }
  };

  test('the rules, their tests and the dashboard name only metrics and labels that there are', () => {
    check(fs.readFileSync(RULES, 'utf8'), 'rules');
    check(fs.readFileSync(path.join(DEPLOY, 'prometheus-rules.test.yml'), 'utf8'), 'rule tests');
    const dashboard = JSON.parse(
      fs.readFileSync(path.join(DEPLOY, 'grafana-dashboard.json'), 'utf8'),
    );
    const expressions = dashboard.panels.flatMap((/** @type {any} */ panel) =>
      panel.targets.map((/** @type {any} */ target) => target.expr),
    );
    assert.ok(expressions.length > 20);
    for (const expression of expressions) check(expression, 'dashboard');
    for (const { query, type } of dashboard.templating.list) {
      if (type === 'query') check(query, 'dashboard');
    }
    for (const { expr } of dashboard.annotations.list) check(expr, 'dashboard');
    assert.throws(() => check('leakguard_heap{a="b"}', 'here'), /there is no leakguard_heap/);
    assert.throws(() => check('leakguard_fds{a="b"}', 'here'), /no label a/);
    assert.throws(() => check('sum by (b) (leakguard_fds)', 'here'), /no label b/);
  });

  test('the metrics, the rules and their unit tests pass promtool', {
    skip: promtool.skip,
  }, async (t) => {
    tool(['check', 'rules', RULES]);
    tool(['test', 'rules', 'prometheus-rules.test.yml']);
    const { report } = await ask(t, GUARDED, { env: { LEAKGUARD_GC_SHARE: '20%' } });
    tool(['check', 'metrics'], report.text);
  });
});

/**
 * The rules with times of seconds and rates to match. Each replacement must find its place.
 *
 * @param {string} rules
 */
function scaled(rules) {
  /** @type {[RegExp, string, number][]} */
  const scale = [
    [/> 1048576 \/ 3600/g, '> 24 * 1048576 / 60', 1],
    [/< 86400/g, '< 600', 1],
    [/for: 6h/g, 'for: 3s', 1],
    [/for: 30m/g, 'for: 3s', 1],
    [/for: 10m/g, 'for: 3s', 1],
    [/\[1h\]/g, '[20s]', 2],
  ];
  return scale.reduce((text, [what, by, times]) => {
    assert.equal([...text.matchAll(what)].length, times, String(what));
    return text.replace(what, by);
  }, rules);
}

/**
 * Starts Prometheus on a free port and waits until it answers.
 *
 * @param {import('node:test').TestContext} t
 * @param {Record<string, number>} targets ports by instance
 * @returns {Promise<(path: string) => Promise<any>>} asks its API
 */
async function startPrometheus(t, targets) {
  const home = temporary(t);
  fs.writeFileSync(path.join(home, 'rules.yml'), scaled(fs.readFileSync(RULES, 'utf8')));
  const statics = Object.entries(targets).map(([instance, port]) => ({
    targets: [`127.0.0.1:${port}`],
    labels: { instance },
  }));
  // JSON is YAML.
  const config = {
    global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
    rule_files: ['rules.yml'],
    scrape_configs: [{ job_name: 'shop', static_configs: statics }],
  };
  fs.writeFileSync(path.join(home, 'prometheus.yml'), JSON.stringify(config));
  const args = [
    `--config.file=${path.join(home, 'prometheus.yml')}`,
    `--storage.tsdb.path=${path.join(home, 'tsdb')}`,
    '--web.listen-address=127.0.0.1:0',
  ];
  const child = spawn(String(prometheus.file), args, { stdio: ['ignore', 'ignore', 'pipe'] });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
  });
  let said = '';
  const port = await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`it does not listen: ${said}`)), 30_000);
    child.once('exit', () => reject(new Error(`it has ended: ${said}`)));
    child.stderr.setEncoding('utf8').on('data', (text) => {
      said += text;
      const listening = /msg="Listening on" address=127\.0\.0\.1:(\d+)/.exec(said);
      if (listening === null) return;
      clearTimeout(late);
      resolve(Number(listening[1]));
    });
  });
  return async (path) => {
    const response = await fetch(`http://127.0.0.1:${port}/api/v1/${path}`);
    const { status, data, error } = /** @type {any} */ (await response.json());
    assert.equal(status, 'success', error);
    return data;
  };
}

test('a real Prometheus fires the right alert for the right one of three Express apps', {
  skip: prometheus.skip,
  timeout: 120_000,
}, async (t) => {
  const evidence = temporary(t);
  /** @param {string} name @param {number} oldSpaceMb @param {number} [port] */
  const start = async (name, oldSpaceMb, port = 0) => {
    const app = await startApp(APP, {
      execArgv: [`--max-old-space-size=${oldSpaceMb}`],
      guarded: false,
      env: {
        PORT: String(port),
        LEAKGUARD_DIR: path.join(evidence, name),
        LEAKGUARD_APP: 'shop',
        LEAKGUARD_INTERVAL: '200ms',
        LEAKGUARD_WINDOW: '10s',
        LEAKGUARD_WARMUP: '3s',
        LEAKGUARD_CONFIRM: '1',
        LEAKGUARD_GROWTH_RATE: '24MB/min',
        LEAKGUARD_GC_SHARE: '20%',
        // No snapshot fits into no pause: it is refused.
        LEAKGUARD_MAX_PAUSE: '0ms',
        LEAKGUARD_LOG: 'silent',
      },
    });
    t.after(() => app.stop());
    return app;
  };
  const [healthy, leaking, first] = await Promise.all([
    start('healthy', 256),
    start('leaking', 256),
    start('restarted', 96),
  ]);
  const api = await startPrometheus(t, {
    healthy: healthy.port,
    leaking: leaking.port,
    restarted: first.port,
  });
  leaking.child.send({ leakBytesPerSecond: 1024 * 1024 });
  // 85 % of the old space is near the limit, and it must not die of it.
  first.child.send({ keepBytes: 78 * 1024 * 1024, untilBytes: 0.86 * 96 * 1024 * 1024 });
  await first.message((/** @type {any} */ message) => message.kept, 30_000, 'a reading of it');
  first.child.kill('SIGKILL');
  await first.exit;
  await start('restarted', 96, first.port);

  const expected = [
    'LeakguardEvidenceRefused leaking',
    'LeakguardFinding leaking',
    'LeakguardLimitNear leaking',
    'LeakguardRestartNearLimit restarted',
  ];
  const firing = async () => {
    const { alerts } = await api('alerts');
    const names = alerts
      .filter((/** @type {any} */ alert) => alert.state === 'firing')
      .map((/** @type {any} */ { labels }) => `${labels.alertname} ${labels.instance ?? ''}`);
    return [...new Set(names)].sort();
  };
  /** Each alert that has ever fired, with the instances it fired for. */
  const fired = async () => {
    const query = encodeURIComponent('count_over_time(ALERTS{alertstate="firing"}[5m])');
    const { result } = await api(`query?query=${query}`);
    const names = result.map(
      (/** @type {any} */ { metric }) => `${metric.alertname} ${metric.instance ?? ''}`,
    );
    return [...new Set(names)].sort();
  };
  const deadline = Date.now() + 75_000;
  /** @type {string[]} */
  let seen = [];
  while (!expected.every((alert) => seen.includes(alert))) {
    assert.ok(Date.now() < deadline, `firing: ${(await firing()).join(', ')}; fired: ${seen}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
    seen = await fired();
  }
  // One replica that grows is not the fleet, and nobody else is accused.
  assert.deepEqual(seen, expected);
  const { activeTargets } = await api('targets');
  for (const { labels, health, lastError } of activeTargets) {
    assert.equal(health, 'up', `${labels.instance}: ${lastError}`);
  }
});
