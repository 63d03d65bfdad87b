'use strict';

/**
 * The same as loop-gap.js for an app that allocates as it runs: what it makes lives for two seconds, so that V8
 * promotes it and collects by itself.
 */

const loopGap = require('./loop-gap.js');

/** @type {import('./loop-gap.js').App} */
const ALLOCATING = {
  kind: 'allocating',
  words: ', app that allocates',
  perSecond: 200,
  collected: true,
};

module.exports = {
  name: 'loop-gap-allocating',
  title: 'Reading the live heap of an app that allocates: how long the event loop stops',
  method: [
    'As above, and every 2 ms the app makes 400 objects with a string each, 13 MB a second, and keeps them for two seconds.',
    'Spans without a reading are counted whether V8 made a major GC by itself in them or not: so it is without the guard.',
  ],
  perNode: true,
  seconds: loopGap.seconds,
  /** @param {{ node: string, quick: boolean }} options */
  measure: (options) => loopGap.measureApp(options, ALLOCATING),
};
