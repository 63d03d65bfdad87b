/** A meter provider of @opentelemetry/api. */
export interface MeterProvider {
  getMeter(name: string, version?: string): unknown;
}

export interface Options {
  /** Default: the global one, which must be there already. */
  meterProvider?: MeterProvider;
  /**
   * `false` leaves out what the semantic conventions name (`v8js.*`, `nodejs.*`, `process.*`), for apps in which
   * another instrumentation gives it. Default: `true`.
   */
  runtime?: boolean;
}

/**
 * Creates the guard's metrics as observable instruments, read when the SDK collects. Safe twice for one provider.
 *
 * @returns stops observing
 * @throws Error (`ERR_LEAKGUARD_PEER`) if @opentelemetry/api is needed and not installed
 */
export function register(options?: Options): () => void;
