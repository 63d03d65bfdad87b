'use strict';

/**
 * The scrape without a guard: off, stopped, or without its binary. A database still sees that the process is
 * there and not guarded, and a person who opens the page sees why. What a running guard shows is written by
 * the native library.
 */

/** As in the native table of families; a test compares. */
const UP = `# HELP leakguard_up whether the guard's native thread samples (1) or not (0)
# TYPE leakguard_up gauge
leakguard_up 0
`;

/**
 * @param {string} why
 * @returns {string} Prometheus text
 */
function unguarded(why) {
  const comment = why.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 500);
  return `# leakguard: ${comment}\n${UP}`;
}

module.exports = { unguarded };
