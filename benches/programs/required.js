'use strict';

/**
 * Requires one module in a fresh process and prints what that took on the wall and on the CPU. No channel to the
 * bench: that alone would load modules of Node which the guard then finds loaded.
 */

const what = process.argv[2];
const cpu = process.cpuUsage();
const began = performance.now();
require(what);
const wallMs = performance.now() - began;
const { user, system } = process.cpuUsage(cpu);

process.stdout.write(JSON.stringify({ wallMs, cpuMs: (user + system) / 1000 }));
