'use strict';

/** Nothing: what `require` itself costs. */
