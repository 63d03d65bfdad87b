'use strict';

// Every app of examples/ as its reader would run it: in a directory of its own with what its package.json names, which
// here are links to the packages of this repository. It serves, is guarded, and ends by itself when asked to.

const assert = require('node:assert/strict');
const { execFile, spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');
const { promisify } = require('node:util');
const { ROOT } = require('../scripts/steps.js');

const EXAMPLES = path.join(ROOT, 'examples');
const DEADLINE_MS = 60_000;
const TOKEN = 'a-token-of-the-tests';

/** Run by the demo and its test. */
const SHOP = 'express';
/** What a package is called here, where that is another name than its own. */
const NAMES = /** @type {Record<string, string>} */ ({ 'express@4': 'express4' });

/** @typedef {{ status: number | undefined, body: string }} Answer */

/**
 * A request on a connection of its own, which ends with it.
 *
 * @param {string} url
 * @param {import('node:http').OutgoingHttpHeaders} [headers]
 * @returns {Promise<Answer>}
 */
async function get(url, headers) {
  const request = http.get(url, { agent: false, headers });
  const [response] = await once(request, 'response');
  let body = '';
  for await (const chunk of response.setEncoding('utf8')) body += chunk;
  return { status: response.statusCode, body };
}

/**
 * A copy of an example, with its dependencies.
 *
 * @param {import('node:test').TestContext} t
 * @param {string} name
 */
function checkout(t, name) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-example-'));
  t.after(() => fs.rmSync(directory, { recursive: true, force: true }));
  fs.cpSync(path.join(EXAMPLES, name), directory, {
    recursive: true,
    filter: (file) => !/node_modules|leakguard$/.test(path.relative(EXAMPLES, file)),
  });
  const manifest = JSON.parse(fs.readFileSync(path.join(directory, 'package.json'), 'utf8'));
  const wanted = { ...manifest.dependencies, ...manifest.devDependencies };
  for (const [dependency, range] of Object.entries(wanted)) {
    const major = /\d+/.exec(range)?.[0];
    const known = NAMES[`${dependency}@${major}`] ?? dependency;
    const target = dependency === 'leakguard' ? ROOT : path.join(ROOT, 'node_modules', known);
    const has = JSON.parse(fs.readFileSync(path.join(target, 'package.json'), 'utf8')).version;
    if (dependency !== 'leakguard')
      assert.equal(has.split('.')[0], major, `${dependency} ${range}`);
    const link = path.join(directory, 'node_modules', dependency);
    fs.mkdirSync(path.dirname(link), { recursive: true });
    fs.symlinkSync(target, link, 'junction');
  }
  return { directory, scripts: manifest.scripts };
}

/**
 * The command line of a script, with the running Node.
 *
 * @param {string} script such as `node --import leakguard/register app.js`
 * @param {string} directory
 */
function command(script, directory) {
  const [program, ...args] = script.split(' ');
  if (program === 'node') return { file: process.execPath, args };
  assert.equal(program, 'tsc');
  const compiler = path.join(directory, 'node_modules', 'typescript', 'bin', 'tsc');
  return { file: process.execPath, args: [compiler, ...args] };
}

/**
 * Starts an example, lets `use` ask it for something, and ends it as an orchestrator does.
 *
 * @param {import('node:test').TestContext} t
 * @param {string} name
 * @param {(url: string, model: any) => Promise<void> | void} use
 */
async function start(t, name, use) {
  const { directory, scripts } = checkout(t, name);
  const inherited = Object.entries(process.env).filter(([key]) => !/^(LEAKGUARD|NODE_)/.test(key));
  const env = {
    ...Object.fromEntries(inherited),
    // Below any container's limit, so that the guard has nothing to say.
    NODE_OPTIONS: '--max-old-space-size=128',
    PORT: '0',
    LEAKGUARD_TOKEN: TOKEN,
  };
  if (scripts.build) {
    const { file, args } = command(scripts.build, directory);
    await promisify(execFile)(file, args, { cwd: directory, env, timeout: DEADLINE_MS });
  }
  const { file, args } = command(scripts.start, directory);
  const child = spawn(file, args, { cwd: directory, env, stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const ended = once(child, 'close');
  const deadline = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
  try {
    const first = await Promise.race([once(child.stdout.setEncoding('utf8'), 'data'), ended]);
    assert.match(String(first[0]), /^http:\/\/127\.0\.0\.1:\d+\/\n$/, stderr);
    const url = String(first[0]).trim();
    const served = await get(url);
    assert.equal(served.status, 200);
    assert.match(served.body, /\w/);
    const page = `${url}leakguard?format=json&span=5m`;
    assert.equal((await get(page)).status, 401);
    const status = await get(page, { authorization: `Bearer ${TOKEN}` });
    assert.equal(status.status, 200, status.body);
    const model = JSON.parse(status.body);
    assert.match(model.state, /^(starting|warm-up|armed)$/);
    assert.ok(model.isolate.id >= 0);
    await use(url, model);
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null], stderr);
    assert.equal(stderr, '');
  } finally {
    clearTimeout(deadline);
  }
}

/**
 * Asks for the model until it is as wanted.
 *
 * @param {string} url
 * @param {(model: any) => boolean} wanted
 */
async function modelWith(url, wanted) {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const { body } = await get(`${url}leakguard?format=json`, { authorization: `Bearer ${TOKEN}` });
    const model = JSON.parse(body);
    if (wanted(model)) return model;
    assert.ok(Date.now() < end, `not within ${DEADLINE_MS} ms: ${wanted}`);
  }
}

/** What an example shows beyond being guarded. @type {Record<string, (url: string, model: any) => Promise<void> | void>} */
const SHOWN = {
  express5: ready,
  express4: ready,
  fastify: ready,
  http: ready,
  cluster: async (url) => {
    const { pid } = await modelWith(url, () => true);
    const other = await modelWith(url, (model) => model.pid !== pid);
    assert.equal(other.app.name, 'leakguard-example-cluster');
  },
  'worker-pool': async (url) => {
    assert.equal((await get(url)).body, '196418\n');
    const { isolates } = await modelWith(url, (model) => model.isolates.length === 3);
    assert.equal(isolates.filter((/** @type {any} */ { tid }) => tid === 0).length, 1);
    const worker = isolates.find((/** @type {any} */ { tid }) => tid !== 0);
    const page = `${url}leakguard?format=json&isolate=${worker.id}`;
    const { body } = await get(page, { authorization: `Bearer ${TOKEN}` });
    assert.equal(JSON.parse(body).isolate.tid, worker.tid);
  },
  esm: () => {},
  typescript: () => {},
};

/**
 * What the deployment of deploy/kubernetes asks an app whether it is ready.
 *
 * @param {string} url
 */
async function ready(url) {
  const deployment = fs.readFileSync(path.join(ROOT, 'deploy', 'kubernetes', 'app.yml'), 'utf8');
  const probe = /readinessProbe:\s+httpGet: \{ path: (\S+),/.exec(deployment)?.[1];
  assert.ok(probe, deployment);
  assert.equal((await get(new URL(probe, url).href)).status, 200);
}

test('every example is run here, and is in the list of examples', () => {
  const names = fs
    .readdirSync(EXAMPLES, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);
  assert.deepEqual(names.sort(), [...Object.keys(SHOWN), SHOP].sort());
  const list = fs.readFileSync(path.join(EXAMPLES, 'README.md'), 'utf8');
  for (const name of names) assert.ok(list.includes(`[${name}](${name})`), name);
});

for (const [name, use] of Object.entries(SHOWN)) {
  test(`the example ${name} serves, is guarded and ends by itself`, (t) => start(t, name, use));
}
