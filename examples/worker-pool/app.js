// A server that hands its work to a pool of threads. The guard of the process is one; each thread that requires it has
// series of its own, and the status page shows them one at a time.

const leakguard = require('leakguard');
const { once } = require('node:events');
const http = require('node:http');
const path = require('node:path');
const { Worker } = require('node:worker_threads');

const idle = Array.from({ length: 2 }, () => new Worker(path.join(__dirname, 'worker.js')));
const workers = [...idle];
const statusPage = leakguard.middleware();

const server = http.createServer(async (request, response) => {
  if (request.url.split('?')[0] === '/leakguard') {
    statusPage(request, response);
    return;
  }
  const worker = idle.pop();
  if (worker === undefined) {
    response.writeHead(503).end('all threads are busy\n');
    return;
  }
  worker.postMessage(27);
  const [answer] = await once(worker, 'message');
  idle.push(worker);
  response.end(`${answer}\n`);
});

server.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});

process.once('SIGTERM', () => {
  server.close(() => {
    for (const worker of workers) worker.terminate();
  });
});
