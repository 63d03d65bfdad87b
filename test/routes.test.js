'use strict';

// lib/routes.js in real programs: what requests are counted as, on Express 4 and 5, on Fastify and without a framework;
// that nobody is harmed by it, whatever else than a request and its answer a connection carries; and that a leak
// on one route of many is named.

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
  const loading = runLoad(app.port, load, { seed: 4, durationMs: 250_000, signal: over.signal });
  try {
    /** @type {any} */
    const finding = await app.waitForFinding(240_000, (/** @type {any} */ one) =>
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

test('routes of Fastify are named by their templates, never by values', async (t) => {
  const source = asking(
    `const fastify = require(${JSON.stringify(require.resolve('fastify'))})();
    fastify.get('/plain/:id', (request, reply) => { reply.send('ok'); });
    fastify.post('/plain/:id', async () => 'ok');
    fastify.get('/throws/:id', async () => { throw new Error('on purpose'); });
    fastify.get('/hooked/:id', { preHandler: (request, reply, done) => done(new Error('on purpose')) }, () => 'ok');
    fastify.get('/taken/:id', (request, reply) => { reply.hijack(); reply.raw.end('ok'); });
    fastify.get('/files/*', () => 'ok');
    const other = require(${JSON.stringify(require.resolve('fastify'))})();
    other.get('/handed/:over', () => 'ok');
    fastify.get('/handed/:id', (request, reply) => { reply.hijack(); other.routing(request.raw, reply.raw); });
    const keys = (object) => Reflect.ownKeys(object).map(String);
    let own = [];
    fastify.addHook('onRequest', (request, reply, done) => { own = keys(request.raw); done(); });
    fastify.get('/seen/:id', (request) => {
      if (own.join() !== keys(request.raw).join()) throw new Error('the request was changed');
      return 'ok';
    });
    fastify.register(async (inner) => {
      inner.get('/leaf/:leaf', () => 'ok');
      inner.get('/', () => 'ok');
    }, { prefix: '/users/:user' });
    fastify.setNotFoundHandler((request, reply) => { reply.code(404).send('none'); });
    const app = (req, res) => fastify.routing(req, res);`,
    `await fastify.ready();
    await other.ready();
    const answers = [];
    for (const path of ['/plain/secret1', '/plain/secret2', '/throws/secret3', '/hooked/secret4', '/taken/secret5',
      '/files/secret6/secret7', '/users/secret8/leaf/secret9', '/users/secret10', '/nowhere/secret11',
      '/handed/secret12', '/seen/secret13']) {
      answers.push(await get(path));
    }
    answers.push(await get('/plain/secret14', { method: 'POST' }), await get('/plain/secret15', { method: 'HEAD' }));
    await counted(13);
    done({ answers, names: require(process.env.GUARD + '/lib/routes.js').names });`,
  );
  const { report } = await ask(t, source);
  assert.deepEqual(
    report.answers,
    [200, 200, 500, 500, 200, 200, 200, 200, 404, 200, 200, 200, 200],
  );
  assert.deepEqual(report.names.slice(2).sort(), [
    'GET (unmatched)',
    'GET /files/*',
    'GET /handed/:over',
    'GET /hooked/:id',
    'GET /plain/:id',
    'GET /seen/:id',
    'GET /taken/:id',
    'GET /throws/:id',
    'GET /users/:user',
    'GET /users/:user/leaf/:leaf',
    'HEAD /plain/:id',
    'POST /plain/:id',
  ]);
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

/**
 * A program that serves HTTP/1 and HTTP/2, is asked in every way that is not a request and its answer, and prints what
 * its clients saw, what came to be thrown, and what the guard, if there is one, has counted.
 */
const EVERY_WAY = `
  const http = require('node:http');
  const http2 = require('node:http2');
  const net = require('node:net');
  const { once } = require('node:events');
  const leakguard = process.env.GUARDED === 'yes' ? require(process.env.GUARD) : null;

  const thrown = [];
  process.on('uncaughtException', (error) => thrown.push(error.message));
  /** Whatever was made for a request; nothing of it may be held. */
  const made = [];
  const remember = (...things) => { for (const thing of things) made.push(new WeakRef(thing)); };

  /** Requests that the app has in hand, and responses whose connection has closed. */
  let came = 0;
  let closed = 0;
  const answer = (req, res) => {
    remember(req, res, req.socket);
    came++;
    res.on('close', () => { closed++; });
    if (req.url === '/never') return;
    if (req.url === '/cut') { res.write('half'); req.socket.destroy(); return; }
    if (req.url === '/large') { res.end(Buffer.alloc(1 << 24)); return; }
    req.resume();
    res.end(req.method + ' ' + req.url);
  };
  const plain = http.createServer(answer);
  const special = http.createServer(answer);
  special.on('upgrade', (req, socket, head) => {
    remember(req, socket);
    socket.on('error', () => {});
    socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n');
    socket.on('data', (text) => socket.end('echo ' + text));
  });
  special.on('connect', (req, socket) => {
    remember(req, socket);
    socket.on('error', () => {});
    socket.write('HTTP/1.1 200 Connection Established\\r\\n\\r\\n');
    socket.on('data', (text) => socket.end('through ' + text));
  });
  special.on('checkContinue', (req, res) => { res.writeContinue(); answer(req, res); });
  special.on('checkExpectation', (req, res) => { res.statusCode = 417; answer(req, res); });
  const second = http2.createServer(answer);
  const listen = async (server) => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return server.address().port;
  };

  /** Writes, says more once the answer has come to \`after\`, and resolves to all that came until the connection closed. */
  const talk = (port, text, after, more) => new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(text));
    let all = '';
    socket.setEncoding('latin1').on('data', (part) => {
      all += part;
      if (after !== undefined && all.includes(after)) { after = undefined; socket.write(more); }
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(all.replace(/^Date: .*\\r\\n/gm, '')));
  });
  /** Asks and goes away once \`gone()\`. */
  const leave = async (port, text, gone) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(text));
    socket.on('error', () => {});
    await until(gone);
    const end = once(socket, 'close');
    socket.destroy();
    await end;
  };
  const head = (line, ...fields) => [line + ' HTTP/1.1', 'Host: a', ...fields, '', ''].join('\\r\\n');
  const upgrade = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AQ=='];
  const close = 'Connection: close';

  (async () => {
    const ports = { plain: await listen(plain), special: await listen(special), second: await listen(second) };
    const seen = {};
    seen.upgrade = await talk(ports.special, head('GET /ws', ...upgrade), 'Upgrade\\r\\n\\r\\n', 'hello');
    seen.upgradeOfNobody = await talk(ports.plain, head('GET /ws', ...upgrade), 'GET /ws', head('GET /next', close));
    seen.connect = await talk(ports.special, head('CONNECT b:443'), 'Established\\r\\n\\r\\n', 'hello');
    seen.connectOfNobody = await talk(ports.plain, head('CONNECT b:443'));
    seen.continued = await talk(ports.special, head('POST /body', 'Expect: 100-continue', 'Content-Length: 4', close),
      'Continue', 'body');
    seen.expected = await talk(ports.special, head('POST /odd', 'Expect: cake', 'Content-Length: 0', close));
    seen.pipelined = await talk(ports.plain, head('GET /1') + head('GET /2') + head('GET /3', close));
    seen.nonsense = await talk(ports.plain, 'no HTTP at all\\r\\n\\r\\n');
    seen.half = await talk(ports.plain, head('GET /cut'));
    // The client goes: before an answer, in the middle of its own body, and in the middle of a long answer.
    let before = closed;
    const came1 = came;
    await leave(ports.plain, head('GET /never'), () => came > came1);
    await leave(ports.plain, head('POST /never', 'Content-Length: 100') + 'some', () => came > came1 + 1);
    await leave(ports.plain, head('GET /large'), () => came > came1 + 2);
    // One that was not read to its end.
    await leave(ports.plain, 'POST /never HTTP/1.1\\r\\nHost: a\\r\\n', () => true);
    await until(() => closed === before + 3);

    const session = http2.connect('http://127.0.0.1:' + ports.second);
    session.on('error', () => {});
    const gone = once(session, 'close');
    const stream = (headers, body) => new Promise((resolve) => {
      const of = session.request(headers);
      let all = '';
      of.setEncoding('utf8').on('data', (part) => { all += part; });
      of.on('response', ({ ':status': status }) => { all += status + ' '; });
      of.on('error', () => {});
      of.on('close', () => resolve(all));
      of.end(body);
    });
    seen.second = [];
    for (const [method, path] of [['GET', '/a'], ['POST', '/b'], ['HEAD', '/c']]) {
      seen.second.push(await stream({ ':path': path, ':method': method }, method === 'POST' ? 'body' : undefined));
    }
    await stream({ ':path': '/cut' });
    session.close();
    await gone;
    const again = http2.connect('http://127.0.0.1:' + ports.second);
    again.on('error', () => {});
    before = came;
    again.request({ ':path': '/never' }).on('error', () => {}).end();
    await until(() => came > before);
    const away = once(again, 'close');
    again.destroy();
    await away;

    for (const server of [plain, special, second]) await new Promise((resolve) => server.close(resolve));
    const traffic = () => leakguard.status().isolates[0]?.routes;
    let routes = null;
    if (leakguard !== null) {
      // Counts come every 2 s: wait for one that was taken after the last request.
      await until(() => (traffic()?.requests ?? 0) >= Number(process.env.COUNTED));
      routes = Object.fromEntries(traffic().top.map((one) => [one.route, one.requests]));
    }
    const kept = made.length;
    await until(() => { gc(); return made.every((one) => one.deref() === undefined); });
    process.stdout.write(JSON.stringify({ seen, thrown, kept, came, routes }));
    process.exit(0);
  })();
`;

test('upgrades, CONNECT, HTTP/2 and clients that leave: all as without the guard, and nothing is kept', async (t) => {
  const [bare, guarded] = await Promise.all(
    ['no', 'yes'].map((guard) =>
      ask(t, EVERY_WAY, {
        execArgv: ['--expose-gc'],
        env: { GUARDED: guard, COUNTED: '11' },
      }),
    ),
  );
  const { routes, ...rest } = guarded.report;
  assert.deepEqual({ ...rest, routes: null }, bare.report);
  // What has no response of HTTP/1 is not counted. Of a long answer that was cut Node 20 and 22 say that it has ended.
  const { 'GET (unmatched)': got, '(unfinished)': left, ...others } = routes;
  assert.deepEqual(others, { 'POST (unmatched)': 2 });
  assert.ok(got === 5 || got === 6, JSON.stringify(routes));
  assert.equal(got + left, 5 + 4);
  assert.equal(guarded.stderr, bare.stderr);
  const { seen, thrown } = rest;
  assert.match(seen.upgrade, /^HTTP\/1.1 101 .*echo hello$/s);
  assert.match(seen.upgradeOfNobody, /GET \/ws.*GET \/next$/s);
  assert.match(seen.connect, /^HTTP\/1.1 200 .*through hello$/s);
  assert.match(seen.continued, /^HTTP\/1.1 100 .*POST \/body$/s);
  assert.match(seen.pipelined, /GET \/1.*GET \/2.*GET \/3$/s);
  assert.deepEqual(seen.second, ['200 GET /a', '200 POST /b', '200 ']);
  assert.deepEqual(thrown, []);
});

test('of very many requests a sample is looked at, and each look stands for those passed over', async (t) => {
  const source = asking(
    `const app = (_req, res) => res.end();`,
    `// What Node says of a response that has ended; a look is known by its reading the method.
    const finish = require('node:diagnostics_channel').channel('http.server.response.finish');
    let looks = 0;
    const request = (method) => ({ get method() { looks++; return method; } });
    const often = { request: request('GET') };
    const seldom = { request: request('PUT') };
    for (let i = 0; i < 4000; i++) finish.publish(i % 4 === 0 ? seldom : often);
    const atFirst = looks;
    for (let i = 4000; i < 100_000; i++) finish.publish(i % 4 === 0 ? seldom : often);
    const routes = await counted(90_000);
    const inAll = looks;
    // 400 a second, until twenty times running each of them is looked at again.
    let running = 0;
    await until(() => {
      const before = looks;
      for (let i = 0; i < 4; i++) finish.publish(often);
      running = looks - before === 4 ? running + 1 : 0;
      return running === 20;
    });
    done({ atFirst, looks: inAll, routes });`,
  );
  const { report } = await ask(t, source);
  assert.equal(report.atFirst, 4000);
  assert.ok(report.looks < 25_000, `${report.looks} looks`);
  const { 'GET (unmatched)': often, 'PUT (unmatched)': seldom } = report.routes;
  // The last look may leave some at the end that nothing stands for yet.
  assert.ok(often + seldom > 99_900 && often + seldom <= 100_000, `${often} + ${seldom}`);
  assert.ok(Math.abs(seldom - 25_000) < 3000, `${seldom} of 25,000`);
});

test('off, nothing is subscribed to; on and off again leaves nothing behind', async (t) => {
  const source = (/** @type {string} */ body) => `
    const dc = require('node:diagnostics_channel');
    const channels = ['http.server.request.start', 'http.server.response.finish',
      'tracing:fastify.request.handler:end'];
    const has = () => channels.map((name) => dc.hasSubscribers(name));
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
  assert.deepEqual(off.report, [[false, false, false], 'off']);
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
    [true, true, true],
    [false, false, false],
    [false, false, false],
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
