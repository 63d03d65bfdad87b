'use strict';

/**
 * An app with many watched emitters, which times its own scrapes, each in a turn of the loop of its own.
 */

const { EventEmitter } = require('node:events');
const { setImmediate: turn } = require('node:timers/promises');
const { answer, settings } = require('./answer.js');

const { guard, emitters } = settings();
const leakguard = require(guard);

/** Held, or the guard would forget them. @type {EventEmitter[]} */
const watched = [];
for (let i = 0; i < emitters; i++) {
  const emitter = new EventEmitter();
  for (let j = 0; j < 9; j++) emitter.on('message', () => {});
  leakguard.watch(emitter, { name: `Emitter${i}` });
  watched.push(emitter);
}

/**
 * @param {number} times
 * @param {() => string | Promise<string>} scrape
 */
async function timed(times, scrape) {
  const micros = [];
  let bytes = 0;
  for (let i = 0; i < times; i++) {
    await turn();
    const began = performance.now();
    const text = scrape();
    bytes = (typeof text === 'string' ? text : await text).length;
    micros.push((performance.now() - began) * 1000);
  }
  return { micros, bytes };
}

/** @returns {any} a registry with our metrics alone */
function registry() {
  const { Registry } = require('prom-client');
  const registry = new Registry();
  require(`${guard}/prometheus`).register(registry);
  return registry;
}

answer({
  listed: () => watched.length > 0 && /^leakguard_listeners\{/m.test(leakguard.metrics()),
  text: (times) => timed(Number(times), () => leakguard.metrics()),
  status: (times) => timed(Number(times), () => JSON.stringify(leakguard.status())),
  registry: (times) => {
    const client = registry();
    return timed(Number(times), () => client.metrics());
  },
});
