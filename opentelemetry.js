'use strict';

/**
 * The guard's metrics as observable instruments of OpenTelemetry: with the names of the semantic conventions where
 * they have one, else below `leakguard.`. They are read when the SDK collects. It starts no SDK and no exporter.
 */

const v8 = require('node:v8');
const { labelled, read } = require('./lib/families');
const { peer } = require('./lib/peer');
const { version } = require('./package.json');

/** @typedef {import('./lib/families').Family} Family */

/** What the semantic conventions want by heap space: name, help, field of `v8.getHeapSpaceStatistics()`. */
const HEAP_SPACES = /** @type {const} */ ([
  ['v8js.memory.heap.used', 'Heap memory in use', 'space_used_size'],
  ['v8js.memory.heap.space.size', 'Heap memory set aside', 'space_size'],
  ['v8js.memory.heap.space.available_size', 'Heap memory free', 'space_available_size'],
  ['v8js.memory.heap.space.physical_size', 'Heap memory committed', 'physical_space_size'],
]);

const SPACE_NAME = 'v8js.heap.space.name';

/** Label sets of one family that are remembered after they have gone. */
const MAX_GONE = 512;

/** What is registered with each provider. @type {WeakMap<object, () => void>} */
const registered = new WeakMap();

/**
 * Creates the instruments. Safe twice for one provider.
 *
 * @param {{ meterProvider?: any, runtime?: boolean }} [options]
 * @returns {() => void} stops observing
 * @throws Error (`ERR_LEAKGUARD_PEER`) if @opentelemetry/api is needed and not installed
 */
function register({ meterProvider, runtime = true } = {}) {
  const provider = meterProvider ?? globalProvider();
  const known = registered.get(provider);
  if (known !== undefined) return known;
  const meter = provider.getMeter('leakguard', version);
  /** @type {Map<string, any>} */
  const instruments = new Map();
  for (const family of read().families) {
    if (family.otel === undefined) continue;
    if (!runtime && !family.otel.startsWith('leakguard.')) continue;
    instruments.set(family.name, instrument(meter, family));
  }
  const spaces = !runtime
    ? []
    : HEAP_SPACES.map(([name, description, field]) => ({
        field,
        instrument: meter.createObservableUpDownCounter(name, { description, unit: 'By' }),
      }));
  /** Label sets of the parts of sums, as observed. @type {Map<string, Map<string, Record<string, string>>>} */
  const parts = new Map();
  /** @param {any} result */
  const observe = (result) => {
    const { families, points } = read();
    families.forEach((family, i) => {
      const to = instruments.get(family.name);
      if (to === undefined) return;
      const gone = new Map(parts.get(family.name));
      const here = new Map();
      for (const point of points[i]) {
        const labels = labelled(family, point, 'leakguard.');
        result.observe(to, point[0], labels);
        if (!isPart(family)) continue;
        const key = JSON.stringify(labels);
        here.set(key, labels);
        gone.delete(key);
      }
      // An SDK with cumulative temporality exports the last value of what it is told no more, so it is told: none.
      for (const [key, labels] of [...gone].slice(-MAX_GONE)) {
        result.observe(to, 0, labels);
        here.set(key, labels);
      }
      parts.set(family.name, here);
    });
    if (spaces.length === 0) return;
    for (const space of v8.getHeapSpaceStatistics()) {
      for (const { field, instrument } of spaces) {
        result.observe(instrument, space[field], { [SPACE_NAME]: space.space_name });
      }
    }
  };
  const all = [...instruments.values(), ...spaces.map(({ instrument }) => instrument)];
  meter.addBatchObservableCallback(observe, all);
  const unregister = () => {
    meter.removeBatchObservableCallback(observe, all);
    registered.delete(provider);
  };
  registered.set(provider, unregister);
  return unregister;
}

/** @returns {any} */
function globalProvider() {
  const { metrics } = peer('@opentelemetry/api', 'leakguard/opentelemetry', () =>
    require('@opentelemetry/api'),
  );
  const provider = metrics.getMeterProvider();
  // Instruments of no provider observe nothing, also when one comes later.
  if (provider.constructor?.name === 'NoopMeterProvider') {
    process.emitWarning(
      'leakguard/opentelemetry: there is no meter provider yet; call register() after the SDK has started',
      { type: 'LeakguardWarning', code: 'LEAKGUARD_OPENTELEMETRY' },
    );
  }
  return provider;
}

/**
 * Whether the points of a family are parts of a sum that go: listeners of a line, handles of a type.
 *
 * @param {Family} family
 */
function isPart({ kind, merge, labels }) {
  return kind === 'gauge' && merge === 'sum' && labels.length > 0;
}

/**
 * @param {any} meter
 * @param {Family} family
 */
function instrument(meter, { otel, help, unit, kind, merge }) {
  const options = { description: help, unit };
  if (kind === 'counter') return meter.createObservableCounter(otel, options);
  // What can be added up over processes is an up-down counter, what cannot a gauge.
  if (merge === 'sum') return meter.createObservableUpDownCounter(otel, options);
  return meter.createObservableGauge(otel, options);
}

module.exports = { register };
