'use strict';

// The analyzer reading one snapshot to a whole report: `node ours.js FILE THREADS`; prints one JSON line.
const { load } = require('../../lib/load.js');

const { binding, error } = load();
if (error) throw new Error(error.message);
const fs = require('node:fs');
const [file, threads] = process.argv.slice(2);
const code = binding.cli(['analyze', file, '--json', '--threads', threads]);
const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
const cpuSeconds = (userCPUTime + systemCPUTime) / 1e6;
fs.writeSync(1, `\n${JSON.stringify({ cpuSeconds, peakMb: maxRSS >> 10, code })}\n`);
process.exitCode = code;
