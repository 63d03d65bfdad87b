'use strict';

/**
 * The same as loop-gap.js for an app that works: its requests take milliseconds, and what they keep for a while
 * makes V8 collect by itself.
 */

const loopGap = require('./loop-gap.js');

/** @type {import('./loop-gap.js').App} */
const WORKING = { kind: 'working', words: ', app that works', perSecond: 60, collected: true };

module.exports = {
  name: 'loop-gap-working',
  title: 'Reading the live heap of an app that works: how long the event loop stops',
  method: [
    'As above, and each request parses a document of 60 KB, searches and sorts it, writes JSON and keeps the document for a session.',
    'Spans without a reading are counted whether V8 made a major GC by itself in them or not: so it is without the guard.',
  ],
  perNode: true,
  seconds: loopGap.seconds,
  /** @param {{ node: string, quick: boolean }} options */
  measure: (options) => loopGap.measureApp(options, WORKING),
};
