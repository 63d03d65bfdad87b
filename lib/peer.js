'use strict';

/**
 * Requires an optional peer dependency of the app.
 *
 * @param {string} name of the package
 * @param {string} by the module of ours that needs it
 * @param {() => any} load
 * @returns {any}
 * @throws Error (`ERR_LEAKGUARD_PEER`) if it is not installed
 */
function peer(name, by, load) {
  try {
    return load();
  } catch (cause) {
    if (/** @type {any} */ (cause)?.code !== 'MODULE_NOT_FOUND') throw cause;
    const message = `${by} needs ${name}, which is not installed: npm install ${name}`;
    throw Object.assign(new Error(message, { cause }), { code: 'ERR_LEAKGUARD_PEER' });
  }
}

module.exports = { peer };
