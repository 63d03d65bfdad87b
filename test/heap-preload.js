'use strict';

// Preload of a program whose heap is to be looked at (`node -r heap-preload.js app.js`): on the message
// `{ snapshot: file }` it writes a heap snapshot there and answers `{ written: file }`.

const v8 = require('node:v8');

process.on('message', (message) => {
  const { snapshot } = /** @type {{ snapshot?: string }} */ (message ?? {});
  if (!snapshot) return;
  v8.writeHeapSnapshot(snapshot);
  process.send?.({ written: snapshot });
});
// The channel would otherwise keep a program alive that ends by itself.
process.channel?.unref();
