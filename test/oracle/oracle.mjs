// DevTools' heap-snapshot worker, headless, with its two threads:
//
//   node oracle.mjs FILE [--dump OUT] [--diff BASE]
//
// prints one JSON line (nodes, edges, phases in seconds, CPU seconds, peak memory, the largest classes) and, with --dump,
// writes every node's figures as one little-endian file: u32 count, then per column over all nodes i32
// distance, u32 dominator (an ordinal), f64 retained size, f64 shallow size.
import fs from 'node:fs';
import { isMainThread, MessageChannel, parentPort, Worker } from 'node:worker_threads';
import { HeapSnapshot, HeapSnapshotLoader } from './build/devtools.mjs';

// DevTools expects a newer engine than the oldest Node the tests run on.
Promise.withResolvers ??= () => {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};

const seconds = (since) => +((performance.now() - since) / 1e3).toFixed(3);

/** Loads a plain `.heapsnapshot` file the way DevTools does. */
async function load(file) {
  const loader = new HeapSnapshotLoader.HeapSnapshotLoader({ sendEvent() {} });
  const input = fs.createReadStream(file, { highWaterMark: 10e6, encoding: 'utf8' });
  for await (const chunk of input) {
    loader.write(chunk);
    await new Promise(setImmediate);
  }
  loader.close();
  await loader.parsingComplete;
  const channel = new MessageChannel();
  const worker = new Worker(new URL(import.meta.url), {
    resourceLimits: { maxOldGenerationSizeMb: 12000 },
  });
  worker.postMessage({ port: channel.port2 }, [channel.port2]);
  const snapshot = await loader.buildSnapshot(channel.port1);
  await worker.terminate();
  return snapshot;
}

/** Writes all of `array`, however large. */
function writeColumn(fd, array) {
  const bytes = Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  for (let at = 0; at < bytes.length; ) {
    at += fs.writeSync(fd, bytes, at, Math.min(bytes.length - at, 1 << 28));
  }
}

function dump(snapshot, out) {
  const count = snapshot.nodeCount;
  const shallow = new Float64Array(count);
  for (let node = 0; node < count; node++) {
    shallow[node] = snapshot.nodes.getValue(
      node * snapshot.nodeFieldCount + snapshot.nodeSelfSizeOffset,
    );
  }
  const fd = fs.openSync(out, 'w');
  writeColumn(fd, new Uint32Array([count]));
  writeColumn(fd, snapshot.nodeDistances);
  writeColumn(fd, snapshot.dominatorsTree);
  writeColumn(fd, snapshot.retainedSizes);
  writeColumn(fd, shallow);
  fs.closeSync(fd);
}

async function main() {
  const [file, ...rest] = process.argv.slice(2);
  const option = (name) => (rest.includes(name) ? rest[rest.indexOf(name) + 1] : undefined);
  const start = performance.now();
  const snapshot = await load(file);
  const loadSeconds = seconds(start);
  const aggregates = snapshot.aggregatesWithFilter({});
  const summary = {
    nodes: snapshot.nodeCount,
    edges: snapshot.containmentEdges.length / 3,
    classes: Object.values(aggregates)
      .sort((a, b) => b.maxRet - a.maxRet)
      .slice(0, 15)
      .map((row) => ({ name: row.name, count: row.count, self: row.self, retained: row.maxRet })),
  };
  if (option('--dump')) {
    dump(snapshot, option('--dump'));
  }
  if (option('--diff')) {
    const base = await load(option('--diff'));
    const definitions = snapshot.interfaceDefinitions?.();
    const deltas = snapshot.calculateSnapshotDiff(1, base.aggregatesForDiff(definitions));
    summary.diff = Object.values(deltas)
      .sort((a, b) => b.sizeDelta - a.sizeDelta)
      .slice(0, 15)
      .map((row) => ({
        name: row.name,
        added: row.addedCount,
        removed: row.removedCount,
        sizeDelta: row.sizeDelta,
      }));
  }
  const usage = process.resourceUsage();
  summary.loadSeconds = loadSeconds;
  summary.cpuSeconds = (usage.userCPUTime + usage.systemCPUTime) / 1e6;
  summary.peakMb = Math.round(usage.maxRSS / 1024);
  process.stdout.write(`${JSON.stringify(summary)}\n`);
}

if (isMainThread) {
  await main();
  process.exit(0);
} else {
  parentPort.once('message', ({ port }) => {
    globalThis.secondary = new HeapSnapshot.SecondaryInitManager(port);
  });
}
