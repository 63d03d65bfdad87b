'use strict';

// Writes a run file as the flight recorder does (its format is drawn in src/recorder/format.rs), so that a test
// can have runs of any length that ended in any way, without waiting for them.

const fs = require('node:fs');
const zlib = require('node:zlib');

const FILE_BYTES = 1 << 20;
const HEADER_BYTES = 4096;
const RECORD_BYTES = 128;
const FIELDS = 24;
const SAMPLE = 1;
const LIVE_HEAP = 2;
const REFUSED = 4;
const EXIT = 8;
/** Places of figures in a sample. */
const FIELD = { rss: 4, fds: 5, handles: 6, listeners: 9, cgroupUsed: 12, cgroupLimit: 16 };

/**
 * @typedef {object} Run
 * @property {Record<string, unknown>} header what the run was
 * @property {{ at: number, values: Partial<Record<keyof typeof FIELD, number>> }[]} samples milliseconds from its start
 * @property {{ at: number, bytes: number }[]} readings of the live heap
 * @property {{ at: number, needed: number, available: number, reason: string }[]} [refusals]
 * @property {{ at: number, code: number, reason: string }} [exit] none if it was cut off
 */

/**
 * @param {string} file
 * @param {Run} run
 */
function writeRun(file, { header, samples, readings, refusals = [], exit }) {
  const content = Buffer.alloc(FILE_BYTES);
  const text = Buffer.from(JSON.stringify({ ...header, file_bytes: FILE_BYTES }));
  content.write('LKGDREC1', 0, 'latin1');
  content.writeUInt32LE(1, 8);
  content.writeUInt32LE(text.length, 12);
  content.writeUInt32LE(zlib.crc32(text), 16);
  text.copy(content, 20);

  const all = Math.floor((FILE_BYTES - HEADER_BYTES) / RECORD_BYTES);
  const share = (/** @type {number} */ permille) => Math.floor((all * permille) / 1000);
  const fine = 0;
  const readingRing = share(275) + 2 * share(264);
  const events = readingRing + share(132);
  let sequence = 0;

  /**
   * @param {number} slot
   * @param {number} at
   * @param {number} kind
   * @param {(record: Buffer) => void} fill
   */
  function put(slot, at, kind, fill) {
    sequence += 1;
    const offset = HEADER_BYTES + slot * RECORD_BYTES;
    const record = content.subarray(offset, offset + RECORD_BYTES);
    record.writeBigUInt64LE(BigInt(sequence), 0);
    record.writeBigUInt64LE(BigInt(at), 8);
    record[16] = kind;
    fill(record);
    record.writeUInt32LE(zlib.crc32(record.subarray(0, RECORD_BYTES - 4)), RECORD_BYTES - 4);
  }

  /**
   * @param {number} code
   * @param {number[]} numbers
   * @param {string} words
   */
  const event = (code, numbers, words) => (/** @type {Buffer} */ record) => {
    record.writeInt32LE(code, 24);
    record[28] = Buffer.byteLength(words);
    for (let at = 0; at < 3; at++) record.writeDoubleLE(numbers[at] ?? Number.NaN, 32 + 8 * at);
    record.write(words, 56);
  };

  samples.forEach(({ at, values }, index) => {
    put(fine + index, at, SAMPLE, (record) => {
      for (let field = 0; field < FIELDS; field++) record.writeFloatLE(Number.NaN, 24 + 4 * field);
      for (const [name, value] of Object.entries(values)) {
        record.writeFloatLE(value, 24 + 4 * FIELD[/** @type {keyof typeof FIELD} */ (name)]);
      }
    });
  });
  readings.forEach(({ at, bytes }, index) => {
    put(readingRing + index, at, LIVE_HEAP, event(0, [bytes], ''));
  });
  let slot = events;
  for (const { at, needed, available, reason } of refusals) {
    put(slot++, at, REFUSED, event(0, [needed, available], reason));
  }
  if (exit) put(slot++, exit.at, EXIT, event(exit.code, [], exit.reason));
  fs.writeFileSync(file, content, { mode: 0o600 });
}

module.exports = { writeRun };
