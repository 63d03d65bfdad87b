'use strict';

/**
 * `npm test`: everything, from a fresh clone with Rust, Node and npm alone. Set-up, lints and types,
 * the JS tests, the Rust tests. Names of test files as arguments run only those, without the rest:
 * `npm test -- test/package.test.js`.
 */

const path = require('node:path');
const { lint, test, testArguments } = require('./check.js');
const { setup } = require('./setup.js');
const { ROOT, Steps, run } = require('./steps.js');
const { installMissing } = require('./system.js');

async function main() {
  const files = process.argv.slice(2).map((file) => path.resolve(ROOT, file));
  const steps = new Steps();
  if (await steps.step('set-up', setup)) {
    if (files.length > 0) {
      await steps.step('the tests asked for', () =>
        run(process.execPath, testArguments({ files })),
      );
    } else {
      await steps.step('system packages', installMissing);
      await lint(steps);
      await test(steps);
    }
  }
  steps.summary();
}

main();
