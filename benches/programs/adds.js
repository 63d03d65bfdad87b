'use strict';

/**
 * Requires one module, adds listeners to emitters that are dropped at once, and prints what an add takes, nanoseconds:
 * the whole loop, emitter and all, in batches. The event loop gets its turn between the batches, and with it the guard.
 */

const { EventEmitter } = require('node:events');

require(process.argv[2]);

const BATCH = 50_000;
const BATCHES = Number(process.argv[3]);

function listen() {}

function batch() {
  const began = process.hrtime.bigint();
  for (let i = 0; i < BATCH; i++) {
    const emitter = new EventEmitter();
    emitter.on('close', listen);
  }
  return Number(process.hrtime.bigint() - began) / BATCH;
}

const nanos = [];

function next() {
  nanos.push(batch());
  if (nanos.length < BATCHES) setTimeout(next, 5);
  else process.stdout.write(JSON.stringify({ nanos }));
}
next();
