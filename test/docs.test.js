'use strict';

// Every command of README.md and docs/*.md is run: each ```sh block as it stands, in a project outside the repository
// that has the packed tarballs to install, with test/docs/command.js in the place of programs that need a network or a
// cluster. A command that is not known here fails. Files that a block shows by name (```yaml, scripts) are put beside it.

const assert = require('node:assert/strict');
const { execFile, execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const { promisify } = require('node:util');
const { load, triple } = require('../lib/load.js');
const { pack } = require('../scripts/pack.js');
const { ROOT } = require('../scripts/steps.js');
const { readRun } = require('../lib/run.js');

const execute = promisify(execFile);

const COMMAND = path.join(__dirname, 'docs', 'command.js');
const BLOCK_DEADLINE_MS = 60_000;

/** Programs that test/docs/command.js stands in for. */
const STOOD_IN = ['npm', 'npx', 'cargo', 'kubectl', 'aws', 'curl'];
/** Those that are there on every machine, and words of the shell. */
const AS_THEY_ARE = ['node', 'exec', 'echo', 'ls', 'head'];

/** What a hook finds in its environment beside the settings. */
const OF_THE_HOOK = ['LEAKGUARD_FILE', 'LEAKGUARD_KIND', 'LEAKGUARD_FINDING', 'LEAKGUARD_PID'];

/** The app of the documents: guarded by the one line or by the preload, it serves, leaves evidence, and ends by itself. */
const APP = `
  const leakguard = LOAD;
  const server = require('node:http').createServer((request, response) => response.end('served'));
  server.listen(0, '127.0.0.1', function wait() {
    if (!leakguard.status().recorder?.samples) return void setTimeout(wait, 20);
    leakguard.snapshot({ reason: 'documents' }).then((answer) => {
      if (answer.refused) console.error('refused: ' + answer.refused.sentence);
      server.close();
    });
  });`;

/**
 * @typedef {object} Block
 * @property {string} document
 * @property {number} line from 1
 * @property {string} language
 * @property {string} text
 */

/** @returns {string[]} */
function documents() {
  const docs = fs.readdirSync(path.join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
  return ['README.md', ...docs.sort().map((name) => `docs/${name}`)];
}

/**
 * The fenced blocks of a document.
 *
 * @param {string} document
 * @returns {Block[]}
 */
function blocks(document) {
  const found = [];
  /** @type {Block | null} */
  let open = null;
  const lines = fs.readFileSync(path.join(ROOT, document), 'utf8').split('\n');
  for (const [index, line] of lines.entries()) {
    const fence = /^\s*```(\w*)\s*$/.exec(line);
    if (fence === null) {
      if (open !== null) open.text += `${line}\n`;
    } else if (open === null) {
      open = { document, line: index + 2, language: fence[1] ?? '', text: '' };
    } else {
      found.push(open);
      open = null;
    }
  }
  assert.equal(open, null, `${document}: a block is not closed`);
  return found;
}

/**
 * The programs that a block of shell names: the first word of each command, assignments before it left out.
 *
 * @param {string} text
 * @returns {string[]}
 */
function programs(text) {
  return text
    .split('\n')
    .map((line) => line.replace(/(^|\s)#.*$/, ''))
    .flatMap((line) => line.split(/\|\||&&|[|;]|\$\(/))
    .map((command) => command.trim().replace(/^(\w+=("[^"]*"|\S*)\s+)+/, ''))
    .map((command) => command.split(/\s+/)[0] ?? '')
    .filter((word) => word !== '' && word !== ')"');
}

/** @type {string} */
let workplace;
/** @type {string} */
let tarballs;

before(async () => {
  workplace = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-docs-'));
  const here = triple();
  const binaries = { [here]: path.join(ROOT, `leakguard.${here}.node`) };
  const packed = await pack({
    out: path.join(workplace, 'tarballs'),
    only: ['main', here],
    binaries,
  });
  tarballs = JSON.stringify(packed.map(({ file }) => file));
  // Two snapshots of one process, as the documents call them.
  const script = `const v8 = require('node:v8');
    v8.writeHeapSnapshot('before.heapsnapshot');
    globalThis.cache = Array.from({ length: 5000 }, (_, id) => ({ id }));
    v8.writeHeapSnapshot('after.heapsnapshot');`;
  execFileSync(process.execPath, ['-e', script], { cwd: workplace });
});

after(() => fs.rmSync(workplace, { recursive: true, force: true }));

/** The program file of npm: of the one that runs us, else of the one on the path. */
function npmCli() {
  const { npm_execpath: ours } = process.env;
  if (ours && /npm-cli\.c?js$/.test(ours)) return ours;
  const directories = (process.env.PATH ?? '').split(path.delimiter);
  const found = directories
    .map((name) => path.join(name, 'npm'))
    .find((name) => fs.existsSync(name));
  assert.ok(found, 'npm is on the path');
  return fs.realpathSync(found);
}

class Sandbox {
  /** @param {string} document */
  constructor(document) {
    this.directory = path.join(workplace, document.replace(/\W/g, '-'));
    this.log = path.join(this.directory, '..', `${path.basename(this.directory)}.log`);
    const bin = path.join(this.directory, 'bin');
    fs.mkdirSync(bin, { recursive: true });
    fs.writeFileSync(this.log, '');
    fs.writeFileSync(path.join(this.directory, 'package.json'), '{ "private": true }\n');
    const loaded = (/** @type {string} */ how) => APP.replace('LOAD', how);
    fs.writeFileSync(path.join(this.directory, 'app.js'), loaded("require('leakguard')"));
    fs.writeFileSync(
      path.join(this.directory, 'app.mjs'),
      `import { createRequire } from 'node:module';
       const require = createRequire(import.meta.url);
       ${loaded("require('leakguard')")}`,
    );
    for (const name of ['before.heapsnapshot', 'after.heapsnapshot'])
      fs.copyFileSync(path.join(workplace, name), path.join(this.directory, name));
    for (const name of STOOD_IN) {
      const text = `#!/bin/sh\nexec '${process.execPath}' '${COMMAND}' ${name} "$@"\n`;
      fs.writeFileSync(path.join(bin, name), text, { mode: 0o755 });
    }
    fs.symlinkSync(process.execPath, path.join(bin, 'node'));
    this.env = {
      PATH: `${bin}:/usr/bin:/bin`,
      HOME: this.directory,
      // Below any container's limit, so that what doctor finds does not depend on the machine.
      NODE_OPTIONS: '--max-old-space-size=128',
      DOCS_LOG: this.log,
      DOCS_TARBALLS: tarballs,
      DOCS_NPM: npmCli(),
    };
  }

  /** Where a reader of this document has leakguard installed already. */
  async install() {
    await this.shell('npm install leakguard');
  }

  /**
   * Runs text as a shell would, from its first failing command on not.
   *
   * @param {string} text
   * @param {NodeJS.ProcessEnv} [env]
   */
  async shell(text, env = {}) {
    const file = path.join(this.directory, '..', `${path.basename(this.directory)}.sh`);
    fs.writeFileSync(file, text);
    return this.execute('/bin/sh', ['-e', file], env);
  }

  /**
   * @param {string} program
   * @param {string[]} args
   * @param {NodeJS.ProcessEnv} env
   */
  async execute(program, args, env) {
    const options = {
      cwd: this.directory,
      env: { ...this.env, ...env },
      timeout: BLOCK_DEADLINE_MS,
      maxBuffer: 64 << 20,
    };
    try {
      return await execute(program, args, options);
    } catch (error) {
      const { stdout, stderr } = /** @type {{ stdout: string, stderr: string }} */ (error);
      throw new Error(`${error}\n${stdout}\n${stderr}`);
    }
  }

  /** @returns {{ name: string, args: string[] }[]} what stood-in programs were called with */
  calls() {
    const lines = fs.readFileSync(this.log, 'utf8').trim().split('\n');
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line));
  }
}

describe('the commands of', { concurrency: 2 }, () => {
  for (const document of documents()) {
    const all = blocks(document);
    const shell = all.filter(({ language }) => language === 'sh');
    assert.deepEqual(
      all.filter(({ language }) => ['bash', 'shell', 'console'].includes(language)),
      [],
      `${document}: commands stand in blocks of sh`,
    );
    if (shell.length === 0) continue;

    test(`${document} are known, and do what they say`, async (t) => {
      const sandbox = new Sandbox(document);
      for (const { text } of all.filter(({ language }) => language === 'yaml')) {
        const name = /^# (\S+\.yaml)\n/.exec(text)?.[1];
        if (name) fs.writeFileSync(path.join(sandbox.directory, name), text);
      }
      if (!shell.some(({ text }) => /^npm install leakguard$/m.test(text))) await sandbox.install();
      for (const { line, text } of shell) {
        for (const program of programs(text)) {
          const known = [...STOOD_IN, ...AS_THEY_ARE].includes(program);
          assert.ok(known, `${document}:${line}: this test does not know how to run ${program}`);
        }
        await t.test(`line ${line}`, async () => {
          if (text.startsWith('#!')) await hook(sandbox, text);
          else await sandbox.shell(text);
        });
      }
      // What the app of the documents left is whole: an evidence directory that the guard wrote.
      const evidence = path.join(sandbox.directory, 'leakguard');
      if (shell.some(({ text }) => /node .*app\.m?js/.test(text))) {
        const names = fs.readdirSync(evidence);
        const runs = names.filter((name) => name.endsWith('.rec'));
        assert.ok(runs.length > 0, names.join('\n'));
        for (const name of runs) assert.ok(readRun(path.join(evidence, name)).samples.length > 0);
        assert.ok(
          names.some((name) => name.endsWith('.heapsnapshot')),
          names.join('\n'),
        );
      }
    });
  }
});

/**
 * Runs a script of a document as the guard runs its hook: no shell, and a path that a careless script would take apart.
 *
 * @param {Sandbox} sandbox
 * @param {string} text
 */
async function hook(sandbox, text) {
  const name = /^# (\S+\.sh): LEAKGUARD_HOOK=\/app\/\1$/m.exec(text)?.[1];
  assert.ok(
    name,
    `a script says in a comment what it is called and how it becomes the hook:\n${text}`,
  );
  const file = path.join(sandbox.directory, name);
  fs.writeFileSync(file, text, { mode: 0o755 });
  const evidence = path.join(sandbox.directory, 'evidence of $(shop)', 'Finding.1.json');
  fs.mkdirSync(path.dirname(evidence), { recursive: true });
  fs.writeFileSync(evidence, '{}');
  await sandbox.execute(file, [], {
    LEAKGUARD_FILE: evidence,
    LEAKGUARD_KIND: 'finding',
    LEAKGUARD_FINDING: '',
    LEAKGUARD_PID: '1',
    HOSTNAME: 'shop-1',
  });
  const call = sandbox.calls().at(-1);
  assert.ok(
    call?.args.some((argument) => argument.endsWith(evidence)),
    JSON.stringify(call),
  );
}

test('a command that nobody knows is a failure', async () => {
  assert.deepEqual(programs('A=1 B="2 3" frobnicate --all | head -n 1 # not this\n'), [
    'frobnicate',
    'head',
  ]);
  const sandbox = new Sandbox('unknown');
  for (const command of [
    'kubectl delete pod/shop',
    'npx no-such-program',
    'npm run no-such-script',
  ])
    await assert.rejects(sandbox.shell(command), /does not know/);
  await assert.rejects(
    sandbox.shell('aws s3 cp nowhere s3://evidence/shop/'),
    /there is no nowhere/,
  );
});

test('every setting that the commands and manifests of the documents name exists', () => {
  const { binding } = load();
  const known = binding.options().map((/** @type {{ variable: string }} */ row) => row.variable);
  for (const document of documents()) {
    for (const { line, language, text } of blocks(document)) {
      if (language !== 'sh' && language !== 'yaml') continue;
      for (const [name] of text.matchAll(/\bLEAKGUARD(_[A-Z_]+)?\b/g))
        assert.ok([...known, ...OF_THE_HOOK].includes(name), `${document}:${line}: ${name}`);
    }
  }
});

test('links between the documents lead somewhere', () => {
  for (const document of documents()) {
    const text = fs.readFileSync(path.join(ROOT, document), 'utf8');
    for (const [, target = ''] of text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (/^https?:/.test(target)) continue;
      const file = path.join(ROOT, path.dirname(document), target);
      assert.ok(fs.existsSync(file), `${document}: ${target}`);
    }
  }
});
