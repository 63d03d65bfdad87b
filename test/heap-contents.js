'use strict';

// Looks into a .heapsnapshot with nothing but JSON.parse: is the file whole, and does it hold what a program
// leaked? Deliberately not the analyzer, so that it can judge the guard's files independently of it.

const fs = require('node:fs');

/**
 * Counts the nodes of one type whose name matches.
 * @param {string} file
 * @param {import('./apps/index.js').Held} held
 * @returns {number}
 * @throws {SyntaxError} if the file is cut off or otherwise not JSON
 */
function countHeld(file, held) {
  const { snapshot, nodes, strings } = JSON.parse(fs.readFileSync(file, 'utf8'));
  /** @type {string[]} */
  const fields = snapshot.meta.node_fields;
  const types = snapshot.meta.node_types[fields.indexOf('type')];
  const type = types.indexOf(held.type);
  const typeField = fields.indexOf('type');
  const nameField = fields.indexOf('name');
  if (nodes.length !== snapshot.node_count * fields.length) {
    throw new SyntaxError(`${nodes.length} numbers for ${snapshot.node_count} nodes`);
  }
  const matching = new Set();
  for (const [index, string] of strings.entries()) if (held.name.test(string)) matching.add(index);
  let count = 0;
  for (let at = 0; at < nodes.length; at += fields.length) {
    if (nodes[at + typeField] === type && matching.has(nodes[at + nameField])) count += 1;
  }
  return count;
}

module.exports = { countHeld };
