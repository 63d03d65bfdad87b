// Each process of the cluster is guarded by itself. They share the directory, and with it the quota of the disk, the count
// of snapshots and the cooldown; the status page is that of the process which happens to answer.

const leakguard = require('leakguard');
const cluster = require('node:cluster');
const http = require('node:http');

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
  cluster.once('listening', (_worker, { port }) => console.log(`http://127.0.0.1:${port}/`));
  process.once('SIGTERM', () => cluster.disconnect());
} else {
  const statusPage = leakguard.middleware();
  http
    .createServer((request, response) => {
      if (request.url.split('?')[0] === '/leakguard') statusPage(request, response);
      else response.end(`hello from ${process.pid}\n`);
    })
    .listen(Number(process.env.PORT ?? 3000), '127.0.0.1');
}
