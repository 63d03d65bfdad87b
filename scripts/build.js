'use strict';

/**
 * Builds the native binary of this machine and puts it where lib/load.js looks first:
 * `leakguard.<triple>.node` in the root. Cargo decides what is stale; binaries for other machines and
 * older C libraries are the work of scripts/pack.js.
 */

const fs = require('node:fs');
const path = require('node:path');
const { triple } = require('../lib/load.js');
const { ROOT, run } = require('./steps.js');

/**
 * The file cargo makes of a library crate.
 *
 * @param {NodeJS.Platform} platform
 */
function libraryName(platform) {
  if (platform === 'win32') return 'leakguard.dll';
  return platform === 'darwin' ? 'libleakguard.dylib' : 'libleakguard.so';
}

/**
 * Puts a copy of a binary in place. A process may have the old one mapped: writing into it would crash
 * that process, a rename leaves it the old file.
 *
 * @param {string} from
 * @param {string} to
 */
function install(from, to) {
  const temporary = `${to}.${process.pid}.tmp`;
  try {
    fs.copyFileSync(from, temporary);
    fs.renameSync(temporary, to);
  } finally {
    fs.rmSync(temporary, { force: true });
  }
}

/**
 * @param {string} from
 * @param {string} to
 * @returns {boolean} whether both exist with the same content
 */
function same(from, to) {
  if (!fs.existsSync(to) || fs.statSync(from).size !== fs.statSync(to).size) return false;
  return fs.readFileSync(from).equals(fs.readFileSync(to));
}

/**
 * Builds and installs; quick when nothing changed.
 *
 * @returns {Promise<string>} the path of the binary
 */
async function build() {
  await run('cargo', ['build', '--release', '--locked']);
  const target = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target');
  const from = path.resolve(ROOT, target, 'release', libraryName(process.platform));
  const to = path.join(ROOT, `leakguard.${triple()}.node`);
  if (!same(from, to)) install(from, to);
  return to;
}

module.exports = { build, install, libraryName };

if (require.main === module) {
  build().then(
    (file) => console.log(`built ${path.relative(process.cwd(), file)}`),
    (error) => {
      console.error(error.message);
      process.exitCode = 1;
    },
  );
}
