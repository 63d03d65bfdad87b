'use strict';

// Stands in for a program that the documents name: `command.js NAME ARGUMENT...`. What works without network and
// cluster is really done (npm installs the packed tarballs, npx runs the installed leakguard, also for `kubectl exec`);
// of the rest it is checked that the arguments are ones the program has and that the files they name are there. Each
// call is a line of JSON in DOCS_LOG. An argument it does not know ends it with 64, so that no command of the documents
// passes unlooked at.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const [name = '', ...args] = process.argv.slice(2);

/** @param {string} variable */
function given(variable) {
  const value = process.env[variable];
  if (value === undefined) throw new Error(`${variable} is not set`);
  return value;
}

/** @returns {never} */
function unknown() {
  throw new Error(`test/docs/command.js does not know: ${name} ${args.join(' ')}`);
}

/** @param {string} file */
function there(file) {
  if (!fs.existsSync(file)) throw new Error(`${name}: there is no ${file}`);
}

/**
 * @param {string} program
 * @param {string[]} programArgs
 */
function run(program, programArgs) {
  const { status, error } = spawnSync(program, programArgs, { stdio: 'inherit' });
  if (error) throw error;
  return status ?? 1;
}

/** @param {string[]} npxArgs */
function npx(npxArgs) {
  const [program, ...rest] = npxArgs;
  if (program === 'leakguard') {
    const command = path.resolve('node_modules', 'leakguard', 'bin', 'leakguard.js');
    return run(process.execPath, [command, ...rest]);
  }
  // No server runs here to be put under load.
  if (program === 'autocannon' && rest[0] === '-d' && /^\d+$/.test(rest[1] ?? '')) {
    new URL(rest[2] ?? '');
    return 0;
  }
  return unknown();
}

/** @type {Record<string, () => number>} */
const PROGRAMS = {
  npm() {
    if (args.length === 2 && args[0] === 'install' && args[1] === 'leakguard') {
      const tarballs = JSON.parse(given('DOCS_TARBALLS'));
      const quiet = ['--offline', '--no-audit', '--no-fund', '--loglevel=error'];
      return run(process.execPath, [given('DOCS_NPM'), 'install', ...quiet, ...tarballs]);
    }
    // Scripts of a checkout: each has tests of its own, here only its name is looked at.
    const script = args[0] === 'run' ? args[1] : args[0];
    const { scripts } = JSON.parse(
      fs.readFileSync(path.join(__dirname, '..', '..', 'package.json'), 'utf8'),
    );
    if ((args[0] === 'run' || args[0] === 'test') && script && script in scripts) return 0;
    return unknown();
  },

  // An hour of fuzzing with a nightly compiler: that its target and its dictionary are there.
  cargo() {
    const [toolchain, verb, run, target = '', dashes, ...options] = args;
    if (`${toolchain} ${verb} ${run} ${dashes}` !== '+nightly fuzz run --') return unknown();
    const root = path.join(__dirname, '..', '..');
    there(path.join(root, 'fuzz', 'fuzz_targets', `${target}.rs`));
    for (const option of options) {
      const [, key, value = ''] = /^-(\w+)=(.+)$/.exec(option) ?? unknown();
      if (key === 'dict') there(path.join(root, value));
      else if (!/^(max_total_time|rss_limit_mb)$/.test(key ?? '') || !/^\d+$/.test(value)) {
        return unknown();
      }
    }
    return 0;
  },

  npx: () => npx(args),

  kubectl() {
    const [verb, ...rest] = args;
    const target = /^(deploy|pod)\/[a-z0-9-]+$/;
    if (verb === 'apply' && rest[0] === '-f' && rest.length === 2) {
      const text = fs.readFileSync(rest[1] ?? '', 'utf8');
      if (!/^kind: \w+$/m.test(text)) throw new Error(`${rest[1]} is no manifest`);
      return 0;
    }
    if (verb === 'exec' && target.test(rest[0] ?? '') && rest[1] === '--') {
      const inside = rest.slice(2);
      if (inside[0] === 'npx') return npx(inside.slice(1));
      if (inside.join(' ') === 'kill -USR2 1') return 0;
      return unknown();
    }
    if (verb === 'logs' && target.test(rest[0] ?? '') && rest[1] === '--previous') return 0;
    if (verb === 'debug' && rest[0] === '-it' && target.test(rest[1] ?? '')) {
      return rest.slice(2).every((option) => /^--(image|target)=\w+$/.test(option)) ? 0 : unknown();
    }
    const source = /^[a-z0-9-]+:(\/.+)$/;
    if (verb === 'cp' && rest.length === 2 && source.test(rest[0] ?? '')) {
      // The evidence of the pod is that of the app that ran here.
      fs.cpSync('leakguard', rest[1] ?? '', { recursive: true });
      return 0;
    }
    return unknown();
  },

  aws() {
    const [service, verb, file = '', to = '', ...rest] = args;
    if (service !== 's3' || verb !== 'cp' || rest.length > 0) return unknown();
    there(file);
    return /^s3:\/\/[a-z]+\/.*\/$/.test(to) ? 0 : unknown();
  },

  curl() {
    for (let at = 0; at < args.length; at++) {
      const argument = args[at] ?? '';
      if (argument === '-F') {
        const [, , file] = /^(\w+)=(?:@(.+)|.+)$/s.exec(args[++at] ?? '') ?? unknown();
        if (file !== undefined) there(file);
      } else if (argument !== '-fsS' && !argument.startsWith('https://')) return unknown();
    }
    return 0;
  },
};

try {
  fs.appendFileSync(given('DOCS_LOG'), `${JSON.stringify({ name, args })}\n`);
  process.exitCode = (PROGRAMS[name] ?? unknown)();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 64;
}

module.exports = { PROGRAMS: Object.keys(PROGRAMS) };
