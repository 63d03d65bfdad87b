'use strict';

/**
 * Reads from a 64-bit little-endian ELF file what decides where it loads: the machine, and the newest
 * version of the C library that its symbols ask for. It reads section headers, which `strip` keeps.
 */

const MACHINES = Object.freeze({ 62: 'x64', 183: 'arm64' });

/** Section with the versions that the file needs of others (`.gnu.version_r`). */
const SHT_GNU_VERNEED = 0x6ffffffe;

/** Layout of the 64-bit ELF header, section header and version records: System V ABI and LSB 5.0. */
const E_MACHINE = 0x12;
const E_SHOFF = 0x28;
const E_SHENTSIZE = 0x3a;
const E_SHNUM = 0x3c;

/**
 * @param {Buffer} elf
 * @param {number} index
 */
function section(elf, index) {
  const at = Number(elf.readBigUInt64LE(E_SHOFF)) + index * elf.readUInt16LE(E_SHENTSIZE);
  return {
    type: elf.readUInt32LE(at + 4),
    offset: Number(elf.readBigUInt64LE(at + 0x18)),
    link: elf.readUInt32LE(at + 0x28),
    entries: elf.readUInt32LE(at + 0x2c),
  };
}

/**
 * Every symbol version that the file needs, such as `GLIBC_2.28` or `GCC_3.0`.
 *
 * @param {Buffer} elf
 * @returns {string[]}
 */
function neededVersions(elf) {
  const versions = new Set();
  for (let index = 0; index < elf.readUInt16LE(E_SHNUM); index += 1) {
    const { type, offset, link, entries } = section(elf, index);
    if (type !== SHT_GNU_VERNEED) continue;
    const strings = section(elf, link).offset;
    let need = offset;
    for (let file = 0; file < entries; file += 1) {
      let version = need + elf.readUInt32LE(need + 8);
      for (let count = elf.readUInt16LE(need + 2); count > 0; count -= 1) {
        const start = strings + elf.readUInt32LE(version + 8);
        versions.add(elf.toString('latin1', start, elf.indexOf(0, start)));
        version += elf.readUInt32LE(version + 12);
      }
      need += elf.readUInt32LE(need + 12);
    }
  }
  return [...versions];
}

/**
 * Compares dotted versions by their numbers.
 *
 * @param {string} a
 * @param {string} b
 */
function compareVersions(a, b) {
  return a.localeCompare(b, 'en', { numeric: true });
}

/**
 * @param {Buffer} file
 * @returns {{ cpu: string, glibc: string | null } | null} the machine as Node names it, and the oldest
 *   glibc that has all symbols (null: none is asked for); null if it is no ELF file
 */
function inspectElf(file) {
  if (file.length < 64 || file.toString('latin1', 0, 4) !== '\x7fELF') return null;
  const machine = file.readUInt16LE(E_MACHINE);
  const cpu = /** @type {Record<number, string>} */ (MACHINES)[machine] ?? `machine ${machine}`;
  const versions = neededVersions(file)
    .filter((version) => /^GLIBC_\d/.test(version))
    .map((version) => version.slice('GLIBC_'.length))
    .sort(compareVersions);
  return { cpu, glibc: versions.at(-1) ?? null };
}

module.exports = { compareVersions, inspectElf };
