'use strict';
// A heap whose names are attacks on a page that shows them: property, function and event names, keys and values. Each sets `globalThis.hit` if it runs. Written to the file named on the command line.

const { EventEmitter } = require('node:events');
const v8 = require('node:v8');

const ATTACKS = [
  '</script><script>globalThis.hit=1</script>',
  '"><img src=x onerror="globalThis.hit=2">',
  "'><svg onload=globalThis.hit=3>",
  ']]><script>globalThis.hit=4</script><!--',
  '\u2028globalThis.hit=5\u2029;',
  '</style><script>globalThis.hit=6</script>',
  '</noscript><script>globalThis.hit=7</script>',
  '</title><script>globalThis.hit=8</script>',
  'javascript:globalThis.hit=9',
  '--><script>globalThis.hit=10</script>',
  '{{constructor.constructor("globalThis.hit=11")()}}',
];

/** @type {any} */
const kept = {};
for (const [index, attack] of ATTACKS.entries()) {
  class Kept {}
  const emitter = new EventEmitter();
  emitter.setMaxListeners(0);
  kept[attack] = new Map();
  for (let item = 0; item < 3000; item++) {
    /** @type {any} */
    const instance = new Kept();
    instance[attack] = `${attack} ${item}`;
    kept[attack].set(`${attack} key ${item}`, instance);
    const listener = { [attack]: () => instance }[attack];
    if (item < 200 + index) emitter.on(attack, listener);
  }
  kept[`emitter ${attack}`] = emitter;
}
Object.assign(globalThis, { [ATTACKS[0]]: kept });

v8.writeHeapSnapshot(process.argv[2]);
