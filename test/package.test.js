'use strict';

// The packages as npm installs them: what is in the tarballs, whether others' tools like their exports and
// types, and whether the single line guards an Express 4 and an Express 5 app in a project outside the
// repository: from local files, without network, without a compiler, without any script run. The binary is
// the local build; that of a release goes the same way.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const { promisify } = require('node:util');
const { TRIPLES, triple } = require('../lib/load.js');
const { PLATFORMS } = require('../npm/platforms.js');
const { compareVersions, inspectElf } = require('../scripts/elf.js');
const { mainManifest, pack } = require('../scripts/pack.js');
const { ROOT, npm } = require('../scripts/steps.js');

const execute = promisify(execFile);

const HERE = triple();
const BINARY = path.join(ROOT, `leakguard.${HERE}.node`);
const EXECUTION_DEADLINE_MS = 60_000;

/** A heap limit below any container's, so that the guard has nothing to warn of on any machine. */
const HEAP_LIMIT = '--max-old-space-size=128';

/** What the guard says of itself in its first seconds. */
const YOUNG = /^(starting|warm-up)$/;

/** The app of the README, which serves one request, asks the guard how it is, and ends by itself. */
const APP = `
require('leakguard');
const express = require('express');
const app = express();
app.get('/', (request, response) => response.send('served'));
const server = app.listen(0, '127.0.0.1', async () => {
  const body = await (await fetch('http://127.0.0.1:' + server.address().port)).text();
  console.log(JSON.stringify({ body, state: require('leakguard').status().state }));
  server.close();
  server.closeAllConnections();
  process.exitCode = 7;
});
`;

/** @typedef {{ code: number, stdout: string, stderr: string }} Outcome */

/**
 * Runs Node to its end.
 *
 * @param {string[]} args
 * @param {string} cwd
 * @param {NodeJS.ProcessEnv} [env] added to ours
 * @returns {Promise<Outcome>}
 */
async function node(args, cwd, env = {}) {
  const options = {
    cwd,
    env: { ...process.env, NODE_OPTIONS: '', NODE_TEST_CONTEXT: undefined, ...env },
    timeout: EXECUTION_DEADLINE_MS,
  };
  try {
    return { code: 0, ...(await execute(process.execPath, args, options)) };
  } catch (error) {
    const { code, stdout, stderr } = /** @type {Outcome} */ (error);
    assert.equal(typeof code, 'number', `node ${args.join(' ')} did not end by itself: ${error}`);
    return { code, stdout, stderr };
  }
}

/** @type {string} */
let workplace;
/** @type {import('../scripts/pack.js').Tarball} */
let mainTarball;
/** @type {import('../scripts/pack.js').Tarball} */
let platformTarball;

before(async () => {
  workplace = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-package-'));
  const out = path.join(workplace, 'tarballs');
  const binaries = { [HERE]: BINARY };
  [mainTarball, platformTarball] = await pack({ out, only: ['main', HERE], binaries });
});

after(() => fs.rmSync(workplace, { recursive: true, force: true }));

/**
 * An empty project with the given tarballs installed.
 *
 * @param {string} name
 * @param {import('../scripts/pack.js').Tarball[]} tarballs
 * @returns {Promise<string>} its directory
 */
async function project(name, tarballs) {
  const directory = path.join(workplace, name);
  fs.mkdirSync(directory);
  fs.writeFileSync(path.join(directory, 'package.json'), '{ "private": true }\n');
  // Node alone on the path: no compiler, no make, no python.
  const bin = path.join(directory, 'bin');
  fs.mkdirSync(bin);
  fs.symlinkSync(process.execPath, path.join(bin, path.basename(process.execPath)));
  const env = { PATH: process.env.npm_execpath ? bin : `${bin}${path.delimiter}${npmDirectory()}` };
  const args = ['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error'];
  const start = performance.now();
  await npm([...args, ...tarballs.map(({ file }) => file)], { cwd: directory, env, capture: true });
  // For docs/INSTALL.md (scripts/install.js); a busy machine must not fail a test.
  console.log(`installed ${name} in ${((performance.now() - start) / 1000).toFixed(2)} s`);
  return directory;
}

/** Where npm is, for a test run without npm. */
function npmDirectory() {
  const directories = (process.env.PATH ?? '').split(path.delimiter);
  return directories.find((directory) => fs.existsSync(path.join(directory, 'npm'))) ?? '';
}

/**
 * Puts a development dependency of the repository into a project.
 *
 * @param {string} directory
 * @param {string} from name below our node_modules
 * @param {string} as name it has there
 */
function borrow(directory, from, as) {
  const link = path.join(directory, 'node_modules', as);
  fs.mkdirSync(path.dirname(link), { recursive: true });
  fs.symlinkSync(path.join(ROOT, 'node_modules', from), link, 'junction');
}

describe('the tarballs', () => {
  test('the published package has the platform packages as its only dependencies, and no script', () => {
    const published = mainManifest();
    assert.equal(published.dependencies, undefined);
    assert.equal(published.devDependencies, undefined);
    assert.equal(published.scripts, undefined);
    const expected = TRIPLES.map((name) => [`@leakguard/${name}`, published.version]);
    assert.deepEqual(published.optionalDependencies, Object.fromEntries(expected));
    assert.deepEqual(Object.keys(PLATFORMS).sort(), [...TRIPLES].sort());
  });

  test('the main package holds no binary and nothing of the tests or sources', () => {
    const foreign = mainTarball.files.filter(
      (file) =>
        !/^(lib|bin|deploy)\/|^docs\/[A-Z-]+\.md$|^(index|register|prometheus|opentelemetry)\.|^[A-Z]+(\.md)?$|^package\.json$/.test(
          file,
        ),
    );
    assert.deepEqual(foreign, []);
    assert.ok(mainTarball.files.includes('lib/load.js'));
  });

  test('the documents are in the main package, and so is whatever they link to', () => {
    const { files } = mainTarball;
    const documents = files.filter((file) => file.endsWith('.md'));
    assert.ok(documents.includes('docs/TROUBLESHOOTING.md'), documents.join(' '));
    for (const document of documents) {
      const text = fs.readFileSync(path.join(ROOT, document), 'utf8');
      for (const [, target = ''] of text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
        if (/^https?:/.test(target)) continue;
        const file = path.posix.join(path.posix.dirname(document), target);
        assert.ok(files.includes(file), `${document}: ${target} is not in the package`);
      }
    }
  });

  test('the platform package holds the binary and its papers', () => {
    assert.deepEqual(platformTarball.files, [
      'LICENSE',
      'README.md',
      `leakguard.${HERE}.node`,
      'package.json',
    ]);
  });

  test('a plain npm pack in a checkout holds the local binary, so that it works alone', async () => {
    const args = ['pack', '--json', '--dry-run', '--ignore-scripts', '--loglevel=error'];
    const printed = JSON.parse(await npm(args, { cwd: ROOT, capture: true }));
    const [packed] = Array.isArray(printed) ? printed : Object.values(printed);
    const files = packed.files.map((/** @type {{ path: string }} */ file) => file.path);
    assert.ok(files.includes(`leakguard.${HERE}.node`), files.join('\n'));
    assert.ok(
      mainTarball.files.every((file) => files.includes(file)),
      files.join('\n'),
    );
  });

  test('publint has nothing to say about the main package', async () => {
    const { publint } = await import('publint');
    const content = fs.readFileSync(mainTarball.file);
    const tarball = content.buffer.slice(content.byteOffset, content.byteOffset + content.length);
    const { messages } = await publint({ pack: { tarball }, strict: true });
    assert.deepEqual(messages, []);
  });

  test('every type that require knows is there for import', () => {
    const names = (/** @type {string} */ file, /** @type {RegExp} */ pattern) =>
      [...fs.readFileSync(path.join(ROOT, file), 'utf8').matchAll(pattern)].map(([, name]) => name);
    const required = names('index.d.ts', /^ {2}(?:interface|type) (\w+)/gm).sort();
    assert.ok(required.includes('Finding'));
    assert.deepEqual(names('index.d.mts', /^export type (\w+)/gm).sort(), required);
  });

  test('the types resolve as the code does, in every way of importing them', async () => {
    const attw = path.join(ROOT, 'node_modules/@arethetypeswrong/cli/dist/index.js');
    const args = [
      attw,
      mainTarball.file,
      '--no-definitely-typed',
      '--format',
      'ascii',
      '--no-color',
    ];
    const { code, stdout, stderr } = await node(args, ROOT);
    assert.equal(code, 0, stdout + stderr);
  });
});

describe('installed into an empty project', () => {
  for (const [version, source] of [
    ['4', 'express4'],
    ['5', 'express'],
  ]) {
    test(`the single line guards an Express ${version} app, which serves and ends as without it`, async () => {
      const directory = await project(`express-${version}`, [mainTarball, platformTarball]);
      borrow(directory, source, 'express');
      fs.writeFileSync(path.join(directory, 'app.js'), APP);
      const { code, stdout, stderr } = await node([HEAP_LIMIT, 'app.js'], directory);
      assert.equal(stderr, '');
      const { body, state } = JSON.parse(stdout);
      assert.equal(body, 'served');
      assert.match(state, YOUNG);
      assert.equal(code, 7);
    });
  }

  test('it is one guard for require, import, -r and --import', async () => {
    const directory = await project('loaded', [mainTarball, platformTarball]);
    fs.writeFileSync(
      path.join(directory, 'app.mjs'),
      `import leakguard from 'leakguard';
       import { createRequire } from 'node:module';
       const required = createRequire(import.meta.url)('leakguard');
       const { state } = leakguard.status();
       console.log(JSON.stringify({ same: required === leakguard, state }));`,
    );
    for (const preload of [[], ['-r', 'leakguard/register'], ['--import', 'leakguard/register']]) {
      const { code, stdout, stderr } = await node([HEAP_LIMIT, ...preload, 'app.mjs'], directory);
      assert.equal(stderr, '');
      const { same, state } = JSON.parse(stdout);
      assert.equal(same, true);
      assert.match(state, YOUNG);
      assert.equal(code, 0);
    }
  });

  test('a strict TypeScript project compiles against the installed types', async () => {
    const directory = await project('typescript', [mainTarball, platformTarball]);
    borrow(directory, '@types/node', '@types/node');
    borrow(directory, 'undici-types', 'undici-types');
    for (const peer of ['prom-client', '@opentelemetry/api']) borrow(directory, peer, peer);
    for (const file of fs.readdirSync(path.join(ROOT, 'test', 'types'))) {
      fs.copyFileSync(path.join(ROOT, 'test', 'types', file), path.join(directory, file));
    }
    const compiler = path.join(ROOT, 'node_modules/typescript/bin/tsc');
    const { code, stdout } = await node([compiler, '-p', directory], directory);
    assert.equal(stdout, '');
    assert.equal(code, 0);
  });

  test('the leakguard command runs from the installed package', async () => {
    const directory = await project('command', [mainTarball, platformTarball]);
    const command = path.join(directory, 'node_modules', 'leakguard', 'bin', 'leakguard.js');
    const help = await node([command, '--help'], directory);
    assert.equal(help.code, 0, help.stderr);
    assert.match(help.stdout, /analyze/);
    const unknown = await node([command, 'no-such-command'], directory);
    assert.equal(unknown.code, 2);
    assert.match(unknown.stderr, /no-such-command/);
    assert.equal(unknown.stdout, '');
  });

  test('without the platform package the app runs on, with one warning that has the command', async () => {
    const directory = await project('bare', [mainTarball]);
    borrow(directory, 'express', 'express');
    fs.writeFileSync(path.join(directory, 'app.js'), APP);
    const { code, stdout, stderr } = await node([HEAP_LIMIT, 'app.js'], directory);
    assert.equal(JSON.parse(stdout).body, 'served');
    assert.equal(code, 7);
    const warnings = stderr.split('\n').filter((line) => line.includes('LEAKGUARD_BINARY'));
    assert.equal(warnings.length, 1, stderr);
    assert.match(warnings[0], new RegExp(`npm install .*@leakguard/${HERE}@\\d`));

    const command = path.join(directory, 'node_modules', 'leakguard', 'bin', 'leakguard.js');
    const cli = await node([command, 'doctor'], directory);
    assert.equal(cli.code, 2);
    assert.equal(cli.stdout, '');
    assert.match(cli.stderr, new RegExp(`^leakguard: .*@leakguard/${HERE}.*\n$`));
  });
});

describe('the loader', () => {
  /**
   * What it says in a directory of its own, with another platform or another binary.
   *
   * @param {string} name
   * @param {{ platform?: string, arch?: string, binary?: string }} given
   */
  async function loadIn(name, { platform = process.platform, arch = process.arch, binary }) {
    const directory = path.join(workplace, name);
    fs.mkdirSync(path.join(directory, 'lib'), { recursive: true });
    for (const file of ['package.json', 'lib/load.js']) {
      fs.copyFileSync(path.join(ROOT, file), path.join(directory, file));
    }
    if (binary !== undefined) {
      fs.writeFileSync(path.join(directory, `leakguard.${HERE}.node`), binary);
    }
    const program = `
      Object.defineProperty(process, 'platform', { value: ${JSON.stringify(platform)} });
      Object.defineProperty(process, 'arch', { value: ${JSON.stringify(arch)} });
      const { binding, error } = require('./lib/load.js').load();
      console.log(JSON.stringify({ loaded: binding !== null, ...error }));`;
    const { code, stdout, stderr } = await node(['-e', program], directory);
    assert.equal(code, 0, stderr);
    assert.equal(stderr, '');
    return JSON.parse(stdout);
  }

  test('a platform without a package is told which ones there are, not what to install', async () => {
    const found = await loadIn('elsewhere', { platform: 'freebsd', arch: 'riscv64' });
    assert.equal(found.loaded, false);
    assert.equal(found.code, 'LEAKGUARD_BINARY');
    assert.equal(found.package, null);
    assert.match(found.message, /freebsd-riscv64.*linux-x64-gnu/);
    assert.doesNotMatch(found.message, /npm install/);
  });

  test('a binary that does not load is an error with its reason, on one line', async () => {
    const found = await loadIn('broken', { binary: 'not a library' });
    assert.equal(found.loaded, false);
    assert.match(found.message, /does not load \(.+\).*npm install/);
    assert.doesNotMatch(found.message, /\n/);
  });
});

describe('the ELF reader', () => {
  test('versions are compared by their numbers', () => {
    assert.deepEqual(['2.34', '2.4', '2.28', '2.2.5'].sort(compareVersions), [
      '2.2.5',
      '2.4',
      '2.28',
      '2.34',
    ]);
  });

  test('the local binary is for this machine, and what is no ELF file is told apart', () => {
    const found = inspectElf(fs.readFileSync(BINARY));
    if (process.platform === 'linux') assert.equal(found?.cpu, process.arch);
    else assert.equal(found, null);
    assert.equal(inspectElf(Buffer.from('no library')), null);
  });
});
