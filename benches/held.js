'use strict';

// Counts the objects of one class in a .heapsnapshot of any size, byte by byte: V8 has no string long enough for
// the larger ones. Judges the guard's files without the guard's own parser.

const fs = require('node:fs');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Reads a file byte by byte, forwards only. */
class Bytes {
  /** @param {string} file */
  constructor(file) {
    this.fd = fs.openSync(file, 'r');
    this.buffer = Buffer.allocUnsafe(1 << 20);
    this.length = 0;
    this.at = 0;
  }

  /** @returns {number} the next byte, -1 at the end */
  next() {
    if (this.at === this.length) {
      this.length = fs.readSync(this.fd, this.buffer, 0, this.buffer.length, null);
      this.at = 0;
      if (this.length === 0) return -1;
    }
    return this.buffer[this.at++];
  }

  /**
   * Goes to just behind a text.
   * @param {string} text without a repeated beginning
   * @returns {string} what was skipped, at most its first 64 KiB
   */
  skip(text) {
    const wanted = Buffer.from(text);
    let matched = 0;
    let skipped = '';
    while (matched < wanted.length) {
      const byte = this.next();
      if (byte === -1) throw new SyntaxError(`the file has no ${text}`);
      if (skipped.length < 65_536) skipped += String.fromCharCode(byte);
      if (byte === wanted[matched]) matched += 1;
      else matched = byte === wanted[0] ? 1 : 0;
    }
    return skipped;
  }

  /**
   * Reads numbers to the closing bracket.
   * @param {(value: number) => void} each
   */
  numbers(each) {
    let value = -1;
    for (;;) {
      const byte = this.next();
      if (byte >= 0x30 && byte <= 0x39) {
        value = Math.max(value, 0) * 10 + byte - 0x30;
        continue;
      }
      if (value >= 0) each(value);
      value = -1;
      if (byte === 0x5d) return;
      if (byte === -1) throw new SyntaxError('the file ends in its nodes');
    }
  }

  /**
   * Reads strings to the closing bracket, escapes left as they are.
   * @param {(bytes: Buffer, length: number) => void} each
   */
  strings(each) {
    const text = Buffer.allocUnsafe(1 << 16);
    for (;;) {
      const byte = this.next();
      if (byte === 0x5d) return;
      if (byte === -1) throw new SyntaxError('the file ends in its strings');
      if (byte !== QUOTE) continue;
      let length = 0;
      for (;;) {
        const inside = this.next();
        if (inside === QUOTE) break;
        if (inside === -1) throw new SyntaxError('the file ends in a string');
        if (length < text.length) text[length++] = inside;
        if (inside === BACKSLASH) {
          const escaped = this.next();
          if (length < text.length) text[length++] = escaped;
        }
      }
      each(text, length);
    }
  }
}

/**
 * @param {string} file
 * @param {string} className
 * @returns {number} objects of that class
 * @throws {SyntaxError} if the file is cut off, or holds another number of nodes than it says
 */
function countInstances(file, className) {
  const bytes = new Bytes(file);
  try {
    const head = bytes.skip('"nodes":[');
    const { snapshot } = JSON.parse(
      `${head.slice(0, head.lastIndexOf('"nodes"')).trimEnd().replace(/,$/, '')}}`,
    );
    /** @type {string[]} */
    const fields = snapshot.meta.node_fields;
    const typeField = fields.indexOf('type');
    const nameField = fields.indexOf('name');
    const objectType = snapshot.meta.node_types[typeField].indexOf('object');
    /** @type {Map<number, number>} */
    const byName = new Map();
    let column = 0;
    let type = 0;
    let numbers = 0;
    bytes.numbers((value) => {
      numbers += 1;
      if (column === typeField) type = value;
      if (column === nameField && type === objectType)
        byName.set(value, (byName.get(value) ?? 0) + 1);
      column = column + 1 === fields.length ? 0 : column + 1;
    });
    if (numbers !== snapshot.node_count * fields.length) {
      throw new SyntaxError(`${numbers} numbers for ${snapshot.node_count} nodes`);
    }
    bytes.skip('"strings":[');
    const wanted = Buffer.from(className);
    let index = 0;
    let count = 0;
    bytes.strings((text, length) => {
      if (length === wanted.length && text.compare(wanted, 0, length, 0, length) === 0) {
        count += byName.get(index) ?? 0;
      }
      index += 1;
    });
    bytes.skip('}');
    return count;
  } finally {
    fs.closeSync(bytes.fd);
  }
}

/**
 * The same in a thread of its own: whoever sends requests meanwhile must not stand still, or the app closes its
 * idle connections under it.
 *
 * @param {string} file
 * @param {string} className
 * @returns {Promise<number>}
 */
function countElsewhere(file, className) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: { file, className } });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

module.exports = { countElsewhere, countInstances };

if (!isMainThread && workerData?.className !== undefined) {
  parentPort?.postMessage(countInstances(workerData.file, workerData.className));
}
