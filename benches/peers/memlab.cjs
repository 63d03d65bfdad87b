'use strict';

// memlab reading one snapshot to dominators and retained sizes: `node memlab.cjs FILE`; prints one JSON line.
const { getFullHeapFromFile } = require('@memlab/heap-analysis');

getFullHeapFromFile(process.argv[2]).then((heap) => {
  let retained = 0;
  heap.nodes.forEach((node) => {
    retained = Math.max(retained, node.retainedSize);
  });
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
  const cpuSeconds = (userCPUTime + systemCPUTime) / 1e6;
  process.stdout.write(
    `\n${JSON.stringify({ nodes: heap.nodes.length, retained, cpuSeconds, peakMb: maxRSS >> 10 })}\n`,
  );
  process.exit(0);
});
