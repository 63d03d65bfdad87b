'use strict';

/**
 * `npm run pack:all -- --out DIR`: the tarballs of a release as far as this machine can build them: the
 * main package `leakguard`, and the platform packages `@leakguard/<triple>` with their binary. Each is
 * staged in a temporary directory, packed by npm, and its content compared with what belongs in it.
 *
 * `--only main,linux-x64-gnu` packs a part. `--binary TRIPLE=FILE` takes a binary that is built already
 * (the tests do so with the local build). It publishes nothing.
 *
 * The package.json of the repository is not the published one: here it gets the platform packages as
 * optionalDependencies, which do not exist in the registry before their release, and loses scripts,
 * development dependencies and the local binary that a plain `npm pack` includes.
 */

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { triple: localTriple } = require('../lib/load.js');
const { GLIBC_FLOOR, PLATFORMS } = require('../npm/platforms.js');
const { libraryName } = require('./build.js');
const { compareVersions, inspectElf } = require('./elf.js');
const { ROOT, filesBelow, npm, run } = require('./steps.js');

/** What the main package must hold beside the folders below: nothing more, nothing less. */
const MAIN_FILES = Object.freeze([
  'CHANGELOG.md',
  'LICENSE',
  'README.md',
  'SECURITY.md',
  'bin/leakguard.js',
  'index.d.mts',
  'index.d.ts',
  'index.js',
  'index.mjs',
  'opentelemetry.d.ts',
  'opentelemetry.js',
  'package.json',
  'prometheus.d.ts',
  'prometheus.js',
  'register.d.ts',
  'register.js',
]);

/**
 * Folders of the main package, and what of them is published: the documents too, which the types, `doctor` and the
 * README name, and what `deploy/` has for Prometheus, Grafana and Kubernetes. Anything else there is an error, but
 * for the rows behind the documents.
 *
 * @type {Readonly<Record<string, { published: RegExp, left?: RegExp }>>}
 */
const MAIN_FOLDERS = Object.freeze({
  lib: { published: /\.(js|d\.ts)$/ },
  docs: { published: /\.md$/, left: /\.json$/ },
  deploy: { published: /\.(json|yml)$/ },
});

/**
 * @typedef {object} Tarball
 * @property {string} name of the package
 * @property {string} file absolute path
 * @property {string[]} files content, sorted
 * @property {number} packedBytes
 * @property {number} unpackedBytes
 * @property {string} [note] what is worth knowing of the binary
 */

/**
 * The package.json of the repository. In a release workflow it names the repository it runs in, which
 * npm compares with the provenance of the tarball.
 *
 * @returns {Record<string, any>}
 */
function manifest() {
  const content = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: repository } = process.env;
  if (!server || !repository) return content;
  return { ...content, repository: { type: 'git', url: `git+${server}/${repository}.git` } };
}

/**
 * What a platform package is called in the file system and in its package.json.
 *
 * @param {string} triple
 */
function binaryName(triple) {
  return `leakguard.${triple}.node`;
}

/**
 * The package.json of the main package as published.
 *
 * @returns {Record<string, any>}
 */
function mainManifest() {
  const { scripts: _scripts, devDependencies: _development, files: _files, ...rest } = manifest();
  const optionalDependencies = Object.fromEntries(
    Object.keys(PLATFORMS).map((triple) => [`@leakguard/${triple}`, rest.version]),
  );
  return { ...rest, optionalDependencies };
}

/**
 * The package.json of a platform package.
 *
 * @param {string} triple
 * @returns {Record<string, any>}
 */
function platformManifest(triple) {
  const { os: system, cpu, libc } = PLATFORMS[triple];
  const { version, license, engines, repository, homepage, bugs } = manifest();
  return {
    name: `@leakguard/${triple}`,
    version,
    description: `The native binary of leakguard for ${triple}; installed by npm together with it`,
    license,
    main: binaryName(triple),
    engines,
    os: [system],
    cpu: [cpu],
    ...(libc && { libc: [libc] }),
    publishConfig: { access: 'public' },
    repository,
    homepage,
    bugs,
  };
}

/**
 * Packs a staged directory and checks what came out.
 *
 * @param {string} stage
 * @param {string} out
 * @param {string[]} expected files of the package, sorted
 * @returns {Promise<Tarball>}
 */
async function packStage(stage, out, expected) {
  const args = [
    'pack',
    '--json',
    '--ignore-scripts',
    '--loglevel=error',
    '--pack-destination',
    out,
  ];
  const printed = JSON.parse(await npm(args, { cwd: stage, capture: true }));
  // An array up to npm 11, an object by package name from npm 12 on.
  const [packed] = Array.isArray(printed) ? printed : Object.values(printed);
  const files = packed.files.map((/** @type {{ path: string }} */ file) => file.path).sort();
  if (files.join('\n') !== expected.join('\n')) {
    throw new Error(
      `${packed.name} holds [${files.join(', ')}], expected [${expected.join(', ')}]`,
    );
  }
  return {
    name: packed.name,
    file: path.join(out, path.basename(packed.filename)),
    files,
    packedBytes: packed.size,
    unpackedBytes: packed.unpackedSize,
  };
}

/**
 * Runs an action with a directory that exists only meanwhile.
 *
 * @template T
 * @param {(directory: string) => Promise<T>} action
 * @returns {Promise<T>}
 */
async function withStage(action) {
  const stage = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-pack-'));
  try {
    return await action(stage);
  } finally {
    fs.rmSync(stage, { recursive: true, force: true });
  }
}

/**
 * @param {string} directory
 * @param {Record<string, any>} content
 */
function writeManifest(directory, content) {
  fs.writeFileSync(path.join(directory, 'package.json'), `${JSON.stringify(content, null, 2)}\n`);
}

/**
 * Packs `leakguard`.
 *
 * @param {string} out
 * @returns {Promise<Tarball>}
 */
function packMain(out) {
  return withStage(async (stage) => {
    const below = Object.entries(MAIN_FOLDERS).flatMap(([folder, { published, left }]) => {
      const all = filesBelow(path.join(ROOT, folder))
        .map((file) => path.relative(ROOT, file).split(path.sep).join('/'))
        .filter((file) => !left?.test(file));
      const foreign = all.filter((file) => !published.test(file));
      if (foreign.length > 0) throw new Error(`not for publishing: ${foreign.join(', ')}`);
      return all;
    });
    const files = [...MAIN_FILES, ...below].sort();
    for (const file of files) {
      fs.mkdirSync(path.dirname(path.join(stage, file)), { recursive: true });
      fs.copyFileSync(path.join(ROOT, file), path.join(stage, file));
    }
    writeManifest(stage, mainManifest());
    return packStage(stage, out, files);
  });
}

/**
 * Checks that a binary is for the platform and loads on the oldest system that is promised.
 *
 * @param {string} triple
 * @param {string} file
 * @param {boolean} strict whether a newer glibc than the promised one is a failure
 * @returns {string} what was found
 */
function inspect(triple, file, strict) {
  const { os: system, cpu, libc } = PLATFORMS[triple];
  if (system !== 'linux') return 'not inspected: not an ELF file';
  const found = inspectElf(fs.readFileSync(file));
  if (found?.cpu !== cpu) throw new Error(`${file} is for ${found?.cpu ?? 'no Linux'}, not ${cpu}`);
  if (libc === 'musl') {
    if (found.glibc) throw new Error(`${file} asks for glibc ${found.glibc}, not for musl`);
    return 'for musl';
  }
  const floor = found.glibc ?? 'any';
  if (floor === 'any' || compareVersions(floor, GLIBC_FLOOR) <= 0) return `glibc ${floor} or newer`;
  const problem = `needs glibc ${floor}, newer than the promised ${GLIBC_FLOOR}`;
  if (strict) throw new Error(`${file} ${problem}`);
  return `${problem}: built without cargo-zigbuild, not for publishing`;
}

/**
 * Packs `@leakguard/<triple>`.
 *
 * @param {string} triple
 * @param {string} binary
 * @param {string} out
 * @param {boolean} strict
 * @returns {Promise<Tarball>}
 */
function packPlatform(triple, binary, out, strict) {
  return withStage(async (stage) => {
    const note = inspect(triple, binary, strict);
    fs.copyFileSync(binary, path.join(stage, binaryName(triple)));
    fs.copyFileSync(path.join(ROOT, 'LICENSE'), path.join(stage, 'LICENSE'));
    fs.writeFileSync(
      path.join(stage, 'README.md'),
      `# @leakguard/${triple}\n\nThe native binary of \`leakguard\` for ${triple}.\nnpm installs it together with it; there is nothing to use in it directly.\n`,
    );
    writeManifest(stage, platformManifest(triple));
    const expected = ['LICENSE', 'README.md', binaryName(triple), 'package.json'].sort();
    return { ...(await packStage(stage, out, expected)), note };
  });
}

/**
 * Whether a program runs at all.
 *
 * @param {string} program
 * @param {string[]} args
 */
function works(program, args) {
  return run(program, args, { capture: true }).then(
    () => true,
    () => false,
  );
}

/**
 * Builds the release binary of a platform: Linux through cargo-zigbuild, which links against the symbol
 * versions of an old glibc on any machine; all others, and a machine without it, through cargo.
 *
 * @param {string} triple
 * @param {boolean} zig
 * @returns {Promise<string>} path of the library
 */
async function buildFor(triple, zig) {
  const { rust, os: system, libc } = PLATFORMS[triple];
  const target = zig && libc === 'glibc' ? `${rust}.${GLIBC_FLOOR}` : rust;
  // By default Rust links musl statically, and then cannot make a library for others to load.
  const env = libc === 'musl' ? { RUSTFLAGS: '-C target-feature=-crt-static' } : {};
  await run('cargo', [zig ? 'zigbuild' : 'build', '--release', '--locked', '--target', target], {
    env,
  });
  const directory = process.env.CARGO_TARGET_DIR ?? 'target';
  return path.resolve(ROOT, directory, rust, 'release', libraryName(system));
}

/**
 * The platforms whose Rust target is installed and that can be linked here.
 *
 * @param {boolean} zig
 * @returns {Promise<string[]>}
 */
async function buildable(zig) {
  const here = localTriple();
  const found = [];
  for (const [triple, { rust, os: system }] of Object.entries(PLATFORMS)) {
    const linked = triple === here || (zig && system === 'linux') || system === process.platform;
    if (!linked) continue;
    const args = ['--print', 'target-libdir', '--target', rust];
    const library = (await run('rustc', args, { capture: true })).trim();
    if (fs.existsSync(library)) found.push(triple);
  }
  return found;
}

/**
 * @typedef {object} PackOptions
 * @property {string} out where the tarballs go; made if missing
 * @property {string[]} [only] `main` and triples; default: the main package and all that can be built
 * @property {Record<string, string>} [binaries] by triple, what need not be built
 */

/**
 * Makes the tarballs.
 *
 * @param {PackOptions} options
 * @returns {Promise<Tarball[]>}
 */
async function pack({ out, only, binaries = {} }) {
  const destination = path.resolve(out);
  fs.mkdirSync(destination, { recursive: true });
  const given = Object.keys(binaries);
  const wanted = only?.filter((name) => name !== 'main');
  const unknown = [...given, ...(wanted ?? [])].find((name) => !(name in PLATFORMS));
  if (unknown) throw new Error(`no such platform: ${unknown}; there is ${Object.keys(PLATFORMS)}`);

  /** @type {Tarball[]} */
  const tarballs = [];
  if (!only || only.includes('main')) tarballs.push(await packMain(destination));
  const needsBuild = wanted ? wanted.some((triple) => !binaries[triple]) : given.length === 0;
  const zig = needsBuild && (await works('cargo', ['zigbuild', '--help']));
  const triples = wanted ?? (needsBuild ? await buildable(zig) : given);
  for (const triple of triples) {
    const binary = binaries[triple] ?? (await buildFor(triple, zig));
    tarballs.push(await packPlatform(triple, binary, destination, zig));
  }
  return tarballs;
}

/** @param {number} bytes */
function kilobytes(bytes) {
  return `${Math.ceil(bytes / 1024)} KB`;
}

async function main() {
  const { values } = parseArgs({
    options: {
      out: { type: 'string' },
      only: { type: 'string' },
      binary: { type: 'string', multiple: true },
    },
  });
  if (!values.out)
    throw new Error('usage: npm run pack:all -- --out DIR [--only NAME,…] [--binary TRIPLE=FILE]');
  const tarballs = await pack({
    out: values.out,
    only: values.only?.split(','),
    binaries: Object.fromEntries((values.binary ?? []).map((given) => given.split('=', 2))),
  });
  for (const { name, file, files, packedBytes, unpackedBytes, note } of tarballs) {
    console.log(`\n${name}: ${file}`);
    console.log(
      `  ${kilobytes(packedBytes)} packed, ${kilobytes(unpackedBytes)} unpacked${note ? `, ${note}` : ''}`,
    );
    for (const content of files) console.log(`  ${content}`);
  }
}

module.exports = { MAIN_FILES, mainManifest, pack, platformManifest };

if (require.main === module) {
  main().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
