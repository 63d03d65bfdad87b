'use strict';

/**
 * Reads a flight recorder's file back, for tools and tests. It judges nothing.
 */

const { load } = require('./load');

/**
 * @param {string} file
 * @param {number} [samples] only the newest so many, all by default
 * @returns {any} header, samples, readings, events, and what is torn or missing
 * @throws {Error} if it is no run file
 */
function readRun(file, samples) {
  const { binding, error } = load();
  if (error !== null) throw error;
  return JSON.parse(binding.readRun(file, samples));
}

module.exports = { readRun };
