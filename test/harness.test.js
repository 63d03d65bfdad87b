'use strict';

// The harness itself, with small scripts in place of the programs and of the guard.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, describe, test } = require('node:test');
const { startApp } = require('./harness.js');

const DEADLINE_MS = 20_000;

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'harness-test-'));
after(() => fs.rmSync(scratch, { recursive: true, force: true }));

/**
 * @param {string} name
 * @param {string} source
 */
function script(name, source) {
  const file = path.join(scratch, name);
  fs.writeFileSync(file, source);
  return file;
}

const server = script(
  'server.js',
  `require('node:http').createServer((req, res) => res.end()).listen(0, '127.0.0.1', function () {
    process.send({ port: this.address().port });
  });
  process.once('disconnect', () => process.exit(0));`,
);

/** Writes a finding each time the app is asked for one, as the guard does: a temporary name, then the final one. */
const standIn = script(
  'stand-in.js',
  `const fs = require('node:fs');
  const path = require('node:path');
  let seq = 0;
  process.on('message', ({ series }) => {
    const file = path.join(process.env.LEAKGUARD_DIR, 'Finding.20260101.000000.1.0.00' + ++seq + '.json');
    fs.writeFileSync(file + '.part', JSON.stringify({ id: String(seq), series: [{ id: series }], evidence: [] }));
    fs.renameSync(file + '.part', file);
  });`,
);

describe('harness', () => {
  test('exit_code_and_output_of_a_script_are_reported', async () => {
    const source = `console.log('out'); console.error('err'); process.exitCode = 7; process.disconnect();`;
    const running = await startApp(script('seven.js', source), {
      guarded: false,
      waitForPort: false,
    });
    assert.deepEqual(await running.exit, { code: 7, signal: null });
    assert.equal(running.stdout, 'out\n');
    assert.equal(running.stderr, 'err\n');
    assert.deepEqual(await running.stop(), { code: 7, signal: null });
  });

  test('a_finding_that_is_accepted_ends_the_wait', async () => {
    const running = await startApp(server, { register: standIn });
    try {
      const waiting = running.waitForFinding(
        DEADLINE_MS,
        (finding) => finding.series[0].id === 'fds',
      );
      running.child.send({ series: 'live_heap' });
      running.child.send({ series: 'fds' });
      assert.equal((await waiting).id, '2');
      assert.equal(running.findings().length, 2);
    } finally {
      await running.stop();
    }
  });

  test('an_app_that_ends_first_rejects_the_wait_with_what_it_said', async () => {
    const source = `console.error('no memory left'); process.exitCode = 3; process.disconnect();`;
    const running = await startApp(script('dies.js', source), {
      guarded: false,
      waitForPort: false,
    });
    await assert.rejects(running.waitForFinding(DEADLINE_MS), /code 3.*no memory left/s);
    await running.stop();
  });

  test('an_app_that_never_listens_is_an_error_not_a_wait', async () => {
    const source = 'process.disconnect();';
    await assert.rejects(
      startApp(script('mute.js', source), { guarded: false }),
      /before its port/,
    );
  });

  test('stop_is_safe_twice_and_removes_the_directory', async () => {
    const running = await startApp(server, { guarded: false });
    assert.deepEqual(await running.stop(), { code: 0, signal: null });
    assert.deepEqual(await running.stop(), { code: 0, signal: null });
    assert.equal(fs.existsSync(running.dir), false);
  });

  test('the_environment_of_the_guard_does_not_leak_into_an_unguarded_app', async () => {
    process.env.LEAKGUARD_WINDOW = '5h';
    try {
      const source = `console.log(Object.keys(process.env).filter((n) => n.startsWith('LEAKGUARD')).length); process.disconnect();`;
      const running = await startApp(script('env.js', source), {
        guarded: false,
        waitForPort: false,
      });
      await running.exit;
      assert.equal(running.stdout, '0\n');
    } finally {
      delete process.env.LEAKGUARD_WINDOW;
    }
  });
});
