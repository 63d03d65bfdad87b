'use strict';

// A guarded process that ends in the way its parent asks for, tells what the guard tells it, and leaks on
// demand. It is started with an IPC channel, which keeps it alive.

const { Session } = require('node:inspector');
const leakguard = require('../../index.js');

/** @param {object} message */
const tell = (message) => process.send?.(message);

for (const kind of ['postmortem', 'finding', 'snapshot', 'analysis', 'refused', 'error']) {
  /** @type {any} */ (leakguard).on(kind, (/** @type {any} */ about) => {
    tell({ [kind]: about instanceof Error ? { message: about.message } : about });
  });
}

/** @type {unknown[]} */
const kept = [];

/** @param {number} count */
function leak(count) {
  for (let i = 0; i < count; i++) kept.push({ i, list: [i] });
}

/** @type {Record<string, (argument?: any) => void>} */
const ACTIONS = {
  status: () => tell({ status: leakguard.status() }),
  snapshot: () => void leakguard.snapshot({ reason: 'test' }).then((answer) => tell({ answer })),
  stop: () => void leakguard.stop(),
  end: () => process.disconnect?.(),
  exit: (code) => process.exit(code),
  throw: () => {
    throw new Error('uncaught on purpose');
  },
  abort: () => process.abort(),
  /** About one megabyte for each 9,000. */
  leak: (count) => void setInterval(leak, 20, count),
  buffers: (bytes) => void setInterval(() => kept.push(Buffer.alloc(bytes, 1)), 20),
  runaway: () => {
    for (;;) leak(1000);
  },
  /** A loop that never returns, from the moment on at which V8 samples what this app allocates. */
  runawayOnceSampled: () =>
    void setInterval(() => {
      const session = new Session();
      session.connect();
      session.post('HeapProfiler.getSamplingProfile', (error) => {
        if (error === null) ACTIONS.runaway?.();
      });
      session.disconnect();
    }, 250),
  /** A loop that never returns, once the live heap of the app before it was read. */
  runawayOnceRead: () =>
    void setInterval(() => {
      if ((leakguard.status().liveHeap?.readings ?? 0) > 0) ACTIONS.runaway?.();
    }, 100),
  fill: (bytes) => {
    while (process.memoryUsage().heapUsed < bytes) leak(1000);
    tell({ filled: { ...process.memoryUsage(), recorder: leakguard.status().recorder } });
  },
  answerAfterSamples: (count) => {
    const waiting = setInterval(() => {
      if ((leakguard.status().recorder?.samples ?? 0) < count) return;
      clearInterval(waiting);
      tell({ sampled: true });
    }, 50);
  },
};

process.on('message', (/** @type {any} */ { action, argument }) => {
  // Not inside the channel's handler: an exception there is the channel's.
  setImmediate(ACTIONS[action], argument);
});

const WANTED_SAMPLES = 3;
const waiting = setInterval(() => {
  const status = leakguard.status();
  const { recorder } = status;
  if (recorder === null || (recorder.path !== null && recorder.samples < WANTED_SAMPLES)) return;
  clearInterval(waiting);
  tell({ ready: status });
}, 50);
