'use strict';

// The status page: who may see it, in every framework that serves it, what is in its JSON, what it looks like to a real
// Chromium, and what ready() says around a snapshot that stops the loop.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { once } = require('node:events');
const { after, before, describe, test } = require('node:test');
const { chromium } = require('playwright-core');
const { load } = require('../lib/load.js');
const { PageServer } = require('../lib/page.js');
const { need } = require('../scripts/system.js');
const { ROOT } = require('../scripts/steps.js');
const { startApp } = require('./harness.js');
const { QUICK_SETTINGS, ask, run } = require('./program.js');

const APP = path.join(__dirname, 'apps', 'page.js');
const TOKEN = 'correct-horse/battery+staple=';
const BEARER = { authorization: `Bearer ${TOKEN}` };
const FRAMEWORKS = ['http', 'express', 'express4', 'fastify'];
const DEADLINE_MS = 60_000;
const FINDING_DEADLINE_MS = 120_000;

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {import('node:http').IncomingHttpHeaders} headers without the date
 * @property {string} body
 */

/**
 * @param {number} port
 * @param {string} where path and query
 * @param {import('node:http').OutgoingHttpHeaders} [headers]
 * @param {string} [method]
 * @returns {Promise<Answer>}
 */
async function get(port, where, headers = {}, method = 'GET') {
  const request = http.request({
    port,
    host: '127.0.0.1',
    path: where,
    method,
    headers,
    agent: false,
  });
  request.end();
  const [response] = await once(request, 'response');
  let body = '';
  for await (const chunk of response.setEncoding('utf8')) body += chunk;
  const { date, ...rest } = response.headers;
  assert.ok(date);
  return { status: response.statusCode, headers: rest, body };
}

/**
 * A page server in this process, with the real documents and a native side that answers when it is told to.
 *
 * @param {import('node:test').TestContext} t
 * @param {Partial<import('../lib/page.js').Surroundings>} [around]
 */
async function serve(t, around) {
  const { binding } = load();
  const digest = crypto.createHash('sha256').update(TOKEN).digest();
  /** @type {{ asked: any[], answers: any[] }} */
  const native = { asked: [], answers: [] };
  const guard = {
    requestPage: (/** @type {any[]} */ ...question) => native.asked.push(question) > 0,
    takePage: () => native.answers.shift() ?? null,
  };
  const page = new PageServer({
    token: () => digest,
    native: () => guard,
    binding: () => binding,
    ...around,
  });
  const handler = page.handler();
  const server = http.createServer((request, response) => handler(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  return { page, native, guard, port: address.port };
}

/** @param {Answer} answer */
function sessionOf({ headers }) {
  const [cookie = ''] = headers['set-cookie'] ?? [];
  const [pair, ...attributes] = cookie.split('; ');
  return { cookie: pair, attributes };
}

test('without the token, and with a wrong one in whatever form, the answer and the work are the same', async (t) => {
  const { port } = await serve(t);
  const { cookie } = sessionOf(await get(port, '/', BEARER, 'POST'));
  const [name, value] = cookie.split('=');
  const [expires, seal] = value.split('.');
  const past = (1).toString(36);
  /** @type {[string, import('node:http').OutgoingHttpHeaders][]} */
  const attempts = [
    ['nothing', {}],
    ['an empty token', { authorization: 'Bearer ' }],
    ['a wrong token', { authorization: `Bearer ${TOKEN.slice(0, -1)}!` }],
    ['the beginning of the token', { authorization: `Bearer ${TOKEN.slice(0, -1)}` }],
    ['the token and more', { authorization: `Bearer ${TOKEN}x` }],
    ['nothing of the token, as long', { authorization: `Bearer ${'x'.repeat(TOKEN.length)}` }],
    ['a token much longer', { authorization: `Bearer ${TOKEN.repeat(100)}` }],
    ['another scheme', { authorization: `Basic ${TOKEN}` }],
    ['the token as the cookie', { cookie: `leakguard=${TOKEN}` }],
    ['a cookie of nothing', { cookie: 'leakguard=' }],
    ['a cookie with a wrong seal', { cookie: `${name}=${expires}.${seal.slice(1)}A` }],
    ['a cookie with a later end', { cookie: `${name}=z${expires}.${seal}` }],
    ['a cookie that has ended', { cookie: `${name}=${past}.${seal}` }],
    ['a cookie of another name', { cookie: `x${name}=${value}` }],
    [
      'the token in another header',
      { 'x-leakguard-token': TOKEN, 'proxy-authorization': `Bearer ${TOKEN}` },
    ],
  ];
  const calls = { timingSafeEqual: 0, createHash: 0, createHmac: 0 };
  for (const called of /** @type {(keyof typeof calls)[]} */ (Object.keys(calls))) {
    const original = /** @type {any} */ (crypto[called]);
    t.mock.method(crypto, called, (/** @type {any[]} */ ...args) => {
      calls[called]++;
      return original(...args);
    });
  }
  const work = async (/** @type {() => Promise<Answer>} */ request) => {
    Object.assign(calls, { timingSafeEqual: 0, createHash: 0, createHmac: 0 });
    return { answer: await request(), calls: { ...calls } };
  };
  const asked = ['/', '/?format=json'].flatMap((where) =>
    ['GET', 'HEAD', 'POST'].map((method) => ({ where, method })),
  );
  for (const { where, method } of asked) {
    const first = await work(() => get(port, where, {}, method));
    assert.equal(first.answer.status, 401);
    assert.equal(first.answer.body === '', method === 'HEAD');
    assert.equal(first.answer.headers['www-authenticate'], 'Bearer realm="leakguard"');
    assert.ok(first.calls.timingSafeEqual > 0 && first.calls.createHmac > 0);
    for (const [what, headers] of attempts) {
      assert.deepEqual(await work(() => get(port, where, headers, method)), first, what);
    }
    // Not in the address either, under any name.
    for (const key of ['token', 'leakguard', 'access_token', 'authorization']) {
      const query = `${where.includes('?') ? '&' : '?'}${key}=${encodeURIComponent(TOKEN)}`;
      assert.deepEqual(await work(() => get(port, where + query, {}, method)), first, key);
    }
    const right = await work(() => get(port, `${where}`, BEARER, 'POST'));
    assert.equal(right.answer.status, 204);
  }
});

test('a login makes a cookie that opens the page and is not the token', async (t) => {
  const { port } = await serve(t);
  const login = await get(port, '/', BEARER, 'POST');
  assert.equal(login.status, 204);
  const { cookie, attributes } = sessionOf(login);
  assert.deepEqual(attributes, ['HttpOnly', 'SameSite=Strict']);
  assert.ok(!cookie.includes(TOKEN));
  assert.equal((await get(port, '/', { cookie })).status, 200);
  assert.equal(
    (await get(port, '/', { cookie: `a=b; leakguard=old.old;${cookie}; c=d` })).status,
    200,
  );
  // A cookie is no way to another one.
  assert.equal((await get(port, '/', { cookie }, 'POST')).status, 401);
  for (const [referer, expected] of [
    ['https://example.org/team/app/leakguard?format=html', ['Path=/team/app/leakguard', 'Secure']],
    ['http://example.org/leakguard', ['Path=/leakguard']],
    ['http://example.org/a;Domain=example.org', []],
    ['nonsense', []],
  ]) {
    const answer = await get(port, '/', { ...BEARER, referer: String(referer) }, 'POST');
    assert.deepEqual(sessionOf(answer).attributes, ['HttpOnly', 'SameSite=Strict', ...expected]);
  }
});

test('a session ends after twelve hours, and with the token that it was made from', async (t) => {
  const other = crypto.createHash('sha256').update('another-token-16').digest();
  const { port } = await serve(t);
  const { port: elsewhere } = await serve(t, { token: () => other });
  const { cookie } = sessionOf(await get(port, '/', BEARER, 'POST'));
  assert.equal((await get(elsewhere, '/', { cookie })).status, 401);
  const now = Date.now();
  t.mock.method(Date, 'now', () => now + 11.9 * 3_600_000);
  assert.equal((await get(port, '/', { cookie })).status, 200);
  t.mock.method(Date, 'now', () => now + 12.1 * 3_600_000);
  assert.equal((await get(port, '/', { cookie })).status, 401);
});

test('ten open pages are one question, too many different ones are turned away, and none waits for a guard that stopped', async (t) => {
  const { port, native, page, guard } = await serve(t);
  const asked = (/** @type {number} */ count) =>
    new Promise((resolve) => {
      const look = () => (native.asked.length >= count ? resolve(undefined) : setImmediate(look));
      look();
    });
  const same = Array.from({ length: 10 }, () => get(port, '/?format=json&span=6h', BEARER));
  const others = Array.from({ length: 7 }, (_, id) =>
    get(port, `/?format=json&isolate=${id}`, BEARER),
  );
  await asked(8);
  const late = await get(port, '/?format=json&isolate=99', BEARER);
  assert.equal(late.status, 503);
  assert.equal(late.headers['retry-after'], '5');
  assert.equal(native.asked.length, 8);
  const [number] = native.asked.find(
    ([, span, isolate]) => span === 21_600_000 && isolate === null,
  );
  native.answers.push([number, '{"a":1}'], [4_000_000, 'nobody asked']);
  page.takeAnswers(guard);
  for (const answer of await Promise.all(same)) assert.equal(answer.body, '{"a":1}');
  page.stop();
  for (const answer of await Promise.all(others)) assert.equal(answer.status, 503);
});

test('what fails in the page is a 500 of its own', async (t) => {
  const broken = () => {
    throw new Error('no binding');
  };
  const { port } = await serve(t, { binding: broken });
  const answer = await get(port, '/', BEARER);
  assert.deepEqual([answer.status, answer.body], [500, 'Internal Server Error\n']);
  const { port: other } = await serve(t, { token: broken });
  assert.equal((await get(other, '/')).status, 500);
  const { port: third } = await serve(t, { native: broken });
  assert.equal((await get(third, '/?format=json', BEARER)).status, 500);
});

for (const framework of FRAMEWORKS) {
  test(`${framework} serves the page`, async (t) => {
    const app = await startApp(APP, { args: [framework], env: { LEAKGUARD_TOKEN: TOKEN } });
    t.after(() => app.stop());
    const { port } = app;
    assert.equal((await get(port, '/')).body, 'the app');
    const refused = await get(port, '/leakguard');
    assert.equal(refused.status, 401);
    assert.match(refused.headers['content-type'] ?? '', /^text\/html/);

    const html = await get(port, '/leakguard', BEARER);
    assert.equal(html.status, 200);
    for (const { headers } of [html, refused]) {
      assert.equal(headers['cache-control'], 'no-store');
      assert.equal(headers['x-content-type-options'], 'nosniff');
      assert.equal(headers['referrer-policy'], 'same-origin');
      const policy = String(headers['content-security-policy']);
      assert.match(policy, /default-src 'none'; script-src 'sha256-[\w+/=]+'; style-src 'sha256-/);
      assert.match(policy, /frame-ancestors 'none'/);
      assert.doesNotMatch(policy, /unsafe|\*|https?:/);
    }
    assert.doesNotMatch(html.body, /\son\w+=|src=|https?:\/\/(?!www\.w3\.org)/);

    const json = await get(port, '/leakguard', { ...BEARER, accept: 'application/json' });
    assert.match(json.headers['content-type'] ?? '', /^application\/json/);
    const model = JSON.parse(json.body);
    assert.equal(model.schema, 1);
    assert.equal(model.pid, app.pid);
    assert.equal((await get(port, '/leakguard?format=json', BEARER)).status, 200);

    const head = await get(port, '/leakguard', BEARER, 'HEAD');
    assert.deepEqual([head.status, head.headers, head.body], [200, html.headers, '']);
    for (const method of ['PUT', 'DELETE', 'OPTIONS']) {
      const answer = await get(port, '/leakguard', BEARER, method);
      assert.deepEqual([answer.status, answer.headers.allow], [405, 'GET, HEAD, POST'], method);
    }
    const login = await get(port, '/leakguard', BEARER, 'POST');
    assert.equal(login.status, 204);
    const { cookie } = sessionOf(login);
    assert.equal((await get(port, '/leakguard', { cookie })).body, html.body);
    const wrong = { authorization: 'Bearer guess' };
    assert.deepEqual(await get(port, '/leakguard', wrong, 'POST'), refused);

    if (framework.startsWith('express')) await mounted(port, html);

    // Where a request claims to come from, and whom it claims to ask, is nobody's business here.
    const forged = {
      host: 'localhost',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-host': 'localhost',
      'x-forwarded-proto': 'https',
      'x-real-ip': '127.0.0.1',
      'x-original-url': '/',
      forwarded: 'for=127.0.0.1;host=localhost',
      origin: 'http://localhost',
    };
    assert.deepEqual(await get(port, '/leakguard', forged), refused);
    assert.deepEqual(await get(port, '/leakguard', { ...forged, ...BEARER }), html);
    const { attributes } = sessionOf(
      await get(port, '/leakguard', { ...forged, ...BEARER }, 'POST'),
    );
    assert.deepEqual(attributes, sessionOf(login).attributes);
    assert.equal(app.stderr, '');
  });
}

/**
 * In Express it answers where it is mounted and nowhere else.
 *
 * @param {number} port
 * @param {Answer} page
 */
async function mounted(port, page) {
  for (const where of ['/leakguard/', '/leakguard/?a=b', '/routed', '/inner/status', '/bare/']) {
    assert.deepEqual(await get(port, where, BEARER), page, where);
  }
  for (const where of ['/leakguard/inner', '/inner', '/routed/inner', '/leakguards']) {
    assert.equal((await get(port, where, BEARER)).status, 404, where);
  }
  const late = { ...BEARER, 'x-late': '1' };
  // The same app in front of all routes, without a path.
  assert.equal((await get(port, '/', late)).body, 'the app');
}

/**
 * A file that was listed. What was being written then may have its own name by now.
 *
 * @param {string} file
 */
function readWritten(file) {
  try {
    return fs.readFileSync(file);
  } catch {
    return fs.readFileSync(file.replace(/(\.json)\..*\.part$/, '$1'));
  }
}

test('the JSON has the fields of docs/STATUS-PAGE.md and no others, and bounded series', async (t) => {
  const env = { ...QUICK_SETTINGS, LEAKGUARD_TOKEN: TOKEN, LEAKGUARD_HOOK: 'true sesame' };
  const app = await startApp(APP, { args: ['http', 'leak'], env });
  t.after(() => app.stop());
  await app.waitForFinding(FINDING_DEADLINE_MS);
  const drawnIds = ['rss', 'heap_used', 'live_heap', 'loop_utilization', 'handles'];
  // A finding may come with two readings of one series and one of another.
  const end = Date.now() + DEADLINE_MS;
  const few = (/** @type {string} */ text) => {
    const { process: own, isolate } = JSON.parse(text);
    const drawn = { ...own.series, ...isolate.series };
    const enough = drawnIds.every((id) => drawn[id]?.points.length >= 2);
    return !enough || !(isolate.listeners[0]?.points.length > 2);
  };
  let body = '';
  do {
    assert.ok(Date.now() < end, body);
    ({ body } = await get(app.port, '/leakguard?format=json&span=5m', BEARER));
  } while (few(body));
  const model = JSON.parse(body);
  const text = fs.readFileSync(path.join(ROOT, 'docs', 'STATUS-PAGE.md'), 'utf8');
  const table = text.slice(text.indexOf('| field'));
  const documented = [...table.matchAll(/^\| (`.*?) +\|/gm)].flatMap(([, cell]) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, field]) => field),
  );
  const topLevel = new Set(documented.map((field) => field.split(/[.[]/)[0]));
  assert.deepEqual([...topLevel].sort(), Object.keys(model).sort());
  for (const [part, value] of [
    ['isolate', model.isolate],
    ['findings[]', model.findings[0]],
  ]) {
    const fields = documented
      .filter((field) => field.startsWith(`${part}.`))
      .map((field) => field.slice(part.length + 1).split(/[.[]/)[0]);
    assert.deepEqual([...new Set(fields)].sort(), Object.keys(value).sort(), part);
  }
  const { process: own, isolate } = model;
  const drawn = { ...own.series, ...isolate.series };
  for (const id of drawnIds) {
    const { points, last } = drawn[id];
    assert.ok(points.length >= 2 && points.length <= 300, `${id} ${points.length}`);
    assert.equal(typeof last, 'number');
    for (const [at, value] of points) {
      assert.ok(at >= model.span.from - 1000 && at <= model.span.to + 1000, `${id} ${at}`);
      assert.ok(Number.isFinite(value));
    }
  }
  assert.equal(model.span.to - model.span.from <= 300_000, true);
  assert.ok(isolate.listeners[0].points.length > 2);
  assert.match(model.findings[0].sentence, /listeners/);
  assert.deepEqual(model.settings.token, { value: 'set', origin: 'environment' });
  assert.equal(model.settings.hook.value, 'true');
  assert.ok(!body.includes(TOKEN) && !body.includes('sesame'));

  // The token is in nothing that is said or written.
  app.child.send({ ask: 'snapshot' });
  await app.message((message) => message.snapshot, DEADLINE_MS, 'a snapshot');
  app.child.send({ ask: 'status' });
  const status = await app.message((message) => message.status, DEADLINE_MS, 'a status');
  assert.ok(!JSON.stringify(status).includes(TOKEN));
  assert.ok(!(app.stderr + app.stdout).includes(TOKEN));
  const files = fs.readdirSync(app.dir).filter((name) => !name.includes('heapsnapshot'));
  assert.ok(
    files.some((name) => name.endsWith('.rec')) && files.some((name) => name.endsWith('.json')),
  );
  for (const file of files) {
    assert.ok(!readWritten(path.join(app.dir, file)).includes(TOKEN), file);
  }

  app.child.send({ ask: 'stop' });
  await app.message((message) => message.stopped, DEADLINE_MS, 'its end');
  assert.equal((await get(app.port, '/leakguard?format=json', BEARER)).status, 503);
});

/** @type {[string, Record<string, string | undefined>, RegExp][]} */
const CLOSED = [
  ['without a token', { LEAKGUARD_TOKEN: undefined }, /^$/],
  ['with an empty token', { LEAKGUARD_TOKEN: '' }, /LEAKGUARD_TOKEN: expected at least 16/],
  [
    'with a token that is too short',
    { LEAKGUARD_TOKEN: 'fifteen-charact' },
    /LEAKGUARD_TOKEN: expected at least 16 visible ASCII characters without blanks, or off, got 15 characters/,
  ],
  ['with a token of blanks', { LEAKGUARD_TOKEN: 'sixteen characters' }, /got 18 characters/],
  ['when it is off', { LEAKGUARD: 'off', LEAKGUARD_TOKEN: TOKEN }, /^$/],
];
for (const [when, env, said] of CLOSED) {
  test(`there is no page ${when}`, async (t) => {
    const app = await startApp(APP, { args: ['express'], env });
    t.after(() => app.stop());
    const token = env.LEAKGUARD_TOKEN ?? TOKEN;
    const authorization = { authorization: `Bearer ${token}` };
    const closed = await get(app.port, '/leakguard');
    assert.equal(closed.status, 404);
    assert.deepEqual(await get(app.port, '/leakguard', authorization), closed);
    assert.deepEqual(await get(app.port, '/leakguard', authorization, 'POST'), closed);
    assert.equal((await get(app.port, '/')).body, 'the app');
    assert.match(app.stderr, said);
    assert.ok(!token || !app.stderr.includes(token));
  });
}

test('ready() is false in every thread while a snapshot stops one of them, and the app is told before', async (t) => {
  const source = `
    const { Worker } = require('node:worker_threads');
    const leakguard = require(process.env.GUARD);
    const alive = setInterval(() => {}, 1000);
    const seen = new Int32Array(new SharedArrayBuffer(8));
    const watch = \`
      const { workerData } = require('node:worker_threads');
      const leakguard = require(process.env.GUARD);
      const look = () => {
        Atomics.store(workerData, 0, 1);
        if (!leakguard.ready()) Atomics.store(workerData, 1, 1);
        setImmediate(look);
      };
      look();\`;
    const held = Array.from({ length: 200000 }, (_, i) => ({ i, next: [i] }));
    (async () => {
      const worker = new Worker(watch, { eval: true, workerData: seen });
      await until(() => Atomics.load(seen, 0) === 1);
      const report = { before: leakguard.ready(), order: [] };
      leakguard.on('snapshotStart', (stop) => {
        report.order.push(['start', leakguard.ready(), stop]);
        setImmediate(() => report.order.push(['turn']));
      });
      leakguard.on('snapshot', () => report.order.push(['written', leakguard.ready()]));
      const taken = await leakguard.snapshot({ reason: 'test' });
      report.taken = taken.path !== undefined || taken;
      report.after = leakguard.ready();
      report.elsewhere = Atomics.load(seen, 1);
      leakguard.stop();
      report.stopped = leakguard.ready();
      await worker.terminate();
      clearInterval(alive);
      process.stdout.write(JSON.stringify({ ...report, held: held.length }));
    })();`;
  const env = { LEAKGUARD_SNAPSHOT: 'inline', LEAKGUARD_GROWTH_RATE: '1GB/min' };
  const { report } = await ask(t, source, { env });
  assert.equal(report.before, true);
  assert.equal(report.taken, true);
  const [start, , written] = report.order;
  assert.deepEqual(start.slice(0, 2), ['start', false]);
  assert.equal(start[2].tid, 0);
  assert.ok(start[2].predictedPauseMs > 0);
  assert.deepEqual(
    report.order.map((/** @type {string[]} */ [what]) => what),
    ['start', 'turn', 'written'],
  );
  assert.equal(written[1], true);
  assert.deepEqual([report.after, report.elsewhere, report.stopped], [true, 1, true]);
});

test('a guard that is off is ready, and stopping it before a snapshot begins leaves nothing unready', async (t) => {
  const off = `process.stdout.write(JSON.stringify({ ready: require(process.env.GUARD).ready() }));`;
  assert.deepEqual((await ask(t, off, { env: { LEAKGUARD: 'off' } })).report, { ready: true });
  const stopped = await run(
    t,
    `const leakguard = require(process.env.GUARD);
     const alive = setInterval(() => {}, 1000);
     leakguard.on('snapshotStart', () => leakguard.stop());
     leakguard.snapshot().then(async (answer) => {
       const ready = leakguard.ready();
       leakguard.start();
       process.stdout.write(JSON.stringify({ ready, again: leakguard.ready(), answer }));
       clearInterval(alive);
     });`,
    { env: { LEAKGUARD_SNAPSHOT: 'inline' } },
  );
  const { ready, again, answer } = JSON.parse(stopped.stdout);
  assert.deepEqual([ready, again, answer.refused.reason], [true, true, 'shutting_down']);
});

const { file: browserFile, skip } = need('chromium');

describe('the page in Chromium', { skip, timeout: 5 * DEADLINE_MS }, () => {
  /** @type {Awaited<ReturnType<typeof startApp>>} */
  let app;
  /** @type {import('playwright-core').Browser} */
  let browser;
  /** @type {string} */
  let url;

  before(async () => {
    const env = { ...QUICK_SETTINGS, LEAKGUARD_TOKEN: TOKEN };
    app = await startApp(APP, { args: ['express', 'leak'], env });
    url = `http://127.0.0.1:${app.port}/leakguard`;
    const args = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking'];
    browser = await chromium.launch({ executablePath: String(browserFile), args });
    await app.waitForFinding(FINDING_DEADLINE_MS);
  });

  after(async () => {
    await browser?.close();
    await app?.stop();
  });

  /**
   * Opens the page, lets `use` work on it, and asserts that it said nothing and asked nobody else.
   *
   * @param {import('playwright-core').BrowserContextOptions} options
   * @param {(page: import('playwright-core').Page, complaints: string[]) => Promise<void>} use
   * @param {(status: any) => void} [change] what the page is given instead of the truth
   */
  async function open(options, use, change) {
    const context = await browser.newContext({
      viewport: { width: 1200, height: 900 },
      ...options,
    });
    try {
      const page = await context.newPage();
      /** @type {string[]} */
      const complaints = [];
      /** @type {string[]} */
      const elsewhere = [];
      page.on('console', (message) => complaints.push(message.text()));
      page.on('pageerror', (error) => complaints.push(String(error.stack)));
      page.on('dialog', (dialog) => {
        complaints.push(`dialog ${dialog.message()}`);
        dialog.dismiss();
      });
      await context.route('**', async (route) => {
        const asked = route.request().url();
        if (asked.split('?')[0] === url) {
          if (change === undefined || !asked.includes('format=json')) return route.continue();
          const response = await route.fetch();
          const status = await response.json();
          change(status);
          return route.fulfill({ response, json: status });
        }
        elsewhere.push(asked);
        return route.abort();
      });
      await page.goto(url);
      await use(page, complaints);
      assert.deepEqual(complaints, []);
      assert.deepEqual(elsewhere, []);
      assert.equal(await page.evaluate('globalThis.hit'), undefined);
    } finally {
      await context.close();
    }
  }

  /** @param {string} colorScheme @param {number} width */
  const reader = (colorScheme, width) => ({
    extraHTTPHeaders: BEARER,
    colorScheme: /** @type {'light' | 'dark'} */ (colorScheme),
    viewport: { width, height: 900 },
  });

  test('charts draw and go on, the finding stands above them, and names made of markup are text', async () => {
    await open(reader('light', 1200), async (page) => {
      await page.locator('.charts figure').nth(5).waitFor();
      assert.match((await page.locator('h1').textContent()) ?? '', /listeners/i);
      assert.equal(await page.locator('img, iframe, main script').count(), 0);
      const text = (await page.locator('main').textContent()) ?? '';
      assert.ok(text.includes('<script>globalThis.hit = 1</script>'));
      await page.locator('article.suspect').first().waitFor();

      await page.getByRole('button', { name: '5 min' }).click();
      const drawn = await page.locator('.charts path.line').first().getAttribute('d');
      // The span is another one, and the time goes on.
      const other = `.charts figure:first-child path.line:not([d="${drawn}"])`;
      await page.locator(other).waitFor({ state: 'attached' });
      assert.match((await page.locator('.liveness').textContent()) ?? '', /^live/);
    });
  });

  test('the names of routes made of markup are text', async () => {
    const route =
      'GET /<img src=x onerror="globalThis.hit = 1"><script>globalThis.hit = 1</script>';
    await open(
      reader('light', 1200),
      async (page) => {
        const row = page.locator('article.suspect code', { hasText: route });
        await row.first().waitFor({ state: 'attached' });
        assert.equal(await page.locator('img, main script').count(), 0);
      },
      ({ findings }) => {
        assert.ok(findings.length > 0);
        for (const finding of findings) finding.routes = { with: [{ route, share: 0.9 }] };
      },
    );
  });

  for (const scheme of ['light', 'dark']) {
    for (const width of [1200, 360]) {
      test(`nothing is wider than the window, ${scheme} at ${width} pixels`, async () => {
        await open(reader(scheme, width), async (page) => {
          await page.locator('.charts figure').nth(5).waitFor();
          await page.locator('#numbers').waitFor();
          assert.equal(
            await page.evaluate('document.documentElement.scrollWidth <= innerWidth'),
            true,
          );
        });
      });
    }
  }

  test('the token is asked for, a wrong one is turned away, and the right one opens the page', async () => {
    await open({}, async (page, complaints) => {
      assert.equal(await page.locator('.charts').count(), 0);
      await page.getByLabel('Token').fill('a wrong token, surely');
      await page.keyboard.press('Enter');
      await page.getByText('That is not the token.').waitFor();
      await page.getByLabel('Token').fill(TOKEN);
      await page.keyboard.press('Enter');
      await page.locator('.charts figure').nth(5).waitFor();
      assert.equal(page.url(), url);
      const [cookie] = await page.context().cookies();
      assert.deepEqual(
        [cookie.name, cookie.httpOnly, cookie.sameSite, cookie.path],
        ['leakguard', true, 'Strict', '/leakguard'],
      );
      assert.equal(await page.evaluate('document.cookie'), '');
      // Chromium itself says of each answer that it was a 401: that of the page, and that of the wrong token.
      const refused = complaints.splice(0);
      assert.equal(refused.length, 2);
      for (const line of refused) assert.match(line, /status of 401/);
    });
  });
});
