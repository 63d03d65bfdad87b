const leakguard = require('leakguard');
const express = require('express');

const app = express();

// The status page: set LEAKGUARD_TOKEN to 16 characters or more, or it is 404.
app.use('/leakguard', leakguard.middleware());

// For a readiness probe: not ready while a snapshot stops the event loop.
app.get('/ready', (_request, response) => response.sendStatus(leakguard.ready() ? 200 : 503));

app.get('/', (_request, response) => response.send('hello\n'));

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});

process.once('SIGTERM', () => server.close());
