'use strict';

/** How the benches write figures down. */

/**
 * @typedef {object} Requirement
 * @property {string} what
 * @property {string} measured
 * @property {string} limit
 * @property {boolean} met
 */

/** @param {number} value @param {number} [digits] */
function figure(value, digits = 3) {
  if (!Number.isFinite(value)) return '-';
  if (value === 0) return '0';
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(places, 4));
}

/** @param {number} value milliseconds */
const ms = (value) => `${figure(value)} ms`;

/** @param {number} value microseconds */
const micros = (value) => `${figure(value)} µs`;

/** @param {number} value bytes */
const megabytes = (value) => `${figure(value / 1024 / 1024)} MB`;

/** @param {number} value 1 is 100 % */
const percent = (value) => `${(value * 100).toFixed(2)} %`;

/** @param {number} value 1 is no change */
const change = (value) => `${value >= 1 ? '+' : '-'}${(Math.abs(value - 1) * 100).toFixed(2)} %`;

/** @param {number} value */
const ratio = (value) => `${value.toFixed(2)} x`;

/** @param {[number, number]} ends @param {(value: number) => string} words */
const interval = ([low, high], words) => `${words(low)} to ${words(high)}`;

/** @param {string} what @param {string} measured @param {string} limit @param {boolean} met @returns {Requirement} */
const requirement = (what, measured, limit, met) => ({ what, measured, limit, met });

module.exports = { change, figure, interval, megabytes, micros, ms, percent, ratio, requirement };
