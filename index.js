'use strict';

/**
 * leakguard: `require('leakguard')` starts it. This file is the public API and the glue between the native
 * guard and this environment; what it does for the guard on the JS thread is caught here, because an exception
 * would become the app's `uncaughtException`.
 */

const { EventEmitter } = require('node:events');
const path = require('node:path');
const { setImmediate } = require('node:timers');

const gc = require('./lib/gc');
const listeners = require('./lib/listeners');
const { load } = require('./lib/load');
const { fromEnvironment, fromOptions } = require('./lib/options');
const { appPackage } = require('./lib/app');
const probes = require('./lib/probes');
const routes = require('./lib/routes');
const { takeSnapshot } = require('./lib/snapshot');
const work = require('./lib/work');
const { version } = require('./package.json');

/** One guard per environment, also when two copies of the package are loaded. */
const GUARD = Symbol.for('leakguard');

/** @typedef {import('./index.js').Status} Status */

/**
 * A process warning; never an exception.
 *
 * @param {string} code
 * @param {string} message
 */
function warn(code, message) {
  process.emitWarning(message, { type: 'LeakguardWarning', code });
}

/** @param {unknown} error */
function words(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Whether `process.execPath` is node and may be started: not in Electron, not in a single executable application
 * (it would start the app a second time), not where the permission model forbids child processes.
 */
function canStartNode() {
  if (process.versions.electron !== undefined) return false;
  if (isSea()) return false;
  return /** @type {any} */ (process).permission?.has('child') ?? true;
}

function isSea() {
  try {
    return require('node:sea').isSea();
  } catch {
    // Node before 20.12 has none.
    return false;
  }
}

/**
 * Asked natively, since the module that says so is large. No worker runs on the thread that the process began with.
 *
 * @param {any} binding the native library
 * @returns {number} `threadId` of this environment; 0: the main thread
 */
function threadOf(binding) {
  return binding.onMainThread() ? 0 : require('node:worker_threads').threadId;
}

/**
 * @param {any} binding the native library
 * @param {number} threadId
 * @returns {any} what the native guard is told of this environment
 */
function environment(binding, threadId) {
  const app = appPackage();
  return {
    pid: process.pid,
    threadId,
    node: process.version,
    v8: process.versions.v8,
    platform: `${process.platform}-${process.arch}`,
    appName: app.name,
    appVersion: app.version,
    cwd: process.cwd(),
    leakguard: version,
    utcOffsetSeconds: -60 * new Date().getTimezoneOffset(),
    uptimeSeconds: process.uptime(),
    heapSizeLimit: probes.heapSizeLimit(binding),
    execPath: process.execPath,
    cli: canStartNode() ? path.join(__dirname, 'bin', 'leakguard.js') : undefined,
    variables: { ...process.env },
    canForceGc: true,
    canObserveGc: true,
  };
}

class Leakguard extends EventEmitter {
  /** @type {any} */
  #binding = null;
  /** 0: the main thread. */
  #threadId = 0;
  /** @type {any} */
  #native = null;
  /** @type {import('./lib/options').GivenSetting[]} */
  #options = [];
  /** @type {Map<number, (answer: any) => void>} */
  #questions = new Map();
  #nextQuestion = 1;
  /** @type {{ name: string, handler: () => void } | null} */
  #signal = null;
  /** @type {string | null} why nothing is guarded, where that was not asked for */
  #problem = null;
  /** @type {Set<string>} */
  #warned = new Set();
  #enabled = false;
  /** @type {import('./lib/profile') | null} loaded with the first order, and `node:inspector` with it */
  #profile = null;
  /** @type {Buffer | null} SHA-256 of what the status page asks for; null: there is no page */
  #token = null;
  /** @type {import('./lib/page').PageServer | null} loaded with the first `middleware()` */
  #page = null;

  constructor() {
    super();
    listeners.ignore(this);
  }

  /** @param {Record<string, unknown>} [options] */
  start(options) {
    try {
      this.#start(fromOptions(options));
    } catch (error) {
      this.#problem = words(error);
      warn('LEAKGUARD_START', `leakguard could not start: ${words(error)}`);
    }
    return this;
  }

  /** @param {import('./lib/options').GivenSetting[]} options */
  #start(options) {
    if (this.#binding === null) {
      const { binding, error } = load();
      if (error !== null) {
        this.#problem = error.message;
        if (process.env.LEAKGUARD?.match(/^(off|0|false|no)$/i) == null)
          this.#warnOnce(error.code, error.message);
        return;
      }
      this.#binding = binding;
      this.#threadId = threadOf(binding);
    }
    // Later options go over earlier ones, so that `start({ window })` twice keeps both.
    const names = new Set(options.map((option) => option.name));
    this.#options = [...this.#options.filter((option) => !names.has(option.name)), ...options];
    const given = [...fromEnvironment(), ...this.#options];
    const settings = this.#binding.resolve(given);
    // What is wrong with the settings is said once, not by every worker.
    if (this.#threadId === 0)
      for (const { code, message } of settings.warnings) this.#warnOnce(code, message);
    this.#enabled = settings.enabled;
    const token = settings.enabled ? settings.tokenSha256 : null;
    this.#token = typeof token === 'string' ? Buffer.from(token, 'hex') : null;
    if (!settings.enabled) {
      this.stop();
      return;
    }
    if (this.#native === null) {
      this.#native = new this.#binding.Guard(
        given,
        environment(this.#binding, this.#threadId),
        () => this.#onWake(),
      );
      this.#problem = null;
    } else {
      this.#native.configure(given);
    }
    if (settings.listeners) listeners.install();
    else listeners.uninstall();
    if (settings.routes) routes.install();
    else routes.uninstall();
    this.#listenTo(settings.signal ?? null);
  }

  stop() {
    this.#safely(() => this.#listenTo(null));
    this.#end('shutting_down', 'the guard was stopped');
    return this;
  }

  /**
   * @param {string} reason why what was asked for is not answered
   * @param {string} sentence
   */
  #end(reason, sentence) {
    try {
      listeners.uninstall();
      routes.uninstall();
      gc.stopObserving();
      this.#profile?.stop();
      this.#native?.stop();
    } catch (error) {
      warn('LEAKGUARD_STOP', `leakguard could not stop: ${words(error)}`);
    }
    this.#native = null;
    for (const answer of this.#questions.values()) answer(refused(reason, sentence));
    this.#questions.clear();
    this.#page?.stop();
  }

  /** @returns {any} */
  status() {
    try {
      if (this.#native !== null) return JSON.parse(this.#native.status());
    } catch (error) {
      this.#problem = words(error);
    }
    const state = this.#problem !== null ? 'failed' : this.#enabled ? 'stopped' : 'off';
    return {
      schema: 1,
      version,
      state,
      failure: this.#problem,
      uptimeMs: 0,
      sampleAgeMs: 0,
      pid: process.pid,
      node: process.version,
      settings: {},
      liveHeap: null,
      isolates: [],
      process: { series: {} },
      directory: null,
      directoryProblem: null,
      findings: [],
      refusals: [],
      snapshots: [],
      snapshotInProgress: false,
      analyses: [],
      analyzer: { running: null, waiting: 0, problem: 'the guard is not running' },
      fork: { possible: null, why: 'the guard is not running' },
      recorder: null,
      hook: null,
      previousRuns: [],
      losses: { readings: 0, silenced: 0 },
      cost: { ticks: 0, meanTickMicros: null, longestTickMicros: 0 },
    };
  }

  /** @returns {string} Prometheus text */
  metrics() {
    try {
      if (this.#native !== null) return this.#native.metrics();
    } catch (error) {
      this.#problem = words(error);
    }
    return require('./lib/metrics').unguarded(
      this.#problem ?? `the guard is ${this.#enabled ? 'stopped' : 'off'}`,
    );
  }

  /**
   * The metrics as numbers, for `leakguard/prometheus` and `leakguard/opentelemetry`.
   *
   * @returns {import('./lib/families').Reading}
   */
  [Symbol.for('leakguard.metricPoints')]() {
    const families = this.#binding?.metricFamilies() ?? [];
    try {
      if (this.#native !== null)
        return { families, points: JSON.parse(this.#native.metricPoints()) };
    } catch (error) {
      this.#problem = words(error);
    }
    return { families, points: null };
  }

  /**
   * @param {object} target
   * @param {{ name?: string }} [options]
   */
  watch(target, options) {
    if (!(target instanceof EventEmitter) && !(target instanceof EventTarget)) {
      const error = new TypeError('leakguard.watch: expected an EventEmitter or an EventTarget');
      throw Object.assign(error, { code: 'ERR_LEAKGUARD_TARGET' });
    }
    return this.#native === null ? () => {} : listeners.watch(target, options?.name);
  }

  /**
   * @param {{ reason?: string }} [options]
   * @returns {Promise<any>}
   */
  snapshot(options) {
    const native = this.#native;
    if (native === null) {
      return Promise.resolve(refused('disabled', this.#problem ?? 'the guard is not running'));
    }
    return new Promise((resolve) => {
      const number = this.#nextQuestion++;
      this.#questions.set(number, resolve);
      if (!native.requestSnapshot(number, String(options?.reason ?? 'on demand'))) {
        this.#questions.delete(number);
        resolve(refused('busy', 'the native thread is not taking requests'));
      }
    });
  }

  /**
   * Forks a child that only collects garbage, as a snapshot does first. For `npm run soak`.
   *
   * @returns {Promise<any>}
   */
  [Symbol.for('leakguard.gcStage')]() {
    const native = this.#native;
    return new Promise((resolve) => {
      const number = this.#nextQuestion++;
      this.#questions.set(number, resolve);
      if (native === null || !native.requestGcStage(number)) {
        this.#questions.delete(number);
        resolve({ ok: false, problem: 'the guard is not running' });
      }
    });
  }

  /** Whether no loop of this process is stopped, or about to be, for an inline snapshot. */
  ready() {
    try {
      return this.#native?.ready() ?? true;
    } catch {
      return true;
    }
  }

  /** The status page, as Express middleware and as a plain handler of requests. */
  middleware() {
    this.#page ??= new (require('./lib/page').PageServer)({
      token: () => this.#token,
      native: () => this.#native,
      binding: () => this.#binding,
    });
    return this.#page.handler();
  }

  /** @param {string} file @param {object} [options] */
  analyze(file, options) {
    return require('./lib/analyze').analyze(file, options);
  }

  /** @param {string} before @param {string} after @param {string} [later] */
  diff(before, after, later) {
    return require('./lib/analyze').diff(before, after, later);
  }

  /**
   * What the native thread asks for, in the order in which it is done.
   *
   * @type {[bits: number, step: (native: any, bits: number) => void][]}
   */
  #steps = [
    [work.HEAP_AFTER_GC, (native) => probes.readHeap(native, true)],
    [work.HEAP_AFTER_GC, () => listeners.afterMajorGc()],
    [work.HEAP, (native) => probes.readHeap(native, false)],
    // With the reading that they are compared with, or now and then for `status()`.
    [
      work.HEAP_AFTER_GC | work.ROUTES,
      (native, bits) => routes.report(native, (bits & work.HEAP_AFTER_GC) !== 0),
    ],
    [work.TIMERS, (native) => probes.countTimers(native)],
    [work.LISTENERS, (native) => listeners.report(native)],
    [work.OBSERVE_MAJOR, (native) => gc.observeMajor(native)],
    [work.FORCE_GC, (native) => gc.forceGc(native)],
    [work.HEAD_START, (native) => this.#restNextTurn(native)],
    // Before the snapshot, which may stop the loop for seconds: a finding waits for the reading.
    [work.PROFILE, (native) => this.#doProfile(native)],
    [work.PAGE, (native) => this.#page?.takeAnswers(native)],
    [work.SNAPSHOT, (native) => this.#takeSnapshot(native)],
    [work.EVENTS, (native) => this.#takeEvents(native)],
    [work.FAILED, (native) => this.#fail(native)],
  ];

  #onWake() {
    const native = this.#native;
    if (native === null) return;
    this.#safely(() => {
      gc.expireObserver();
      const bits = native.takeWork();
      // The app may have patched what a step calls: that costs this step, and no other that was asked for with it.
      for (const [asked, step] of this.#steps) {
        if (bits & asked) this.#safely(() => step(native, bits));
      }
    });
  }

  /**
   * An exception of ours would become the app's `uncaughtException`.
   *
   * @param {() => void} step
   */
  #safely(step) {
    try {
      step();
    } catch (error) {
      this.#warnOnce('LEAKGUARD_INTERNAL', `leakguard failed on the JS thread: ${words(error)}`);
    }
  }

  /**
   * V8's helper threads mark first: why, and how long, is at `HEAD_START_REST` in src/readings.rs.
   *
   * @param {any} native
   */
  #restNextTurn(native) {
    setImmediate(() => {
      this.#safely(() => {
        if (this.#native === native && native.rest()) this.#restNextTurn(native);
      });
    }).unref();
  }

  /**
   * Nothing of ours stays behind in the app, and it is told. Only the signal is still heard: it would end the app.
   *
   * @param {any} native whose thread is no more
   */
  #fail(native) {
    const message = `the native thread failed: ${native.failure()}; nothing is watched any more`;
    this.#end('failed', message);
    this.#problem = message;
    this.#tell('error', { code: 'LEAKGUARD_FAILED', message });
  }

  /** @param {any} native */
  #doProfile(native) {
    this.#profile ??= require('./lib/profile');
    this.#profile.doOrders(native);
  }

  /**
   * Before the loop stops the app is told, and has one turn of the loop to answer what it has accepted. The job stays
   * where it is until then: it may be withdrawn, and a guard that was stopped does not do it.
   *
   * @param {any} native
   */
  #takeSnapshot(native) {
    const predictedPauseMs = native.stopAhead();
    if (predictedPauseMs === null) {
      takeSnapshot(native);
      return;
    }
    this.#tell('snapshotStart', {
      schema: 1,
      pid: process.pid,
      tid: this.#threadId,
      predictedPauseMs,
    });
    setImmediate(() => {
      this.#safely(() => {
        if (this.#native === native) takeSnapshot(native);
      });
    }).unref();
  }

  /** @param {any} native */
  #takeEvents(native) {
    for (let event = native.nextEvent(); event !== null; event = native.nextEvent()) {
      const [kind, json] = event;
      const payload = JSON.parse(json);
      if (kind === 'warning') this.#warnOnce(payload.code, payload.message);
      else if (kind === 'answer') this.#answer(payload);
      else this.#tell(kind, payload);
    }
  }

  /** @param {any} payload */
  #answer(payload) {
    const { number, ...answer } = payload;
    this.#questions.get(number)?.(answer);
    this.#questions.delete(number);
  }

  /**
   * Tells everybody who listens. What a handler throws is its own affair and becomes a process warning.
   *
   * @param {string} kind
   * @param {any} payload
   */
  #tell(kind, payload) {
    const channel = require('node:diagnostics_channel').channel(`leakguard:${kind}`);
    if (channel.hasSubscribers) channel.publish(payload);
    /** @type {any} */
    let about = payload;
    if (kind === 'error') {
      about = Object.assign(new Error(payload.message), { code: payload.code });
      if (this.listenerCount('error') === 0) {
        this.#warnOnce(payload.code, payload.message);
        return;
      }
    }
    for (const handler of this.rawListeners(kind)) {
      try {
        const result = Reflect.apply(handler, this, [about]);
        if (typeof result?.then === 'function') {
          result.then(undefined, (/** @type {unknown} */ error) => handlerFailed(kind, error));
        }
      } catch (error) {
        handlerFailed(kind, error);
      }
    }
  }

  /** @param {string | null} name */
  #listenTo(name) {
    if (this.#signal?.name === name) return;
    if (this.#signal !== null) process.removeListener(this.#signal.name, this.#signal.handler);
    this.#signal = null;
    // Signals reach the main thread only.
    if (name === null || this.#threadId !== 0) return;
    const handler = () => {
      this.#native?.requestSnapshot(0, `signal ${name}`);
    };
    try {
      process.on(name, handler);
      this.#signal = { name, handler };
    } catch (error) {
      this.#warnOnce(
        'LEAKGUARD_OPTION',
        `LEAKGUARD_SIGNAL: cannot listen to ${name}: ${words(error)}`,
      );
    }
  }

  /**
   * @param {string} code
   * @param {string} message
   */
  #warnOnce(code, message) {
    if (this.#warned.has(message) || this.#warned.size > 100) return;
    this.#warned.add(message);
    warn(code, message);
  }
}

/**
 * @param {string} kind
 * @param {unknown} error
 */
function handlerFailed(kind, error) {
  warn('LEAKGUARD_HANDLER', `a handler of leakguard's '${kind}' event failed: ${words(error)}`);
}

/**
 * @param {string} reason
 * @param {string} sentence
 */
function refused(reason, sentence) {
  return {
    refused: { reason, sentence, unit: null, needed: null, available: null, sufficient: null },
  };
}

/** @type {any} */
const shared = globalThis;
if (shared[GUARD] === undefined) {
  const guard = new Leakguard();
  Object.defineProperty(shared, GUARD, { value: guard, enumerable: false });
  guard.start();
}

module.exports = shared[GUARD];
