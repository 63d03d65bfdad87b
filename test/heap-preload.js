'use strict';

// Preload of a program whose heap is to be looked at (`node -r heap-preload.js app.js`): on the message
// `{ snapshot: file }` it writes a heap snapshot there and answers `{ written: file }`.

const v8 = require('node:v8');

/** How long connections that the driver has closed may take to be let go; a program that keeps some has them all the same. */
const CLOSE_DEADLINE_MS = 2_000;
const LOOK_EVERY_MS = 20;

/**
 * @param {number} deadline
 * @param {() => void} then once no connection is open, or the deadline has passed
 */
function whenClosed(deadline, then) {
  const open = process.getActiveResourcesInfo().includes('TCPSocketWrap');
  if (!open || performance.now() > deadline) then();
  else setTimeout(() => whenClosed(deadline, then), LOOK_EVERY_MS);
}

process.on('message', (message) => {
  const { snapshot } = /** @type {{ snapshot?: string }} */ (message ?? {});
  if (!snapshot) return;
  // The driver has closed its connections before it asked. Let the server see that: otherwise the connections of
  // every portion are there together, and that they grow in number would be no mistake of the analyzer.
  whenClosed(performance.now() + CLOSE_DEADLINE_MS, () => {
    v8.writeHeapSnapshot(snapshot);
    process.send?.({ written: snapshot });
  });
});
// The channel would otherwise keep a program alive that ends by itself.
process.channel?.unref();
