const leakguard = require('leakguard');
const fastify = require('fastify')();

// The status page answers on the plain request and response, so Fastify lets go of the reply.
const statusPage = leakguard.middleware();
fastify.all('/leakguard', (request, reply) => {
  reply.hijack();
  statusPage(request.raw, reply.raw);
});

fastify.get('/ready', (_request, reply) => reply.code(leakguard.ready() ? 200 : 503).send());

fastify.get('/', () => 'hello\n');

fastify
  .listen({ port: Number(process.env.PORT ?? 3000), host: '127.0.0.1' })
  .then((address) => console.log(`${address}/`));

process.once('SIGTERM', () => fastify.close());
