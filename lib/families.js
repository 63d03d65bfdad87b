'use strict';

/**
 * The guard's metrics as numbers, for libraries that keep metrics their own way. The table of families is the
 * native one; where there is no binary, the one family that says so is known here.
 */

/**
 * @typedef {object} Family
 * @property {string} name Prometheus name
 * @property {string} help
 * @property {'gauge' | 'counter'} kind
 * @property {string[]} labels
 * @property {'sum' | 'max' | 'min'} merge how values of several processes are made one
 * @property {string} unit as UCUM has it
 * @property {string} [otel] OpenTelemetry name
 *
 * @typedef {[value: number, ...labels: string[]]} Point
 *
 * @typedef {object} Reading
 * @property {Family[]} families none without a binary
 * @property {Point[][] | null} points by family; null if nothing is guarded
 */

/** @type {Family} */
const UP = {
  name: 'leakguard_up',
  help: "whether the guard's native thread samples (1) or not (0)",
  kind: 'gauge',
  labels: [],
  merge: 'min',
  unit: '1',
  otel: 'leakguard.up',
};

/** @returns {{ families: Family[], points: Point[][] }} */
function read() {
  /** @type {any} */
  const guard = require('../index.js');
  /** @type {Reading} */
  const { families, points } = guard[Symbol.for('leakguard.metricPoints')]();
  if (families.length === 0) return { families: [UP], points: [[[0]]] };
  if (points !== null) return { families, points };
  return { families, points: families.map(({ name }) => (name === UP.name ? [[0]] : [])) };
}

/**
 * Labels of a point by name, empty ones left out: they mean that there is none.
 *
 * @param {Family} family
 * @param {Point} point
 * @param {string} [prefix] before each name
 * @returns {Record<string, string>}
 */
function labelled(family, [, ...values], prefix = '') {
  const named = family.labels.map((label, i) => [`${prefix}${label}`, values[i]]);
  return Object.fromEntries(named.filter(([, value]) => value !== ''));
}

module.exports = { UP, labelled, read };
