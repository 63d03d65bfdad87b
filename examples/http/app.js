const leakguard = require('leakguard');
const http = require('node:http');

const statusPage = leakguard.middleware();

const server = http.createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (pathname === '/leakguard') statusPage(request, response);
  else if (pathname === '/ready') response.writeHead(leakguard.ready() ? 200 : 503).end();
  else response.end('hello\n');
});

server.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});

process.once('SIGTERM', () => server.close());
