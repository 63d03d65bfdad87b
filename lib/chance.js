'use strict';

/** Random numbers of our own: the app's `Math.random` may be seeded, and must not see what we draw. */

/** State of a xorshift generator (Marsaglia, "Xorshift RNGs", 2003: shifts 13, 17, 5). */
let state = (Number(process.hrtime.bigint() & 0x7fffffffn) | 1) >>> 0;

/** @returns {number} above 0, below 1 */
function random() {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  state >>>= 0;
  return (state + 0.5) / 2 ** 32;
}

module.exports = { random };
