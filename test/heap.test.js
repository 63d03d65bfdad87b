'use strict';

// The analyzer against real snapshots: equal to DevTools for every node, right about what leaks, silent about
// what does not, and honest about files that are cut, compressed, redacted or not snapshots at all.

const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const zlib = require('node:zlib');
const { installPackages } = require('../scripts/setup.js');
const apps = require('./apps/index.js');
const { HELD_BY, answer, snapshots } = require('./heap-drive.js');
const { MAJORS, nodeBinary } = require('./matrix/nodes.js');

const CLI = path.join(__dirname, '..', 'bin', 'leakguard.js');
const ORACLE = path.join(__dirname, 'oracle');
const SPECIMEN = path.join(__dirname, 'heap-specimen.js');
const SECRETS = path.join(__dirname, 'heap-secrets.js');
const DEADLINE_MS = 120_000;

/** @type {string} */
let directory;

before(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-heap-'));
});
after(() => fs.rmSync(directory, { recursive: true, force: true }));

/**
 * Runs a program to its end.
 * @param {string} file
 * @param {string[]} args
 * @returns {Promise<{ code: number | null, stdout: string, stderr: string }>}
 */
function run(file, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { env: { ...process.env, LEAKGUARD: 'off' } });
    const timer = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
    const output = { stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text) => {
      output.stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      output.stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, ...output });
    });
  });
}

/**
 * Runs a program that must succeed.
 * @param {string} file
 * @param {string[]} args
 */
async function succeed(file, args) {
  const result = await run(file, args);
  assert.strictEqual(result.code, 0, `${file} ${args.join(' ')}\n${result.stderr}${result.stdout}`);
  return result.stdout;
}

/** @param {string[]} args */
const leakguard = (...args) => run(process.execPath, [CLI, ...args]);

/**
 * The report of a verb as JSON.
 * @param {string[]} args
 */
async function report(...args) {
  return JSON.parse(await succeed(process.execPath, [CLI, ...args, '--json']));
}

/** @param {string} name */
const inDirectory = (name) => path.join(directory, name);

/**
 * Every node's distance, dominator, retained and shallow size, as the analyzer writes them.
 * @param {string} file
 */
async function columns(file) {
  const out = `${file}.columns`;
  await succeed(process.execPath, [CLI, 'analyze', file, '--columns', out, '--top', '1']);
  return fs.readFileSync(out);
}

/**
 * A specimen heap of the running Node, made once.
 * @returns {Promise<string>}
 */
function specimen() {
  made ??= (async () => {
    const file = inDirectory('specimen.heapsnapshot');
    await succeed(process.execPath, [SPECIMEN, file, '500']);
    return file;
  })();
  return made;
}
/** @type {Promise<string> | undefined} */
let made;

describe('every node equals that of the DevTools worker', () => {
  before(async () => {
    await installPackages(ORACLE);
    await succeed(process.execPath, [path.join(ORACLE, 'build.mjs')]);
  });

  for (const major of MAJORS) {
    test(`on Node ${major}: main thread and worker`, async () => {
      const files = ['main', 'worker'].map((name) => inDirectory(`${name}-${major}.heapsnapshot`));
      await succeed(nodeBinary(major), [SPECIMEN, files[0], '2000', files[1]]);
      for (const file of files) {
        const theirs = `${file}.devtools`;
        await succeed(process.execPath, [path.join(ORACLE, 'oracle.mjs'), file, '--dump', theirs]);
        const expected = fs.readFileSync(theirs);
        assert.ok(expected.readUInt32LE(0) > 50_000, 'a heap worth comparing');
        const ours = await columns(file);
        assert.ok(ours.equals(expected), `${path.basename(file)}: ${differences(ours, expected)}`);
      }
    });
  }
});

/**
 * How many nodes differ, by column.
 * @param {Buffer} ours
 * @param {Buffer} theirs
 */
function differences(ours, theirs) {
  const nodes = theirs.readUInt32LE(0);
  if (ours.length !== theirs.length) return `${ours.length} bytes instead of ${theirs.length}`;
  let at = 4;
  const counts = Object.entries({ distance: 4, dominator: 4, retained: 8, shallow: 8 }).map(
    ([column, width]) => {
      let different = 0;
      for (let node = 0; node < nodes; node++, at += width) {
        if (ours.compare(theirs, at, at + width, at, at + width) !== 0) different += 1;
      }
      return `${column} ${different}`;
    },
  );
  return `nodes that differ of ${nodes}: ${counts.join(', ')}`;
}

describe('leaking programs', () => {
  for (const name of ['map-cache', 'listener-per-request', 'abort-signal', 'closure-chain']) {
    test(`${name}: analyze has the leak in the first three, diff has it first`, async () => {
      const app = apps.find(name);
      const portions = [300, 500, 500].map((requests) => ({ requests, ms: 30_000 }));
      const files = await snapshots(app, { directory, portions, speed: 6 });
      const single = answer(app, (await report('analyze', files[2])).suspects);
      assert.ok(single && single.rank <= 3 && single.line, JSON.stringify(single));
      for (const some of [files, [files[0], files[2]]]) {
        const comparison = await report('diff', ...some);
        assert.strictEqual(comparison.identity.by, 'node_ids');
        const told = comparison.suspects.map(
          (/** @type {{ sentence: string }} */ suspect) => suspect.sentence,
        );
        assert.deepStrictEqual(answer(app, comparison.suspects), { rank: 1, line: true }, told);
      }
    });
  }

  test('snapshots of two processes are compared by signature, and the leak is first again', async () => {
    const app = apps.find('map-cache');
    const other = inDirectory('other');
    fs.mkdirSync(other);
    const portion = (/** @type {number} */ requests) => [{ requests, ms: 30_000 }];
    const [before] = await snapshots(app, { directory: other, portions: portion(300), speed: 6 });
    const renamed = `${before}.first`;
    fs.renameSync(before, renamed);
    const [later] = await snapshots(app, { directory: other, portions: portion(1500), speed: 6 });
    const comparison = await report('diff', renamed, later);
    assert.strictEqual(comparison.identity.by, 'signatures', comparison.identity.reason);
    assert.deepStrictEqual(answer(app, comparison.suspects), { rank: 1, line: true });
  });

  test('every leaking program that holds JS objects has a known answer', () => {
    const silent = ['file-descriptors', 'tls-contexts', 'worker-threads'];
    const names = apps.LEAKING.map(({ name }) => name).filter((name) => !silent.includes(name));
    assert.deepStrictEqual(
      names.filter((name) => !HELD_BY[name]),
      [],
    );
  });
});

describe('healthy programs', () => {
  for (const name of ['listeners-removed', 'sawtooth-garbage', 'lru-cache']) {
    test(`${name}: diff has no suspect`, async () => {
      const app = apps.find(name);
      // The first portion fills what has a bound.
      const portions = [3000, 600, 600].map((requests) => ({ requests, ms: 40_000 }));
      const files = await snapshots(app, { directory, portions, speed: 8 });
      const { suspects } = await report('diff', ...files);
      assert.deepStrictEqual(
        suspects.map((/** @type {{ sentence: string }} */ suspect) => suspect.sentence),
        [],
      );
    });
  }
});

describe('files', () => {
  test('gzip and zstd give the same report as the plain file', async () => {
    const file = await specimen();
    const expected = await report('analyze', file);
    const text = fs.readFileSync(file);
    /** @type {Record<string, (text: Buffer) => Buffer>} */
    const compressors = { gz: zlib.gzipSync };
    if (zlib.zstdCompressSync) compressors.zst = zlib.zstdCompressSync;
    for (const [extension, compress] of Object.entries(compressors)) {
      const compressed = `${file}.${extension}`;
      fs.writeFileSync(compressed, compress(text));
      const found = await report('analyze', compressed);
      found.snapshot.file = expected.snapshot.file;
      assert.deepStrictEqual(found, expected);
    }
  });

  test('a truncated file gives what it held and says where it ends', async () => {
    const text = fs.readFileSync(await specimen());
    const cut = inDirectory('cut.heapsnapshot');
    /** @type {[string, string, number][]} */
    const places = [
      ['nodes', '"nodes":[', 5000],
      ['edges', '"edges":[', 5000],
      ['strings', '"strings":[', 5000],
    ];
    for (const [section, begin, more] of places) {
      const offset = text.indexOf(begin) + more;
      fs.writeFileSync(cut, text.subarray(0, offset));
      const { snapshot, class_count, notes } = await report('analyze', cut);
      assert.deepStrictEqual(snapshot.truncated, { section, offset });
      assert.ok(snapshot.kinds.length > 0);
      assert.strictEqual(class_count > 0, section === 'strings');
      assert.strictEqual(notes.length, 1);
    }
  });

  test('a compressed file that is cut is read as far as it goes', async () => {
    const whole = zlib.gzipSync(fs.readFileSync(await specimen()));
    const cut = inDirectory('cut.heapsnapshot.gz');
    fs.writeFileSync(cut, whole.subarray(0, whole.length / 2));
    const { snapshot } = await report('analyze', cut);
    assert.ok(snapshot.truncated);
  });

  test('what is no snapshot is refused with the offset', async () => {
    const file = inDirectory('wrong.heapsnapshot');
    for (const [text, expected] of [
      ['', /byte 0/],
      ['PK\x03\x04', /expected '\{' at byte 0/],
      ['{"snapshot":{"meta":{}}}', /expected the snapshot's header .* at byte \d+/],
    ]) {
      fs.writeFileSync(file, /** @type {string} */ (text));
      const { code, stderr } = await leakguard('analyze', file);
      assert.strictEqual(code, 2);
      assert.match(stderr, /** @type {RegExp} */ (expected));
    }
    assert.strictEqual((await leakguard('analyze', inDirectory('absent'))).code, 2);
  });
});

describe('redaction', () => {
  /** @type {string[]} */
  let secrets;
  /** @type {string} */
  let file;
  before(async () => {
    file = inDirectory('secrets.heapsnapshot');
    secrets = JSON.parse(await succeed(process.execPath, [SECRETS, file]));
    const text = fs.readFileSync(file, 'latin1');
    for (const secret of secrets) assert.ok(text.includes(secret), `${secret} is in the snapshot`);
  });

  for (const [mode, flags] of Object.entries({ strings: [], keys: ['--keys'] })) {
    test(`${mode}: no secret is left and every figure stays`, async () => {
      const out = inDirectory(`redacted-${mode}.heapsnapshot`);
      assert.strictEqual((await leakguard('redact', file, out, ...flags)).code, 0);
      const text = fs.readFileSync(out, 'latin1');
      const left = secrets.filter((secret) => text.includes(secret));
      // Property names explain a heap: they stay unless asked for.
      assert.deepStrictEqual(
        left,
        mode === 'keys' ? [] : left.filter((each) => each.startsWith('key-')),
      );
      JSON.parse(text);
      assert.ok((await columns(out)).equals(await columns(file)));
      assert.strictEqual(fs.statSync(out).mode & 0o777, 0o600);
    });
  }

  test('a second redaction has other hashes, and .zst is compressed', async () => {
    const [plain, packed] = ['again.heapsnapshot', 'again.heapsnapshot.zst'].map(inDirectory);
    for (const out of [plain, packed]) {
      assert.strictEqual((await leakguard('redact', file, out)).code, 0);
    }
    assert.ok(fs.statSync(packed).size * 3 < fs.statSync(plain).size);
    const first = fs.readFileSync(inDirectory('redacted-strings.heapsnapshot'));
    assert.ok(!fs.readFileSync(plain).equals(first));
    const [a, b] = [await report('analyze', plain), await report('analyze', packed)];
    assert.deepStrictEqual(
      { ...a.snapshot, file: '', text_bytes: 0 },
      { ...b.snapshot, file: '', text_bytes: 0 },
    );
  });

  test('a truncated file is not redacted, and nothing is left behind', async () => {
    const cut = inDirectory('cut-secrets.heapsnapshot');
    fs.writeFileSync(cut, fs.readFileSync(file).subarray(0, -1000));
    const out = inDirectory('never.heapsnapshot');
    assert.strictEqual((await leakguard('redact', cut, out)).code, 2);
    assert.deepStrictEqual(
      fs.readdirSync(directory).filter((name) => name.startsWith('never')),
      [],
    );
  });
});

describe('the command line', () => {
  test('exit codes', async () => {
    const file = await specimen();
    for (const [args, code] of /** @type {[string[], number][]} */ ([
      [['analyze', file], 0],
      [['--help'], 0],
      [['analyze', file, '--fail-on-suspects'], 1],
      [['diff', file, file, '--fail-on-suspects', '--fail-on-growth', '1MB'], 0],
      [[], 2],
      [['analyse', file], 2],
      [['analyze', file, '--top', 'many'], 2],
      [['diff', file], 2],
      [['analyze', file, '--memory', '1MB'], 3],
    ])) {
      const result = await leakguard(...args);
      assert.strictEqual(result.code, code, `${args.join(' ')}: ${result.stderr}`);
      if (code === 3) assert.match(result.stderr, /refused: .* takes about .* are available/);
      // Progress is for terminals.
      if (code === 0) assert.strictEqual(result.stderr, '');
    }
  });

  test('growth beyond the limit fails', async () => {
    const [small, large] = ['small', 'large'].map((name) => inDirectory(`${name}.heapsnapshot`));
    await succeed(process.execPath, [SPECIMEN, small, '100']);
    await succeed(process.execPath, [SPECIMEN, large, '3000']);
    assert.strictEqual(
      (await leakguard('diff', small, large, '--fail-on-growth', '500KB')).code,
      1,
    );
    assert.strictEqual((await leakguard('diff', small, large, '--fail-on-growth', '1GB')).code, 0);
  });

  test('--path and --class answer for one node and one class', async () => {
    const file = await specimen();
    const { details } = await report('analyze', file, '--class', 'Customer', '--top', '3');
    const [{ class: row, largest, path: steps }] = details;
    assert.strictEqual(row.count, 500);
    assert.strictEqual(largest.length, 3);
    const again = await report('analyze', file, '--path', `@${largest[0].id}`);
    assert.deepStrictEqual(again.details[0].path, steps);
    assert.strictEqual(steps.at(-1).node.class_name, 'Customer');
    const unknown = await report('analyze', file, '--class', 'Nobody', '--path', '@4294967295');
    assert.strictEqual(unknown.notes.length, 2);
  });

  test('the JSON has no field that docs/SNAPSHOT-JSON.md does not name', async () => {
    const file = await specimen();
    const docs = fs.readFileSync(path.join(__dirname, '..', 'docs', 'SNAPSHOT-JSON.md'), 'utf8');
    const keys = new Set();
    const collect = (/** @type {any} */ value) => {
      if (Array.isArray(value)) value.forEach(collect);
      else if (value && typeof value === 'object') {
        for (const [key, inner] of Object.entries(value)) {
          keys.add(key);
          collect(inner);
        }
      }
    };
    collect(await report('analyze', file, '--class', 'Customer', '--path', '@1'));
    collect(await report('diff', file, file));
    assert.deepStrictEqual(
      [...keys].filter((key) => !docs.includes(`\`${key}\``)),
      [],
    );
  });
});

describe('findings', () => {
  test('a finding that names the snapshot is joined and judged', async () => {
    const folder = inDirectory('evidence');
    fs.mkdirSync(folder);
    const name = 'Heap.20250102.030405.77.0.001.heapsnapshot';
    fs.copyFileSync(await specimen(), path.join(folder, name));
    const lines = fs.readFileSync(SPECIMEN, 'utf8').split('\n');
    const line = lines.findIndex((text) => text.includes("on('tick', () => index)")) + 1;
    const finding = (/** @type {number} */ at, /** @type {string} */ seq) => {
      const content = {
        schema: 1,
        kind: 'finding',
        id: seq,
        time: '2025-01-02T03:04:05Z',
        sentence: 'listeners grow',
        cause: { kind: 'listeners', site: { file: SPECIMEN, line: at }, event: 'tock', count: 100 },
        series: [{ id: 'listeners', unit: 'count', slopePerHour: 60, points: [[1, 2]] }],
        evidence: [{ kind: 'snapshot', state: 'written', file: name }],
      };
      const file = `Finding.20250102.030405.77.0.${seq}.json`;
      fs.writeFileSync(path.join(folder, file), JSON.stringify(content));
    };
    finding(line, '001');
    finding(1, '002');
    fs.writeFileSync(path.join(folder, 'Finding.20250102.030405.77.0.003.json'), '{"kind":"fin');
    const { findings } = await report('analyze', path.join(folder, name));
    assert.deepStrictEqual(
      findings.map((/** @type {any} */ found) => [found.id, found.verdict]),
      [
        ['001', 'confirmed'],
        ['002', 'refuted'],
      ],
    );
    assert.match(
      findings[0].verdict_sentence,
      /heap-specimen\.js:\d+; the snapshot holds 100 closures/,
    );
  });
});
