import leakguard = require('leakguard');
import http = require('node:http');

import type { AddressInfo } from 'node:net';

leakguard.on('finding', ({ sentence, cause }: leakguard.Finding) => {
  console.error(sentence, cause?.site?.file ?? '');
});

const statusPage = leakguard.middleware();

const server = http.createServer((request, response) => {
  if (request.url?.split('?')[0] === '/leakguard') statusPage(request, response);
  else response.end('hello\n');
});

server.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
});

process.once('SIGTERM', () => server.close());
