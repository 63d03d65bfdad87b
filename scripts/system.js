'use strict';

/**
 * The programs outside npm and cargo that some tests need: where they are, and how they get there. In
 * CI, as root on Debian, missing ones are installed; everywhere else the tests that need one say in
 * one line that they skip, and nothing is installed on anybody's machine.
 */

const fs = require('node:fs');
const path = require('node:path');
const { IN_CI, run } = require('./steps.js');

/** Program to Debian package; the names of a program elsewhere follow the first. */
const PROGRAMS = Object.freeze({
  prometheus: { package: 'prometheus', names: ['prometheus'] },
  promtool: { package: 'prometheus', names: ['promtool'] },
  chromium: { package: 'chromium', names: ['chromium', 'chromium-browser', 'google-chrome'] },
});

/** @typedef {keyof typeof PROGRAMS} Program */

/**
 * Where a program is.
 *
 * @param {Program} program
 * @returns {string | null} its path; null if it is not installed
 */
function find(program) {
  for (const directory of (process.env.PATH ?? '').split(path.delimiter)) {
    for (const name of PROGRAMS[program].names) {
      const file = path.join(directory || '.', name);
      try {
        fs.accessSync(file, fs.constants.X_OK);
        if (fs.statSync(file).isFile()) return file;
      } catch {
        // Not in this directory.
      }
    }
  }
  return null;
}

/**
 * Where a program is, or why the test that needs it is skipped. In CI nothing is skipped.
 *
 * @param {Program} program
 * @returns {{ file: string, skip: false } | { file: null, skip: string }} `skip` as node:test takes it
 * @throws in CI, if the program is missing
 */
function need(program) {
  const file = find(program);
  if (file) return { file, skip: false };
  const why = `${program} is not installed (Debian: apt-get install ${PROGRAMS[program].package})`;
  if (IN_CI) throw new Error(why);
  return { file: null, skip: why };
}

/**
 * Installs what is missing, where that is our business.
 *
 * @returns {Promise<string | undefined>} why nothing was done, undefined if all is there now
 */
async function installMissing() {
  const all = /** @type {Program[]} */ (Object.keys(PROGRAMS));
  const missing = all.filter((program) => !find(program));
  if (missing.length === 0) return undefined;
  if (!IN_CI) return `${missing.join(', ')} not installed: the tests that need it skip`;
  if (process.getuid?.() !== 0 || !fs.existsSync('/usr/bin/apt-get')) {
    throw new Error(`${missing.join(', ')} missing, and only root on Debian can install it`);
  }
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const packages = [...new Set(missing.map((program) => PROGRAMS[program].package))];
  await run('apt-get', ['-q', 'update'], { env });
  const args = ['-q', '-y', '-o', 'Dpkg::Use-Pty=0', '--no-install-recommends', 'install'];
  await run('apt-get', [...args, ...packages], { env });
  return undefined;
}

module.exports = { find, need, installMissing };

if (require.main === module) {
  installMissing().then(
    (why) => why && console.log(why),
    (error) => {
      console.error(error.message);
      process.exitCode = 1;
    },
  );
}
