#!/usr/bin/env node
'use strict';

/**
 * The `leakguard` command: argv and what JavaScript knows of this process in, one native call, exit code
 * out. It knows no subcommand and no option; those are in the binary. It does not start the guard: not in this process, and through
 * LEAKGUARD=off not in one that it starts.
 */

const { fromEnvironment } = require('../lib/options.js');

/** As the app would find them: before they are changed for this process. */
const settings = fromEnvironment();
process.env.LEAKGUARD = 'off';

const { load } = require('../lib/load.js');

/** Usage or bad input, and here: no binary to ask. */
const EXIT_UNUSABLE = 2;

// The native side writes to the descriptors itself and takes a closed pipe (`leakguard … | head`) as
// the end of its output. Here only the line below can meet one, and nobody is left to be told.
process.stderr.on('error', () => {});

/** What the guard of an app would be told of this process; `leakguard doctor` judges it. */
function environment() {
  const { signals } = require('node:os').constants;
  return {
    node: process.version,
    v8: process.versions.v8,
    platform: `${process.platform}-${process.arch}`,
    leakguard: require('../package.json').version,
    heapSizeLimit: require('../lib/probes').heapSizeLimit(binding),
    settings,
    canForceGc: true,
    canObserveGc: true,
    signals: Object.keys(signals),
  };
}

const { binding, error } = load();
if (error) {
  process.stderr.write(`leakguard: ${error.message}\n`);
  process.exitCode = EXIT_UNUSABLE;
} else {
  // Setting the code instead of exiting lets Node write out what is still buffered.
  process.exitCode = binding.cli(process.argv.slice(2), environment());
}
