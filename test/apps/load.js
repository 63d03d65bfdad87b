'use strict';

// A load generator: open loop (a slow app does not slow it down), seeded (two runs with one seed ask for the same
// things in the same order, at the same planned moments), bounded in time, requests and requests in flight, and
// on the loopback only. It shares two cores with the app it drives, so it does as little as it can for each
// request, and it does not follow redirects, check bodies or retry.

const http = require('node:http');

/** @typedef {import('./index.js').Load} Load */
/** @typedef {import('./index.js').Route} Route */

/**
 * @typedef {object} LoadResult
 * @property {number} requests sent
 * @property {number} answered complete responses with a status below 400
 * @property {number} errors failed, cut off, or status 400 and above
 * @property {number} skipped not sent because too many were in flight
 * @property {Record<string, number>} routes requests sent by path template
 * @property {number} leaking requests sent to leaking routes
 * @property {number[]} leakingBySecond the same, by the second of the run
 * @property {number} p50 milliseconds
 * @property {number} p99 milliseconds
 * @property {number} seconds from the first to the last moment of the run
 */

/** Requests in flight beyond which planned ones are counted as skipped: an app that hangs shall not fill our memory. */
const MAX_IN_FLIGHT = 2000;
const MAX_REQUESTS = 5_000_000;
/** Latencies kept: all of the first, then every one takes the place of a random earlier one (reservoir sampling). */
const RESERVOIR = 20_000;
/** Arrivals due within one of these are sent together. */
const TICK_MS = 5;

/**
 * mulberry32, Tommy Ettinger's public-domain generator: 32 bits of state, good enough to plan requests.
 * @param {number} seed
 * @returns {() => number} numbers in [0, 1)
 */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Drives the app on `port` until `durationMs` is over or `signal` aborts, then waits for what is still under way
 * (at most two seconds).
 * @param {number} port
 * @param {Load} load
 * @param {{ seed?: number, durationMs: number, maxRequests?: number, signal?: AbortSignal }} options
 * @returns {Promise<LoadResult>}
 */
function runLoad(port, load, { seed = 1, durationMs, maxRequests = MAX_REQUESTS, signal }) {
  const next = random(seed);
  const nextForLatency = random(~seed);
  const agent = new http.Agent({
    keepAlive: load.keepAlive ?? true,
    maxSockets: load.maxSockets ?? 64,
    scheduling: 'fifo',
  });
  const plan = planOf(load, random(seed ^ 0x5eed));
  const body = Buffer.alloc(Math.max(0, ...load.routes.map((route) => route.body ?? 0)), 'b');

  let requests = 0;
  let answered = 0;
  let errors = 0;
  let skipped = 0;
  let leaking = 0;
  /** @type {number[]} */
  const leakingBySecond = [];
  let inFlight = 0;
  let over = false;
  let ended = false;
  /** @type {Record<string, number>} */
  const routes = Object.fromEntries(load.routes.map((route) => [route.path, 0]));
  /** @type {number[]} */
  const latencies = [];
  let measured = 0;

  return new Promise((resolve) => {
    const start = performance.now();
    let due = 0;
    let number = 0;
    /** @type {NodeJS.Timeout | undefined} */
    let lastCall;

    const tick = setInterval(() => {
      const now = performance.now() - start;
      while (due <= now && !over) {
        const rps = plan.rpsAt(due);
        if (rps === 0) {
          due += TICK_MS;
          continue;
        }
        const route = plan.pick(next(), due);
        const target = fill(route.path, next, route.ids ?? 1000, number++);
        if (requests >= maxRequests) finish();
        else if (inFlight >= MAX_IN_FLIGHT) skipped += 1;
        else send(route, target);
        // Exponential gaps: arrivals of independent clients.
        due += (-Math.log(1 - next()) * 1000) / rps;
      }
      if (now >= durationMs) finish();
    }, TICK_MS);

    if (signal?.aborted) finish();
    else signal?.addEventListener('abort', finish, { once: true });

    /**
     * @param {Route} route
     * @param {string} target
     */
    function send(route, target) {
      requests += 1;
      inFlight += 1;
      routes[route.path] = (routes[route.path] ?? 0) + 1;
      const sent = performance.now();
      if (route.leak) countLeaking((sent - start) / 1000);
      let settled = false;
      /** @param {boolean} good */
      const settle = (good) => {
        if (settled) return;
        settled = true;
        inFlight -= 1;
        if (good) answered += 1;
        else if (!ended) errors += 1;
        if (good) keepLatency(performance.now() - sent);
        if (over && inFlight === 0) end();
      };
      const headers = headersOf(route, next);
      const request = http.request({
        host: '127.0.0.1',
        port,
        path: target,
        method: route.method ?? 'GET',
        agent,
        headers,
      });
      request.on('error', () => settle(false));
      request.on('response', (response) => {
        const good = (response.statusCode ?? 500) < 400;
        response.resume();
        if (route.closeAfterMs !== undefined) {
          setTimeout(() => {
            settle(good);
            request.destroy();
          }, route.closeAfterMs);
        }
        response.on('end', () => settle(good));
        response.on('close', () => settle(false));
        response.on('error', () => settle(false));
      });
      if (route.body) request.end(body.subarray(0, route.body));
      else request.end();
    }

    /** @param {number} second */
    function countLeaking(second) {
      leaking += 1;
      while (leakingBySecond.length <= second) leakingBySecond.push(0);
      leakingBySecond[leakingBySecond.length - 1] += 1;
    }

    /** @param {number} latency */
    function keepLatency(latency) {
      measured += 1;
      if (latencies.length < RESERVOIR) latencies.push(latency);
      else {
        const slot = Math.floor(nextForLatency() * measured);
        if (slot < RESERVOIR) latencies[slot] = latency;
      }
    }

    function finish() {
      if (over) return;
      over = true;
      clearInterval(tick);
      signal?.removeEventListener('abort', finish);
      if (inFlight === 0) end();
      else lastCall = setTimeout(end, 2000);
    }

    function end() {
      // What is cut off from here on is our doing, not the app's.
      ended = true;
      clearTimeout(lastCall);
      agent.destroy();
      latencies.sort((a, b) => a - b);
      resolve({
        requests,
        answered,
        errors,
        skipped,
        routes,
        leaking,
        leakingBySecond,
        p50: quantile(latencies, 0.5),
        p99: quantile(latencies, 0.99),
        seconds: (performance.now() - start) / 1000,
      });
    }
  });
}

/**
 * @param {Load} load
 * @param {() => number} nextForMoods
 */
function planOf(load, nextForMoods) {
  const weights = load.routes.map((route) => route.weight ?? 1);
  const moods = load.routes.map(() => 0);
  let total = weights.reduce((sum, weight) => sum + weight, 0);
  let moved = 0;
  // The logarithm of each weight is an autoregression of deviation 1: a route's traffic comes and goes.
  const move = () => {
    moved += 1;
    for (const [index, route] of load.routes.entries()) {
      moods[index] = 0.6 * moods[index] + 0.8 * normal(nextForMoods);
      weights[index] = (route.weight ?? 1) * Math.exp(moods[index]);
    }
    total = weights.reduce((sum, weight) => sum + weight, 0);
  };
  const phases = load.phases ?? [{ seconds: Number.POSITIVE_INFINITY, rps: load.rps }];
  const cycle = phases.reduce((sum, phase) => sum + phase.seconds, 0);
  return {
    /**
     * @param {number} draw in [0, 1)
     * @param {number} ms since the start
     */
    pick(draw, ms) {
      while (load.wander !== undefined && moved < ms / 1000 / load.wander) move();
      let rest = draw * total;
      for (const [index, route] of load.routes.entries()) {
        rest -= weights[index];
        if (rest < 0) return route;
      }
      return load.routes[load.routes.length - 1];
    },
    /** @param {number} ms since the start */
    rpsAt(ms) {
      let seconds = ms / 1000;
      if (load.repeat) seconds %= cycle;
      for (const phase of phases) {
        if (seconds < phase.seconds) return phase.rps;
        seconds -= phase.seconds;
      }
      return phases[phases.length - 1].rps;
    },
  };
}

/**
 * About normal, of deviation 1: the sum of twelve even draws.
 * @param {() => number} next
 */
function normal(next) {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += next();
  return sum;
}

/**
 * @param {string} template
 * @param {() => number} next
 * @param {number} ids
 * @param {number} number
 */
function fill(template, next, ids, number) {
  if (!template.includes('{')) return template;
  return template
    .replace('{id}', () => String(Math.floor(next() * ids)))
    .replace('{n}', () => String(number));
}

/**
 * @param {Route} route
 * @param {() => number} next
 */
function headersOf(route, next) {
  /** @type {Record<string, string | number>} */
  const headers = {};
  for (const [name, template] of Object.entries(route.headers ?? {})) {
    headers[name] = template.replace(/\{hex:(\d+)\}/, (_, digits) => hex(Number(digits), next));
  }
  if (route.body) headers['content-length'] = route.body;
  return headers;
}

/**
 * @param {number} digits
 * @param {() => number} next
 */
function hex(digits, next) {
  const word = Math.floor(next() * 0x100000000)
    .toString(16)
    .padStart(8, '0');
  return word.repeat(Math.ceil(digits / 8)).slice(0, digits);
}

/**
 * @param {number[]} sorted
 * @param {number} share
 */
function quantile(sorted, share) {
  return sorted.length === 0
    ? 0
    : sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

module.exports = { random, runLoad };
