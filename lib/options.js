'use strict';

/**
 * Gathers what the user gave: `LEAKGUARD*` variables and the options of `start()`. It checks nothing: the
 * native option table knows what exists and what is accepted.
 */

/**
 * @typedef {{ name: string, value: string, environment: boolean }} GivenSetting
 */

/** @returns {GivenSetting[]} */
function fromEnvironment() {
  const given = [];
  for (const name of Object.keys(process.env)) {
    if (name !== 'LEAKGUARD' && !name.startsWith('LEAKGUARD_')) continue;
    given.push({ name, value: String(process.env[name]), environment: true });
  }
  return given;
}

/**
 * @param {Record<string, unknown> | undefined} options
 * @returns {GivenSetting[]}
 */
function fromOptions(options) {
  if (options === null || typeof options !== 'object') return [];
  const given = [];
  for (const [name, value] of Object.entries(options)) {
    // `undefined` is "not given"; everything else, 0 and false too, is a value.
    if (value === undefined) continue;
    given.push({ name, value: text(value), environment: false });
  }
  return given;
}

/** @param {unknown} value */
function text(value) {
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  if (value === null) return 'null';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

module.exports = { fromEnvironment, fromOptions };
