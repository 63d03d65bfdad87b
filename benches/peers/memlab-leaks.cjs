'use strict';

// memlab's `find-leaks` on three snapshots: `node memlab-leaks.cjs BASELINE TARGET FINAL`; prints one JSON line with the
// number of leaks it reports and the text of their traces.
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { analysis, config, fileManager } = require('@memlab/core');

async function main() {
  const workDir = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-memlab-'));
  try {
    fileManager.initDirs(config, { workDir });
    config.useExternalSnapshot = true;
    config.externalSnapshotFilePaths = process.argv.slice(2, 5);
    config.chaseWeakMapEdge = false;
    const traces = await analysis.checkLeak();
    return { leaks: traces.length, text: JSON.stringify(traces) };
  } finally {
    fs.rmSync(workDir, { recursive: true, force: true });
  }
}

main().then(
  (answer) => {
    // At once and as the last line: its progress display writes on until the end.
    fs.writeSync(1, `\n${JSON.stringify(answer)}\n`);
    process.exit(0);
  },
  (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  },
);
