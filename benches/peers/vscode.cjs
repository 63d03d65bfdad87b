'use strict';

// @vscode/v8-heap-parser reading one snapshot and its retained sizes: `node vscode.cjs FILE`; prints one JSON line.
const fs = require('node:fs');
const { decode_bytes } = require('@vscode/v8-heap-parser');

const graph = decode_bytes(fs.readFileSync(process.argv[2]));
const classes = graph.get_class_groups(0, 100, false);
const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
const cpuSeconds = (userCPUTime + systemCPUTime) / 1e6;
process.stdout.write(
  `${JSON.stringify({ classes: classes.length, cpuSeconds, peakMb: maxRSS >> 10 })}\n`,
);
process.exit(0);
