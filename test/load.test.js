'use strict';

// The load generator: seeded, bounded, and honest about what failed.

const assert = require('node:assert/strict');
const http = require('node:http');
const { once } = require('node:events');
const { describe, test } = require('node:test');
const { random, runLoad } = require('./apps/load.js');

/**
 * @param {http.RequestListener} listener
 * @param {(port: number) => Promise<void>} use
 */
async function withServer(listener, use) {
  const server = http.createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  try {
    await use(address.port);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const LONG_MS = 60_000;

describe('load', () => {
  test('the_generator_of_a_seed_gives_the_same_numbers_every_time', () => {
    const [a, b, other] = [random(7), random(7), random(8)];
    const first = Array.from({ length: 100 }, a);
    assert.deepEqual(Array.from({ length: 100 }, b), first);
    assert.notDeepEqual(Array.from({ length: 100 }, other), first);
    assert.ok(first.every((number) => number >= 0 && number < 1));
  });

  test('two_runs_of_a_seed_ask_for_the_same_things', async () => {
    /** @type {string[]} */
    let seen = [];
    await withServer(
      (req, res) => {
        seen.push(`${req.method} ${req.url} ${req.headers['x-tag'] ?? ''}`);
        res.end();
      },
      async (port) => {
        const load = {
          rps: 2000,
          maxSockets: 1,
          routes: [
            { path: '/a/{id}', weight: 3, headers: { 'x-tag': '{hex:12}' } },
            { path: '/b/{n}', method: /** @type {const} */ ('POST'), body: 100 },
          ],
        };
        const options = { seed: 3, durationMs: LONG_MS, maxRequests: 200 };
        const first = await runLoad(port, load, options);
        const asked = seen.splice(0);
        await runLoad(port, load, options);
        assert.equal(first.requests, 200);
        assert.equal(first.answered, 200);
        assert.deepEqual(seen, asked);
        assert.ok(first.routes['/a/{id}'] > first.routes['/b/{n}']);
        seen = [];
      },
    );
  });

  test('failures_and_bad_statuses_are_errors', async () => {
    await withServer(
      (req, res) => {
        if (req.url === '/cut') res.destroy();
        else res.writeHead(500).end();
      },
      async (port) => {
        const load = { rps: 1000, routes: [{ path: '/cut' }, { path: '/500' }] };
        const result = await runLoad(port, load, { durationMs: LONG_MS, maxRequests: 50 });
        assert.equal(result.answered, 0);
        assert.equal(result.errors, 50);
      },
    );
  });

  test('a_client_that_goes_away_on_purpose_is_no_error', async () => {
    await withServer(
      (_req, res) => res.write('data: hello\n\n'),
      async (port) => {
        const load = { rps: 500, routes: [{ path: '/events', closeAfterMs: 5, leak: true }] };
        const result = await runLoad(port, load, { durationMs: LONG_MS, maxRequests: 20 });
        assert.equal(result.errors, 0);
        assert.equal(result.answered, 20);
        assert.equal(result.leaking, 20);
      },
    );
  });

  test('an_aborted_signal_ends_it', async () => {
    const abort = new AbortController();
    await withServer(
      (_req, res) => {
        res.end();
        abort.abort();
      },
      async (port) => {
        const load = { rps: 100, routes: [{ path: '/' }] };
        const result = await runLoad(port, load, { durationMs: LONG_MS, signal: abort.signal });
        assert.ok(result.requests >= 1);
      },
    );
  });
});
