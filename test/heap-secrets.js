'use strict';

// Puts secrets wherever an app's data can end up in a heap snapshot, writes the snapshot to the file named on the
// command line, and prints the secrets as JSON. Those that begin with `key-` are property names.

const v8 = require('node:v8');

/** @type {string[]} */
const secrets = [];
// Secrets are put together at run time: the source of this file is in the snapshot as well.
const secret = (/** @type {string} */ kind) => {
  const digits = [7, 1, 9, 4, secrets.length].map((part) => part * 7919 + 13).join('');
  // Flat: a snapshot does not show the text of a rope.
  const text = Buffer.from(`${kind}-${digits}`).toString();
  secrets.push(text);
  return text;
};

/** @type {Record<string, any>} */
const kept = {};
kept.value = { password: secret('value') };
kept.map = new Map([[secret('map'), { a: 1 }]]);
kept.set = new Set([secret('set')]);
kept.dictionary = {};
for (let index = 0; index < 1500; index++) kept.dictionary[`plain ${index * 7}`] = index;
kept.dictionary[secret('key')] = 1;
kept.inObject = JSON.parse(`{"${secret('key')}": 1}`);
kept.closure = (
  (token) => () =>
    token
)(secret('closure'));
kept.concatenated = `${secret('left')}${'-'.repeat(20)}${kept.value.password}`;
kept.sliced = `${secret('sliced')}${'x'.repeat(50)}`.slice(0, 40);
kept.regexp = new RegExp(secret('regexp'));
kept.symbol = Symbol(secret('symbol'));
kept.weak = new WeakMap([[kept.value, secret('weak')]]);
kept.escaped = `"${secret('escaped')}"\n`;
kept.long = secret('long') + 'y'.repeat(5000);
kept.error = new Error(secret('error'));
kept.buffer = Buffer.from(secret('buffer')).toString();
kept.url = new URL(`https://example.invalid/?token=${secret('url')}`);
kept.promise = Promise.resolve(secret('promise'));
kept.headers = new Headers({ cookie: secret('cookie') });

// @ts-expect-error a name of its own, to keep all of it alive
globalThis.kept = kept;
v8.writeHeapSnapshot(process.argv[2]);
process.stdout.write(JSON.stringify(secrets));
