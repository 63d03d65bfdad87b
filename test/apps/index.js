'use strict';

// The table of all programs under test/apps: what each does to memory, under which load, and what a guard that
// watches it ought to say. The programs themselves know nothing of this table, nor of leakguard.
//
// A leaking program marks its guilty lines: a comment `// LEAK` at the end of a line marks that line, one alone
// on its line marks the next. V8's allocation profile names functions by the line where they begin, so those
// lines are marked as well where the leak is found by allocation.

const fs = require('node:fs');
const path = require('node:path');

/**
 * @typedef {object} Route
 * @property {string} path `{id}` is replaced by a seeded number below `ids`, `{n}` by a running number
 * @property {number} [weight] share of the requests, default 1
 * @property {boolean} [leak] the leaking code runs once for each request of this route
 * @property {'GET' | 'POST'} [method]
 * @property {number} [body] bytes of body
 * @property {number} [ids] how many different ids there are, default 1000
 * @property {Record<string, string>} [headers] `{hex:N}` is replaced by N seeded hexadecimal digits
 * @property {number} [closeAfterMs] the client goes away this long after the response began
 *
 * @typedef {object} Load
 * @property {number} rps requests per second when there are no phases
 * @property {{ seconds: number, rps: number }[]} [phases] one after the other; the last one stays, or all repeat
 * @property {boolean} [repeat]
 * @property {Route[]} routes
 * @property {number} [wander] seconds after which every route's share has moved on by itself; default never
 * @property {boolean} [keepAlive] default true
 * @property {number} [maxSockets] default 64
 *
 * @typedef {'live_heap' | 'array_buffers' | 'external' | 'native' | 'fds' | 'handles' | 'timers' | 'threads' | 'listeners'} SeriesId
 *
 * @typedef {object} Cause what a right finding says
 * @property {string[]} kinds values of `cause.kind` that name the cause even without a line
 * @property {RegExp} [text] which then the sentence has to match as well
 *
 * @typedef {object} Held what a heap snapshot taken at the finding must hold
 * @property {'object' | 'closure' | 'string' | 'sliced string'} type node type in the snapshot
 * @property {RegExp} name
 * @property {number} min how many at least
 *
 * @typedef {object} App
 * @property {string} name
 * @property {string} file absolute
 * @property {boolean | 'undecidable'} leaks
 * @property {SeriesId[]} series those that may report it, the best first
 * @property {SeriesId} measure the series whose true slope a control run measures
 * @property {Cause | null} cause
 * @property {Load} load
 * @property {boolean} arithmetic whether the true slope is better known from the load than from a control run, whose
 *   two readings are too noisy for it
 * @property {boolean} constant whether the slope is constant, so that a rate can be compared with the true one
 * @property {Held | null} holds null if a snapshot holds no leaked JS objects
 * @property {number} leakRps how often per second the leaking code runs
 * @property {number} growth how many times LEAK_MB_PER_MIN it leaks (native series have a higher threshold)
 * @property {number} seconds how long it has to be watched for a verdict
 * @property {number} notBefore seconds before which a finding is a false alarm
 * @property {string[]} execArgv
 * @property {boolean} readme one of the programs of the README's table
 */

const APPS_DIR = __dirname;

const MB = 1024 * 1024;
const LEAK_MB_PER_MIN = Number(process.env.LEAK_MB_PER_MIN) || 4;

/** V8's heap profile and native memory know no line for these kinds: naming the kind is naming the cause. */
const ALLOCATION = { kinds: [] };

const NATIVE_GROWTH = 6;

/**
 * @param {string} name
 * @param {SeriesId[]} series
 * @param {Partial<App> & { load: Load }} rest
 * @returns {App}
 */
function leaking(name, series, rest) {
  return describe('leaking', name, {
    leaks: true,
    series,
    cause: ALLOCATION,
    seconds: 100,
    ...rest,
  });
}

/**
 * @param {string} name
 * @param {Load} load
 * @param {Partial<App>} [rest]
 * @returns {App}
 */
function healthy(name, load, rest = {}) {
  return describe('healthy', name, { leaks: false, constant: false, load, ...rest });
}

/**
 * @param {'leaking' | 'healthy' | 'undecidable'} folder
 * @param {string} name
 * @param {Partial<App> & { load: Load }} given
 * @returns {App}
 */
function describe(folder, name, given) {
  const series = given.series ?? [];
  return {
    name,
    file: path.join(APPS_DIR, folder, `${name}.js`),
    leaks: false,
    series,
    measure: series.find((id) => id !== 'listeners' && id !== 'timers') ?? 'live_heap',
    cause: null,
    arithmetic: false,
    constant: true,
    holds: null,
    leakRps: leakRps(given.load),
    growth: 1,
    seconds: 90,
    notBefore: 0,
    execArgv: [],
    readme: false,
    ...given,
  };
}

/** @param {Load} load */
function leakRps(load) {
  const total = load.routes.reduce((sum, route) => sum + (route.weight ?? 1), 0);
  const leaking = load.routes.reduce(
    (sum, route) => sum + (route.leak ? (route.weight ?? 1) : 0),
    0,
  );
  return (load.rps * leaking) / total;
}

/**
 * @param {string} routePath
 * @param {number} rps
 * @param {Partial<Route & Load>} [rest]
 * @returns {Load}
 */
function only(routePath, rps, rest = {}) {
  const { method, body, ids, headers, closeAfterMs, ...load } = rest;
  return {
    rps,
    routes: [{ path: routePath, leak: true, method, body, ids, headers, closeAfterMs }],
    ...load,
  };
}

/**
 * A leaking route beside a harmless one.
 * @param {string} routePath
 * @param {number} perSecond
 * @param {Partial<Route>} [rest]
 * @returns {Load}
 */
function beside(routePath, perSecond, rest = {}) {
  const routes = [
    { path: '/', weight: 20 },
    { path: routePath, weight: perSecond, leak: true, ...rest },
  ];
  return { rps: 20 + perSecond, routes };
}

/**
 * How often per second to run code that leaks an amount it does not choose, to grow as the others do.
 * @param {number} bytesEach as control runs on Node 20 measured it, and on Node 22: 229,000 +- 7,000 of a deflate
 *   stream, 150,300 +- 1,200 of a TLS context (least squares over 28 forced readings and the calls by then)
 * @param {number} [growth]
 */
function perSecond(bytesEach, growth = 1) {
  return (growth * LEAK_MB_PER_MIN * MB) / 60 / bytesEach;
}

/** @param {number} perSecond */
function bytesPerRequest(perSecond) {
  return (LEAK_MB_PER_MIN * MB) / 60 / perSecond;
}

/** @type {App[]} */
const LEAKING = [
  leaking('listener-per-request', ['listeners', 'live_heap'], {
    load: only('/', 50),
    cause: { kinds: [] },
    holds: { type: 'closure', name: /^onReload$/, min: 100 },
    readme: true,
  }),
  leaking('listener-no-limit', ['listeners', 'live_heap'], {
    load: only('/orders/{n}', 50),
    cause: { kinds: [] },
    holds: { type: 'closure', name: /^onPaid$/, min: 100 },
    readme: true,
  }),
  leaking('map-cache', ['live_heap'], {
    load: only('/page/{n}', 50),
    holds: { type: 'object', name: /^RenderedPage$/, min: 100 },
    readme: true,
  }),
  leaking('header-cache', ['live_heap'], {
    load: only('/', 50, {
      headers: { cookie: `session={hex:${Math.round(bytesPerRequest(50) - 500)}}` },
    }),
    holds: { type: 'string', name: /^session=/, min: 100 },
    readme: true,
  }),
  leaking('pending-promise', ['live_heap'], {
    load: only('/jobs', 50, { method: 'POST', body: 20 }),
    holds: { type: 'object', name: /^Job$/, min: 100 },
    readme: true,
  }),
  leaking('interval-array', ['live_heap'], {
    load: { rps: 10, routes: [{ path: '/' }] },
    holds: { type: 'object', name: /^Reading$/, min: 100 },
    readme: true,
  }),
  leaking('timers', ['timers', 'live_heap'], {
    load: only('/login', 50),
    cause: { kinds: ['timers'], text: /timer|interval/i },
    holds: { type: 'object', name: /^Timeout$/, min: 100 },
    readme: true,
  }),
  leaking('closure-chain', ['live_heap'], {
    load: only('/', 50),
    holds: { type: 'object', name: /^Snapshot$/, min: 100 },
    readme: true,
  }),
  leaking('abort-signal', ['listeners', 'live_heap'], {
    load: only('/search', 50),
    holds: { type: 'closure', name: /^cancel$/, min: 100 },
    readme: true,
  }),
  leaking('event-target', ['listeners', 'live_heap'], {
    load: only('/watch', 50),
    holds: { type: 'closure', name: /^onChange$/, min: 100 },
  }),
  leaking('array-buffers', ['array_buffers', 'external', 'native'], {
    load: only('/image/{n}', 40),
    growth: NATIVE_GROWTH,
    cause: { kinds: ['array_buffers', 'external'], text: /buffer/i },
    holds: { type: 'object', name: /^(Buffer|FastBuffer|Uint8Array|ArrayBuffer)$/, min: 400 },
    readme: true,
  }),
  leaking('file-descriptors', ['fds'], {
    load: beside('/template', 4),
    cause: { kinds: ['fds'], text: /file descriptor|\bfds?\b|descriptor/i },
    readme: true,
  }),
  leaking('one-route', ['live_heap'], {
    load: {
      rps: 60,
      routes: [
        ...[
          'users',
          'carts',
          'items',
          'offers',
          'stock',
          'news',
          'search',
          'help',
          'tags',
          'shops',
          'maps',
        ].map((name) => ({ path: `/${name}`, weight: 5 })),
        { path: '/invoices/{n}', weight: 5, leak: true },
      ],
    },
    holds: { type: 'object', name: /^Invoice$/, min: 50 },
  }),
  leaking('stop-and-start', ['live_heap'], {
    load: only('/', 50, {
      phases: [
        { seconds: 8, rps: 100 },
        { seconds: 8, rps: 0 },
      ],
      repeat: true,
    }),
    constant: false,
    seconds: 120,
    holds: { type: 'object', name: /^AuditEntry$/, min: 100 },
  }),
  leaking('late-onset', ['live_heap'], {
    load: only('/', 50),
    constant: false,
    seconds: 160,
    notBefore: 40,
    holds: { type: 'object', name: /^StoredResponse$/, min: 100 },
  }),
  leaking('two-hundred-bytes', ['live_heap'], {
    load: only('/v/{n}', bytesPerRequest(1) / 200),
    holds: { type: 'object', name: /^Visit$/, min: 1000 },
  }),
  leaking('slow-under-sawtooth', ['live_heap'], {
    load: only('/book', 40, { method: 'POST', body: 100 }),
    growth: 0.5,
    arithmetic: true,
    seconds: 160,
    holds: { type: 'object', name: /^LedgerLine$/, min: 100 },
  }),
  leaking('ignored-backpressure', ['live_heap'], {
    load: only('/', 50),
    holds: { type: 'object', name: /^LogRecord$/, min: 100 },
  }),
  leaking('upload-never-read', ['array_buffers', 'external', 'live_heap'], {
    load: only('/upload', 40, {
      method: 'POST',
      body: Math.round(NATIVE_GROWTH * bytesPerRequest(40)),
    }),
    growth: NATIVE_GROWTH,
    cause: { kinds: ['array_buffers', 'external'], text: /buffer/i },
    holds: { type: 'object', name: /^PassThrough$/, min: 100 },
  }),
  leaking('zlib-handles', ['native', 'external', 'live_heap'], {
    arithmetic: true,
    load: beside('/subscribe', perSecond(230_000, NATIVE_GROWTH)),
    growth: NATIVE_GROWTH,
    cause: { kinds: ['external', 'native'], text: /external|native|zlib/i },
    holds: { type: 'object', name: /^Deflate$/, min: 20 },
  }),
  leaking('tls-contexts', ['native', 'live_heap'], {
    arithmetic: true,
    load: beside('/call', perSecond(150_000, NATIVE_GROWTH)),
    growth: NATIVE_GROWTH,
    cause: { kinds: ['native'], text: /native|outside V8/i },
    holds: { type: 'object', name: /^SecureContext$/, min: 20 },
  }),
  leaking('worker-threads', ['threads', 'handles', 'native'], {
    load: beside('/report', 0.4),
    cause: { kinds: ['threads', 'workers'], text: /thread|worker/i },
    holds: { type: 'object', name: /^Worker$/, min: 3 },
  }),
  leaking('outbound-sockets', ['handles', 'fds'], {
    load: beside('/quote', 4),
    measure: 'fds',
    cause: { kinds: ['handles', 'fds'], text: /socket|tcp|connection/i },
    holds: { type: 'object', name: /^Socket$/, min: 50 },
  }),
  leaking('vm-contexts', ['live_heap', 'native'], {
    load: beside('/render/{n}', perSecond(88_000)),
    holds: { type: 'object', name: /^Customer$/, min: 10 },
  }),
  leaking('sliced-strings', ['live_heap'], {
    load: only('/token', 50),
    holds: { type: 'sliced string', name: /sliced string/, min: 100 },
  }),
  leaking('sse-clients', ['live_heap', 'array_buffers'], {
    load: beside('/events', perSecond(7_800), { closeAfterMs: 400 }),
    holds: { type: 'object', name: /^ServerResponse$/, min: 50 },
  }),
  leaking('metrics-array', ['live_heap'], {
    load: only('/', 50),
    holds: { type: 'object', name: /^Observation$/, min: 100 },
  }),
  leaking('thin-listeners', ['listeners', 'live_heap'], {
    load: only('/rooms', 50, { method: 'POST', body: 40 }),
    holds: { type: 'object', name: /^Room$/, min: 100 },
  }),
];

/** @type {App[]} */
const HEALTHY = [
  healthy('lru-cache', { rps: 60, routes: [{ path: '/page/{n}' }] }, { readme: true }),
  healthy(
    'bursts',
    {
      rps: 30,
      phases: [
        { seconds: 2, rps: 120 },
        { seconds: 6, rps: 4 },
      ],
      repeat: true,
      routes: [{ path: '/' }],
    },
    { readme: true },
  ),
  healthy('sawtooth-garbage', { rps: 50, routes: [{ path: '/' }] }, { readme: true }),
  healthy(
    'ramp-then-plateau',
    {
      rps: 60,
      phases: [10, 20, 30, 40, 50, 60].map((rps) => ({ seconds: 5, rps })),
      routes: [{ path: '/' }],
    },
    { readme: true },
  ),
  healthy('batch-job', { rps: 20, routes: [{ path: '/' }] }, { readme: true }),
  healthy('listeners-removed', { rps: 50, routes: [{ path: '/' }] }, { readme: true }),
  healthy(
    'keep-alive',
    {
      rps: 120,
      phases: [20, 40, 60, 80, 100, 120].map((rps) => ({ seconds: 4, rps })),
      routes: [{ path: '/' }],
    },
    { readme: true },
  ),
  healthy('warm-up', { rps: 30, routes: [{ path: '/mail/{id}', ids: 60 }] }, { readme: true }),
  healthy('day-and-night', {
    rps: 40,
    phases: [10, 25, 50, 70, 80, 70, 50, 25].map((rps) => ({ seconds: 3, rps })),
    repeat: true,
    routes: [{ path: '/login' }],
  }),
  healthy('lazy-routes', {
    rps: 50,
    routes: Array.from({ length: 16 }, (_, i) => ({ path: `/route/${i}`, weight: 0.7 ** i })),
  }),
  healthy('weakref-cache', { rps: 40, routes: [{ path: '/item/{id}', ids: 4000 }] }),
  healthy('connection-pool', {
    rps: 30,
    phases: [2, 4, 8, 12, 16, 20, 25, 30].map((rps) => ({ seconds: 3, rps })),
    routes: [{ path: '/' }],
  }),
  healthy(
    'heap-near-limit',
    { rps: 30, routes: [{ path: '/' }] },
    { execArgv: ['--max-old-space-size=64'] },
  ),
  healthy('rarely-collects', { rps: 2, routes: [{ path: '/' }] }),
  healthy('session-ttl', { rps: 40, routes: [{ path: '/login' }] }),
  healthy('ring-buffer', { rps: 60, routes: [{ path: '/log/{n}' }] }),
  healthy('streamed-downloads', { rps: 4, routes: [{ path: '/download' }] }),
  healthy('uploads-read', {
    rps: 20,
    routes: [{ path: '/upload', method: 'POST', body: 64 * 1024 }],
  }),
  healthy('worker-pool', { rps: 20, routes: [{ path: '/report' }] }),
  healthy('idle-after-peak', {
    rps: 120,
    phases: [
      { seconds: 18, rps: 120 },
      { seconds: 1, rps: 1 },
    ],
    routes: [{ path: '/' }],
  }),
  healthy('preloaded-cache', { rps: 40, routes: [{ path: '/part/{id}' }] }),
  healthy('rooms-closed', { rps: 50, routes: [{ path: '/rooms', method: 'POST', body: 40 }] }),
  healthy('room-cache', {
    rps: 100,
    routes: [{ path: '/rooms/{id}', ids: 600, method: 'POST', body: 40 }],
  }),
  healthy('late-require', { rps: 20, routes: [{ path: '/rules/{id}', ids: 4 }] }),
];

/** @type {App[]} */
const UNDECIDABLE = [
  describe('undecidable', 'filling-cache', {
    leaks: 'undecidable',
    series: ['live_heap'],
    cause: ALLOCATION,
    load: only('/page/{n}', 50),
    holds: { type: 'object', name: /^CachedPage$/, min: 100 },
  }),
  describe('undecidable', 'long-sessions', {
    leaks: 'undecidable',
    series: ['timers', 'live_heap'],
    cause: ALLOCATION,
    load: only('/login', 50),
    holds: { type: 'object', name: /^Session$/, min: 100 },
  }),
];

const ALL = [...LEAKING, ...HEALTHY, ...UNDECIDABLE];

/**
 * @param {string} name
 * @returns {App}
 */
function find(name) {
  const app = ALL.find((candidate) => candidate.name === name);
  if (!app) throw new Error(`no program named ${JSON.stringify(name)} in test/apps/index.js`);
  return app;
}

/**
 * The line numbers (from 1) that a program marks as guilty.
 * @param {App} app
 * @returns {number[]}
 */
function leakLines(app) {
  const lines = fs.readFileSync(app.file, 'utf8').split('\n');
  /** @type {number[]} */
  const marked = [];
  for (const [index, line] of lines.entries()) {
    if (/^\s*\/\/ LEAK$/.test(line)) marked.push(index + 2);
    else if (/\/\/ LEAK$/.test(line)) marked.push(index + 1);
  }
  return marked;
}

/**
 * What a program needs in its environment to leak what the table says under the table's load.
 * @param {App} app
 * @returns {Record<string, string>}
 */
function environment(app) {
  const env = { LEAK_MB_PER_MIN: String(LEAK_MB_PER_MIN * app.growth) };
  return app.leakRps > 0 ? { ...env, LEAK_RPS: String(app.leakRps) } : env;
}

module.exports = {
  ALL,
  APPS_DIR,
  HEALTHY,
  LEAKING,
  LEAK_MB_PER_MIN,
  UNDECIDABLE,
  environment,
  find,
  leakLines,
};
