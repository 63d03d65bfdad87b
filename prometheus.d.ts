/** A registry of prom-client. */
export interface Registry {
  getSingleMetric(name: string): unknown;
  registerMetric(metric: never): void;
}

/**
 * Puts the guard's metrics into a registry of prom-client, by default its own. They are read when the registry is.
 * Safe twice, and again after `registry.clear()`.
 *
 * @throws Error (`ERR_LEAKGUARD_PEER`) if prom-client is not installed
 */
export function register(registry?: Registry): void;
