'use strict';

// An app with the status page, in the framework that its argument names, for test/page.test.js. Told to, it leaks
// listeners on emitters whose names are markup.

const { EventEmitter } = require('node:events');
const http = require('node:http');
const leakguard = require('../../index.js');

const ATTACK = '<script>globalThis.hit = 1</script><img src=x onerror="globalThis.hit = 1">';

/** @type {Record<string, () => import('node:http').RequestListener | Promise<import('node:http').RequestListener>>} */
const FRAMEWORKS = {
  http: () => {
    const page = leakguard.middleware();
    return (request, response) => {
      if (request.url?.split('?')[0] === '/leakguard') page(request, response);
      else response.writeHead(request.url === '/' ? 200 : 404).end('the app');
    };
  },
  express: () => expressApp(require('express')),
  express4: () => expressApp(require('express4')),
  fastify: async () => {
    const fastify = require('fastify')();
    const page = leakguard.middleware();
    fastify.all('/leakguard', (request, reply) => {
      reply.hijack();
      page(request.raw, reply.raw);
    });
    fastify.get('/', () => 'the app');
    await fastify.ready();
    return (request, response) => fastify.routing(request, response);
  },
};

/** @param {import('express')} express */
function expressApp(express) {
  const app = express();
  app.use(express.json(), express.urlencoded({ extended: false }));
  app.get('/', (_request, response) => void response.send('the app'));
  app.use('/leakguard', leakguard.middleware());
  // As the handler of a route, within a router, and without any path.
  app.get('/routed', leakguard.middleware());
  const router = express.Router();
  router.use('/status', leakguard.middleware());
  app.use('/inner', router);
  const bare = express.Router();
  bare.use(leakguard.middleware());
  bare.get('/', (_request, response) => void response.send('the app'));
  app.use('/bare', bare);
  const late = express();
  late.use(leakguard.middleware());
  late.get('/', (_request, response) => void response.send('the app'));
  /** @type {any} */
  const inert = late;
  app.use((request, response, next) => {
    if (request.headers['x-late'] === undefined) next();
    else inert(request, response, next);
  });
  return app;
}

function leak() {
  class Emitter extends EventEmitter {}
  Object.defineProperty(Emitter, 'name', { value: ATTACK });
  const emitter = new Emitter().setMaxListeners(0);
  setInterval(() => emitter.on(ATTACK, function onAttack() {}), 20);
}

async function main() {
  const [framework = 'http', ...wanted] = process.argv.slice(2);
  if (wanted.includes('leak')) leak();
  const server = http.createServer(await FRAMEWORKS[framework]());
  server.listen(0, '127.0.0.1', () => {
    const address = server.address();
    process.send?.({ port: typeof address === 'object' ? address?.port : 0 });
  });
}

process.on('message', async (/** @type {any} */ message) => {
  if (message.ask === 'status') process.send?.({ status: leakguard.status() });
  if (message.ask === 'snapshot') process.send?.({ snapshot: await leakguard.snapshot() });
  if (message.ask === 'stop') process.send?.({ stopped: leakguard.stop() === leakguard });
});
process.once('disconnect', () => process.exit());

main();
