'use strict';

/**
 * The guard's metrics in a registry of prom-client: one gauge or counter for each family, filled when the
 * registry is read. Apps that have no registry take `leakguard.metrics()` as it is.
 */

const { labelled, read } = require('./lib/families');
const { peer } = require('./lib/peer');

/** @typedef {import('./lib/families').Family} Family */
/** @typedef {import('./lib/families').Point} Point */

/**
 * Puts the metrics into a registry. Safe twice, and again after `registry.clear()`.
 *
 * @param {any} [registry] default: prom-client's own
 * @throws Error (`ERR_LEAKGUARD_PEER`) if prom-client is not installed
 */
function register(registry) {
  const client = peer('prom-client', 'leakguard/prometheus', () => require('prom-client'));
  const into = registry ?? client.register;
  /** @type {Map<string, Point[]> | undefined} */
  let reading;
  // A registry asks all its metrics in one go: they are read once for it.
  const points = (/** @type {string} */ name) => {
    if (reading === undefined) {
      const { families, points } = read();
      reading = new Map(families.map((family, i) => [family.name, points[i]]));
      queueMicrotask(() => {
        reading = undefined;
      });
    }
    return reading.get(name) ?? [];
  };
  for (const family of read().families) {
    if (into.getSingleMetric(family.name) !== undefined) continue;
    const { name, help, labels, merge } = family;
    const of = family.kind === 'counter' ? client.Counter : client.Gauge;
    new of({
      name,
      help,
      labelNames: labels,
      aggregator: merge,
      registers: [into],
      /** @this {any} */
      collect() {
        this.reset();
        // A metric without labels is reset to zero; it may have no value at all.
        if (labels.length === 0) this.remove();
        for (const point of points(name)) {
          if (family.kind === 'counter') this.inc(labelled(family, point), point[0]);
          else this.set(labelled(family, point), point[0]);
        }
      },
    });
  }
}

module.exports = { register };
