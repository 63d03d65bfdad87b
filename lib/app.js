'use strict';

/**
 * Name and version of the app: those of the package.json nearest to its entry file. It reads a handful of
 * small files at start and never again.
 */

const fs = require('node:fs');
const path = require('node:path');

/** A package.json larger than this is none. */
const MAX_BYTES = 1 << 20;

/** Folders looked at on the way up. */
const MAX_LEVELS = 32;

/** @returns {{ name: string, version: string }} */
function appPackage() {
  const entry = process.argv[1];
  let folder = entry === undefined ? process.cwd() : path.dirname(path.resolve(entry));
  for (let level = 0; level < MAX_LEVELS; level++) {
    const file = path.join(folder, 'package.json');
    try {
      if (fs.statSync(file).size <= MAX_BYTES) {
        const { name, version } = JSON.parse(fs.readFileSync(file, 'utf8'));
        // A package.json without a name only sets the module type of a folder.
        if (typeof name === 'string' && name !== '') {
          return { name: name.slice(0, 120), version: String(version ?? '').slice(0, 60) };
        }
      }
    } catch {
      // Not there, not readable or not JSON: the next one up.
    }
    const parent = path.dirname(folder);
    if (parent === folder) break;
    folder = parent;
  }
  return { name: entry === undefined ? 'node' : path.basename(entry), version: '' };
}

module.exports = { appPackage };
