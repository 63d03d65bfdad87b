'use strict';

/**
 * The platform packages: what each is built with and what npm is told about it. Names and versions come
 * from the main package; lib/load.js has the same list of triples, and a test compares them.
 */

/**
 * @typedef {object} Platform
 * @property {string} rust target of the Rust compiler
 * @property {NodeJS.Platform} os
 * @property {string} cpu
 * @property {'glibc' | 'musl'} [libc] Linux only
 * @property {string} runner image of the release workflow that builds it
 */

/**
 * The oldest glibc that a Linux binary may ask for: what the official builds of Node 18 and later need
 * themselves (RHEL 8, Debian 10).
 */
const GLIBC_FLOOR = '2.28';

/** @type {Readonly<Record<string, Platform>>} */
const PLATFORMS = Object.freeze({
  'linux-x64-gnu': {
    rust: 'x86_64-unknown-linux-gnu',
    os: 'linux',
    cpu: 'x64',
    libc: 'glibc',
    runner: 'ubuntu-24.04',
  },
  'linux-x64-musl': {
    rust: 'x86_64-unknown-linux-musl',
    os: 'linux',
    cpu: 'x64',
    libc: 'musl',
    runner: 'ubuntu-24.04',
  },
  'linux-arm64-gnu': {
    rust: 'aarch64-unknown-linux-gnu',
    os: 'linux',
    cpu: 'arm64',
    libc: 'glibc',
    runner: 'ubuntu-24.04-arm',
  },
  'linux-arm64-musl': {
    rust: 'aarch64-unknown-linux-musl',
    os: 'linux',
    cpu: 'arm64',
    libc: 'musl',
    runner: 'ubuntu-24.04-arm',
  },
  'darwin-x64': { rust: 'x86_64-apple-darwin', os: 'darwin', cpu: 'x64', runner: 'macos-15-intel' },
  'darwin-arm64': { rust: 'aarch64-apple-darwin', os: 'darwin', cpu: 'arm64', runner: 'macos-15' },
  'win32-x64': { rust: 'x86_64-pc-windows-msvc', os: 'win32', cpu: 'x64', runner: 'windows-2025' },
});

module.exports = { GLIBC_FLOOR, PLATFORMS };

// `node npm/platforms.js` prints the build matrix of the release workflow.
if (require.main === module) {
  const include = Object.entries(PLATFORMS).map(([triple, { rust, runner, libc }]) => ({
    triple,
    rust,
    runner,
    zig: libc !== undefined,
  }));
  console.log(JSON.stringify({ include }));
}
