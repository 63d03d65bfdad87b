'use strict';

/**
 * `npm run update`: rewrites what the tests compare with (expected outputs in the Rust sources and
 * beside the JS tests) and formats everything. What it changed is to be read in `git diff` before it
 * is committed: it makes any answer the expected one.
 */

const { setup } = require('./setup.js');
const { Steps, run, tool } = require('./steps.js');
const { testArguments } = require('./check.js');

async function main() {
  const steps = new Steps();
  const env = { UPDATE_EXPECT: '1' };
  if (await steps.step('set-up', setup)) {
    await steps.step('expected outputs of the Rust tests', () =>
      run('cargo', ['test', '--locked'], { env }),
    );
    await steps.step('expected outputs of the JavaScript tests', () =>
      run(process.execPath, testArguments(), { env }),
    );
    await steps.step('cargo fmt', () => run('cargo', ['fmt']));
    await steps.step('biome', () => tool('@biomejs/biome/bin/biome', ['check', '--write']));
  }
  steps.summary();
}

main();
