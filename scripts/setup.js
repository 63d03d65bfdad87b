'use strict';

/**
 * Brings a clone to the state in which tests and demo run: npm packages and the native binary, each
 * only where stale. It installs nothing outside the repository; see scripts/system.js for that.
 */

const fs = require('node:fs');
const path = require('node:path');
const { build } = require('./build.js');
const { ROOT, digest, npm } = require('./steps.js');

/**
 * Installs what a lock file names, unless the same lock file was installed last time.
 *
 * @param {string} [directory] that of a package.json with its lock file; default: the root
 * @param {string[]} [flags] for npm
 * @returns {Promise<boolean>} whether anything was installed
 */
async function installPackages(directory = ROOT, flags = []) {
  const stamp = path.join(directory, 'node_modules', '.leakguard-lock');
  const wanted = digest([path.join(directory, 'package-lock.json')]);
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === wanted) return false;
  await npm(['ci', '--no-audit', '--no-fund', '--loglevel=error', ...flags], { cwd: directory });
  // Last, and inside the directory it speaks of: an interrupted or deleted install is stale.
  fs.writeFileSync(stamp, wanted);
  return true;
}

/** Packages, then the native binary. */
async function setup() {
  await installPackages();
  await build();
}

module.exports = { installPackages, setup };

if (require.main === module) {
  setup().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
