'use strict';

// lib/routes.js in real programs: what requests are counted as, on Express 4 and 5 and without; that nobody is
// harmed by it; and that a leak on one route of many is named.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { runLoad } = require('./apps/load.js');
const many = require('./apps/many-routes.js');
const { startApp } = require('./harness.js');
const { ask } = require('./program.js');

const MANY_ROUTES = require.resolve('./apps/many-routes.js');

/** Names by what `require` finds them. */
const FRAMEWORKS = {
  'Express 5': require.resolve('express'),
  'Express 4': require.resolve('express4'),
};

/**
 * A program in which `app` answers, `get(path, options)` asks it and resolves to the status, and `body` ends by
 * calling `done(value)`. `counted()` resolves to requests by route once `total` of them were reported.
 *
 * @param {string} setUp
 * @param {string} body
 */
const asking = (setUp, body) => `
  const http = require('node:http');
  const leakguard = require(process.env.GUARD);
  const traffic = () => leakguard.status().isolates[0]?.routes;
  const counted = async (total) => {
    await until(() => (traffic()?.requests ?? 0) >= total);
    return Object.fromEntries(traffic().top.map((one) => [one.route, one.requests]));
  };
  const agent = new http.Agent({ keepAlive: true });
  let port = 0;
  const get = (path, options = {}) => new Promise((resolve, reject) => {
    const request = http.request({ port, path, agent, host: '127.0.0.1', ...options }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
      response.on('error', () => resolve('cut'));
    });
    request.on('error', () => resolve('cut'));
    request.end();
  });
  const done = (value) => {
    process.stdout.write(JSON.stringify(value));
    process.exit(0);
  };
  ${setUp}
  const server = http.createServer(app).listen(0, '127.0.0.1', async () => {
    port = server.address().port;
    ${body}
  });`;

for (const [framework, file] of Object.entries(FRAMEWORKS)) {
  const express = `const express = require(${JSON.stringify(file)}); const app = express();`;

  test(`routes are named by their templates, never by values (${framework})`, async (t) => {
    const source = asking(
      `${express}
      const end = (_req, res) => res.end('ok');
      app.get('/plain/:id', end);
      app.post('/plain/:id', end);
      const leaf = express.Router({ mergeParams: true });
      leaf.get('/leaf/:leaf', end);
      leaf.get('/', end);
      const branch = express.Router();
      branch.use('/in/:where', leaf);
      app.use('/users/:user', branch);
      app.use('/twice/a', leaf);
      app.use('/twice/b', leaf);
      const admin = express();
      admin.get('/reports/:report', end);
      app.use('/admin', admin);
      app.route('/chain').get(end);
      app.get(/^\\/pattern\\/\\d+$/, end);
      app.get(['/one', '/other'], end);
      app.use('/plugin', (req, res) => res.end(req.url));`,
      `for (const path of ['/plain/secret1', '/plain/secret2', '/users/secret3/in/secret4/leaf/secret5',
        '/users/secret%2F6/in/secret7/leaf/x', '/users/secret8/in/secret9', '/twice/a/leaf/1', '/twice/b/leaf/1',
        '/admin/reports/secret10', '/chain', '/pattern/31', '/one', '/other', '/plugin/secret11', '/nowhere/secret12']) {
        await get(path);
      }
      await get('/plain/secret13', { method: 'POST' });
      await get('/plain/secret14', { method: 'HEAD' });
      await counted(16);
      done(JSON.parse(JSON.stringify(require(process.env.GUARD + '/lib/routes.js').names)));`,
    );
    const { report } = await ask(t, source);
    assert.deepEqual(report.slice(2).sort(), [
      'GET (unmatched)',
      'GET /^\\/pattern\\/\\d+$/',
      'GET /admin/reports/:report',
      'GET /chain',
      'GET /one|/other',
      'GET /plain/:id',
      'GET /twice/a/leaf/:leaf',
      'GET /twice/b/leaf/:leaf',
      'GET /users/:user/in/:where',
      'GET /users/:user/in/:where/leaf/:leaf',
      'HEAD /plain/:id',
      'POST /plain/:id',
    ]);
  });

  test(`requests are counted once each, whatever becomes of them (${framework})`, async (t) => {
    const source = asking(
      `${express}
      app.get('/ok', (_req, res) => res.json({}));
      app.get('/throws', () => { throw new Error('on purpose'); });
      app.get('/streams', (req, res) => { res.write('one'); req.socket.destroy(); });
      app.get('/passes', (_req, res, next) => { res.end(); next(); });
      app.get('/odd', (req, res) => { req.route = 7; req.baseUrl = null; res.end(); });
      app.get('/handler', (_req, res) => {
        res.on('finish', () => { throw new Error('of a finish handler'); });
        res.end();
      });
      app.use((error, _req, res, _next) => res.status(500).end());
      let thrown = 0;
      process.on('uncaughtException', () => thrown++);`,
      `const answers = [];
      for (let i = 0; i < 20; i++) answers.push(await get('/ok'));
      for (const path of ['/throws', '/streams', '/passes', '/odd', '/handler']) answers.push(await get(path));
      const routes = await counted(25);
      done({ answers: answers.slice(20), routes, thrown });`,
    );
    const { report } = await ask(t, source);
    assert.deepEqual(report.answers, [500, 'cut', 200, 200, 200]);
    assert.equal(report.thrown, 1);
    assert.deepEqual(report.routes, {
      'GET /ok': 20,
      'GET /throws': 1,
      '(unfinished)': 1,
      'GET /passes': 1,
      'GET (unmatched)': 1,
      'GET /handler': 1,
    });
  });
}

test('a leak on one route of twelve is named', async () => {
  const leaking = 9;
  const load = many.load(leaking, 60);
  const app = await startApp(MANY_ROUTES, {
    env: {
      LEAK_ROUTE: String(leaking),
      LEAK_RPS: String(60 / many.ROUTES.length),
      LEAKGUARD_SNAPSHOT: 'off',
    },
  });
  const over = new AbortController();
  const loading = runLoad(app.port, load, { seed: 4, durationMs: 150_000, signal: over.signal });
  try {
    /** @type {any} */
    const finding = await app.waitForFinding(140_000, (/** @type {any} */ one) =>
      ['routes', 'one_of'].includes(one.routes?.verdict),
    );
    assert.equal(finding.routes.with[0].route, many.ROUTES[leaking].name, finding.sentence);
    assert.match(finding.sentence, /about [\d.]+ (bytes|KB) a request; it goes with /);
    assert.ok(finding.routes.requestsPerSecond > 20, JSON.stringify(finding.routes));
  } finally {
    over.abort();
    await loading;
    await app.stop();
  }
});

test('without a framework requests are counted by method', async (t) => {
  const source = asking(
    'const app = (_req, res) => res.end();',
    `await get('/secret1');
    await get('/secret2?x=secret3', { method: 'DELETE' });
    done(await counted(2));`,
  );
  const { report } = await ask(t, source);
  assert.deepEqual(report, { 'GET (unmatched)': 1, 'DELETE (unmatched)': 1 });
});

test('there are never more than 64 rows, and what comes later is counted as other', async (t) => {
  const source = asking(
    `const express = require(${JSON.stringify(FRAMEWORKS['Express 5'])}); const app = express();
    for (let i = 0; i < 100; i++) app.get('/route' + i, (_req, res) => res.end());
    const shared = express.Router();
    shared.get('/leaf', (_req, res) => res.end());
    for (let i = 0; i < 12; i++) app.use('/mount' + i, shared);`,
    `for (let i = 0; i < 12; i++) await get('/mount' + i + '/leaf');
    for (let i = 0; i < 100; i++) await get('/route' + i);
    await counted(112);
    done({ names: require(process.env.GUARD + '/lib/routes.js').names.length, ...await counted(112) });`,
  );
  const { report } = await ask(t, source);
  assert.equal(report.names, 64);
  // Eight mounts of one router are told apart, and 54 routes fit beside them.
  assert.equal(report['(other)'], 4 + 46);
});

test('off, nothing is subscribed to; on and off again leaves nothing behind', async (t) => {
  const source = (/** @type {string} */ body) => `
    const dc = require('node:diagnostics_channel');
    const has = () => ['http.server.request.start', 'http.server.response.finish']
      .map((name) => dc.hasSubscribers(name));
    const mine = () => {};
    dc.subscribe('http.server.request.start', mine);
    const leakguard = require(process.env.GUARD);
    dc.unsubscribe('http.server.request.start', mine);
    ${body}`;
  const off = await ask(
    t,
    source(
      `process.stdout.write(JSON.stringify([has(), leakguard.status().settings.routes.value]));`,
    ),
    { env: { LEAKGUARD_ROUTES: 'off' } },
  );
  assert.deepEqual(off.report, [[false, false], 'off']);
  const on = await ask(
    t,
    source(`const seen = [has()];
      leakguard.start({ routes: 'off' });
      seen.push(has());
      leakguard.start({ routes: 'on' });
      leakguard.stop();
      seen.push(has());
      process.stdout.write(JSON.stringify(seen));`),
  );
  assert.deepEqual(on.report, [
    [true, true],
    [false, false],
    [false, false],
  ]);
});

test('a worker counts its own requests', async (t) => {
  const source = `
    const { Worker } = require('node:worker_threads');
    const leakguard = require(process.env.GUARD);
    const worker = new Worker(\`
      const http = require('node:http');
      require(process.env.GUARD);
      const app = require(${JSON.stringify(FRAMEWORKS['Express 5'])})();
      app.get('/in/:worker', (_req, res) => res.end());
      app.listen(0, '127.0.0.1', function () {
        const path = { host: '127.0.0.1', port: this.address().port, path: '/in/secret' };
        http.get(path, (response) => response.resume());
      });
    \`, { eval: true });
    (async () => {
      const routes = () => leakguard.status().isolates.map((one) => one.routes?.top ?? []);
      await until(() => routes()[1]?.length === 1);
      process.stdout.write(JSON.stringify(routes()));
      await worker.terminate();
      process.exit(0);
    })();`;
  const { report } = await ask(t, source);
  assert.deepEqual(
    report.map((/** @type {any} */ top) => top.map((/** @type {any} */ one) => one.route)),
    [[], ['GET /in/:worker']],
  );
});
