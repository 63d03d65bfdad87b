'use strict';

// An Express app that holds its users' secrets wherever an app does, and tells its parent which: in values, in keys of
// Maps, in names of properties (those begin with `key-`), in closures, in URLs, cookies and bodies of requests, in what
// hangs on array buffers. On the message `snapshot` it asks the guard for one.

const express = require('express');
const leakguard = require('../../index.js');

/** @type {string[]} */
const secrets = [];

/**
 * A flat string that stands in no source: sources are in the snapshot as well.
 *
 * @param {string} kind
 */
function secret(kind) {
  const digits = [7, 1, 9, 4, secrets.length].map((part) => part * 7919 + 13).join('');
  const text = Buffer.from(`${kind}-${digits}`).toString();
  secrets.push(text);
  return text;
}

/** @type {Record<string, any>} */
const kept = { requests: [] };
kept.user = {
  password: secret('password'),
  token: secret('token'),
  profile: { mail: secret('mail') },
};
kept.sessions = new Map([[secret('map'), { user: kept.user }]]);
kept.revoked = new Set([secret('set')]);
kept.byToken = { [secret('key')]: 1 };
kept.parsed = JSON.parse(`{"${secret('key')}": {"nested": "${secret('parsed')}"}}`);
kept.renew = (
  (token) => () =>
    token
)(secret('closure'));
kept.weak = new WeakMap([[kept.user, secret('weak')]]);
kept.query = `${secret('cons')}${'-'.repeat(20)}${kept.user.token}`;
kept.sliced = `${secret('sliced')}${'x'.repeat(50)}`.slice(0, 40);
kept.pattern = new RegExp(secret('regexp'));
kept.symbol = Symbol(secret('symbol'));
kept.error = new Error(secret('error'));
kept.upload = Object.assign(new ArrayBuffer(1024), { name: secret('upload') });
kept.view = Object.assign(new Uint8Array(kept.upload), { [secret('key')]: secret('view') });
kept.bytes = Buffer.from(secret('bytes'));
Object.assign(globalThis, { kept });

const app = express();
app.use(express.json());
app.post('/login', (request, response) => {
  kept.requests.push({ url: request.url, headers: request.headers, body: request.body });
  response.json({ ok: true });
});
const server = app.listen(0, '127.0.0.1', async () => {
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  const answer = await fetch(`http://127.0.0.1:${port}/login?token=${secret('url')}`, {
    method: 'POST',
    headers: { cookie: `sid=${secret('cookie')}`, 'content-type': 'application/json' },
    body: JSON.stringify({ password: secret('body') }),
  });
  await answer.arrayBuffer();
  process.send?.({ port });
});

process.on('message', async (message) => {
  if (message === 'snapshot') process.send?.({ answer: await leakguard.snapshot(), secrets });
});
process.on('disconnect', () => process.exit(0));
