'use strict';

/**
 * The measured program's end of the conversation: answers questions with the functions it is given, and ends
 * when nobody asks any more.
 *
 * @param {Record<string, (argument: any) => unknown>} functions
 */
function answer(functions) {
  process.on('message', async (/** @type {any} */ { number, what, argument }) => {
    try {
      process.send?.({ number, answer: (await functions[what](argument)) ?? null });
    } catch (error) {
      process.send?.({ number, error: String(error) });
    }
  });
  process.on('disconnect', () => process.exit(0));
}

/** @returns {any} what the bench gave this program */
function settings() {
  return JSON.parse(process.argv[2] ?? '{}');
}

module.exports = { answer, settings };
