'use strict';

/** Preload entry: `node -r leakguard/register app.js`, `node --import leakguard/register app.mjs`. */
require('./index.js');
