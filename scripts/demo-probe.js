'use strict';

/**
 * Loaded into the app of the demo with `-r`: tells the demo, over the channel between parent and child,
 * what the guard sees. The app itself is left as a user would write it. It neither starts the guard nor keeps
 * the app alive.
 */

const diagnostics = require('node:diagnostics_channel');

const STATUS_INTERVAL_MS = 1000;

/**
 * @param {string} kind
 * @param {unknown} content
 */
function tell(kind, content) {
  // A demo that is gone already is no reason for the app to fail.
  if (process.connected) process.send?.({ kind, content }, undefined, undefined, () => {});
}

for (const kind of ['finding', 'snapshot', 'refused']) {
  diagnostics.subscribe(`leakguard:${kind}`, (content) => tell(kind, content));
}
diagnostics.subscribe('leakguard:error', (error) => {
  tell('error', /** @type {{ message: string }} */ (error).message);
});

setInterval(() => {
  // By now the app has loaded it; this is the same object.
  tell('status', require('../index.js').status());
}, STATUS_INTERVAL_MS).unref();

process.channel?.unref();
