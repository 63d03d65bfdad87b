'use strict';
// Writes the snapshot files that the analyzer is measured on: `node benches/heap/generate.js SIZE OUT`, where SIZE is
// small (21 MB), medium (225 MB) or large (1.1 GB). Each file is a real snapshot of a child process whose heap
// is filled with the shapes of a busy app: caches of records, strings, closures, arrays and maps. The large one
// takes some minutes and about 10 GB of memory.
const { spawnSync } = require('node:child_process');
const v8 = require('node:v8');

/** Records kept by the app, by size of the file. */
const RECORDS = { small: 12_000, medium: 152_000, large: 800_000 };

/** Characters of text in each record. */
const NOTE_LENGTH = 400;

function fill(count) {
  const users = new Map();
  const sessions = {};
  const handlers = [];
  const log = [];
  for (let index = 0; index < count; index++) {
    const user = {
      id: index,
      name: `user ${index}`,
      // As long as the text in a record of a shop or a forum; flat, or it would be a rope of shared pieces.
      note: Buffer.from(`note ${index} `.padEnd(NOTE_LENGTH, `${index % 97} words `)).toString(
        'latin1',
      ),
      tags: [`tag ${index % 100}`, { weight: index * 0.5 }],
      address: { street: `${index} Main Street`, city: { name: `city ${index % 50}` } },
    };
    users.set(user.name, user);
    sessions[`s${index % (count / 4)}`] = { user, since: index + 0.25 };
    if (index % 4 === 0) handlers.push(() => user.name + index);
    if (index % 8 === 0) log.push(new Map([[index, { user }]]), [index, user, `line ${index}`]);
  }
  return { users, sessions, handlers, log };
}

if (process.argv[2] === 'child') {
  globalThis.kept = fill(RECORDS[process.argv[3]]);
  v8.writeHeapSnapshot(process.argv[4]);
} else {
  const [size, out] = process.argv.slice(2);
  if (!(size in RECORDS) || !out) {
    process.stderr.write('usage: node benches/heap/generate.js small|medium|large OUT\n');
    process.exit(2);
  }
  const { status } = spawnSync(
    process.execPath,
    ['--max-old-space-size=14000', __filename, 'child', size, out],
    { stdio: 'inherit' },
  );
  process.exit(status ?? 1);
}
