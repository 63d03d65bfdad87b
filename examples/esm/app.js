// Guarded from the command line: node --import leakguard/register app.js
// The import here is for the status page only.

import express from 'express';
import leakguard from 'leakguard';

const app = express();

app.use('/leakguard', leakguard.middleware());

app.get('/', (_request, response) => response.send('hello\n'));

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});

process.once('SIGTERM', () => server.close());
