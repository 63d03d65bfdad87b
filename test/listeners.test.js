'use strict';

// lib/listeners.js in real programs: what is counted, where it is said to come from, and that nobody who uses or
// patches EventEmitter can tell that it is there.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { ask, temporary } = require('./program.js');

/**
 * A program that adds listeners, waits until `event` is reported and prints all lines and what `extra` says.
 * `lines()` gives the lines now.
 *
 * @param {string} body
 * @param {string} [event]
 */
const counting = (body, event = 'tick') => `
  const { EventEmitter } = require('node:events');
  const leakguard = require(process.env.GUARD);
  const lines = () => leakguard.status().isolates[0]?.series.listeners?.top ?? [];
  const line = (name) => lines().find((one) => one.event === name);
  const many = (n, add) => { for (let i = 0; i < n; i++) add(() => {}); };
  let extra = () => null;
  ${body}
  ;(async () => {
    await until(() => line(${JSON.stringify(event)}));
    process.stdout.write(JSON.stringify({ lines: lines(), extra: await extra() }));
  })();`;

/** @param {any} report @param {string} event */
const line = (report, event) => report.lines.find((/** @type {any} */ one) => one.event === event);

test('lists of eight are counted, shorter ones are not, and what is removed is gone', async (t) => {
  const source = counting(`
    const bus = new EventEmitter().setMaxListeners(0);
    many(7, (f) => bus.on('few', f));
    many(8, (f) => bus.on('eight', f));
    many(40, (f) => bus.on('tick', f));
    extra = async () => {
      bus.removeAllListeners('tick');
      bus.on('tick', () => {});
      return until(() => line('tick')?.count === 1 && line('tick'));
    };`);
  const { report } = await ask(t, source);
  assert.equal(line(report, 'few'), undefined);
  assert.equal(line(report, 'eight').count, 8);
  assert.equal(line(report, 'tick').count, 40);
  assert.equal(report.extra.count, 1);
});

test('once, prepend, subclasses, streams, process, symbols and silenced emitters are counted', async (t) => {
  const source = counting(`
    class Room extends EventEmitter {}
    const room = new Room().setMaxListeners(0);
    many(10, (f) => room.once('once', f));
    many(10, (f) => room.prependListener('prepend', f));
    many(10, (f) => room.prependOnceListener('prependOnce', f));
    many(10, (f) => room.addListener('add', f));
    many(10, (f) => room.on(Symbol('private'), f));
    const symbol = Symbol('shared');
    many(10, (f) => room.on(symbol, f));
    many(10, (f) => process.setMaxListeners(0).on('SIGWINCH', f));
    const stream = new (require('node:stream').PassThrough)().setMaxListeners(0);
    many(10, (f) => stream.on('drain', f));
    const captured = new EventEmitter({ captureRejections: true }).setMaxListeners(0);
    many(10, (f) => captured.on('tick', f));
    function Old() { EventEmitter.call(this); }
    require('node:util').inherits(Old, EventEmitter);
    many(10, (f) => new Old() && (Old.one ??= new Old().setMaxListeners(0)).on('old', f));`);
  const { report, stderr } = await ask(t, source);
  for (const [event, emitter] of [
    ['once', 'Room'],
    ['prepend', 'Room'],
    ['prependOnce', 'Room'],
    ['add', 'Room'],
    ['Symbol(shared)', 'Room'],
    ['SIGWINCH', 'process'],
    ['drain', 'PassThrough'],
    ['tick', 'EventEmitter'],
    ['old', 'Old'],
  ]) {
    assert.equal(line(report, event)?.count, 10, event);
    assert.equal(line(report, event).emitter, emitter);
  }
  // Ten different symbols are ten lists of one.
  assert.equal(line(report, 'Symbol(private)'), undefined);
  assert.equal(stderr, '');
});

test('EventTarget and AbortSignal are counted', async (t) => {
  const source = counting(`
    const target = new EventTarget();
    const { signal } = new AbortController();
    require('node:events').setMaxListeners(0, target, signal);
    many(20, (f) => target.addEventListener('tick', f));
    many(20, (f) => signal.addEventListener('abort', f, { once: true }));
    const same = () => {};
    many(20, () => target.addEventListener('same', same));
    globalThis.keep = [target, signal];`);
  const { report } = await ask(t, source);
  assert.deepEqual([line(report, 'tick').count, line(report, 'tick').emitter], [20, 'EventTarget']);
  assert.deepEqual(
    [line(report, 'abort').count, line(report, 'abort').emitter],
    [20, 'AbortSignal'],
  );
  assert.equal(line(report, 'same'), undefined);
});

test('watch() counts short lists under the name given, until it is undone', async (t) => {
  const source = counting(`
    const bus = new EventEmitter();
    const target = new EventTarget();
    const stops = [leakguard.watch(bus, { name: 'the bus' }), leakguard.watch(target)];
    bus.on('tick', () => {});
    target.addEventListener('poke', () => {});
    globalThis.keep = [target];
    extra = async () => {
      await until(() => line('poke'));
      const before = lines();
      stops.forEach((stop) => stop());
      stops.forEach((stop) => stop());
      await until(() => !line('tick') && !line('poke'));
      return before;
    };`);
  const { report } = await ask(t, source);
  assert.deepEqual([line(report, 'tick').count, line(report, 'tick').emitter], [1, 'the bus']);
  assert.equal(line({ lines: report.extra }, 'poke').emitter, 'EventTarget');
});

test('one listener on each of many emitters that stay is counted for its line, by samples', async (t) => {
  const source = counting(`
    require('node:v8').setFlagsFromString('--expose-gc');
    const gc = require('node:vm').runInNewContext('gc');
    class Room extends EventEmitter {}
    const rooms = [];
    const socket = new EventEmitter();
    function openRoom() { rooms.push(new Room().on('tick', () => {})); }
    function passBy() { new Room().once('gone', () => {}); }
    function wait() { const drained = () => {}; socket.on('drain', drained); socket.off('drain', drained); }
    function again() { socket.removeAllListeners('same'); socket.on('same', wait); }
    let open = true;
    setInterval(() => {
      for (let i = 0; open && i < 20; i++) { openRoom(); passBy(); wait(); again(); }
      gc();
    }, 40).unref();
    extra = async () => {
      await until(() => line('tick').count > 500);
      open = false;
      await until(() => line('tick').count > rooms.length / 2);
      return { rooms: rooms.length, lines: lines() };
    };`);
  const { report, stderr } = await ask(t, source);
  const { rooms, lines } = report.extra;
  const spread = line({ lines }, 'tick');
  assert.equal(spread.spread, true);
  assert.equal(spread.emitter, 'Room');
  assert.equal(spread.site.function, 'openRoom');
  assert.ok(spread.count < 2 * rooms, `${spread.count} of ${rooms}`);
  // What is dropped, taken off or put on again does not add up.
  for (const event of ['gone', 'drain', 'same']) assert.equal(line({ lines }, event), undefined);
  assert.equal(stderr, '');
});

test('a listener that Node itself adds costs few stacks, and is counted where the app adds it', async (t) => {
  const source = counting(`
    require('node:v8').setFlagsFromString('--expose-gc');
    const gc = require('node:vm').runInNewContext('gc');
    const { captureStackTrace } = Error;
    let stacks = 0;
    Error.captureStackTrace = (...given) => { stacks++; return captureStackTrace(...given); };
    class Room extends EventEmitter {}
    const own = () => {};
    const rooms = [];
    function openRoom() { rooms.push(new Room().on('tick', own)); }
    // A bound method has no frame: all that is on the stack is Node's.
    for (let i = 0; i < 64; i++) setImmediate(EventEmitter.prototype.on.bind(new EventEmitter(), 'x', own));
    let forNode;
    setImmediate(() => {
      forNode = stacks;
      setInterval(() => { for (let i = 0; i < 20; i++) openRoom(); gc(); }, 40).unref();
    });
    extra = () => ({ forNode, line: line('tick') });`);
  const { report, stderr } = await ask(t, source);
  // Eight at every stride would be 26; a sixteenth of 62 are 4, and 16 are six standard deviations more.
  assert.ok(
    report.extra.forNode >= 2 && report.extra.forNode < 16,
    `${report.extra.forNode} stacks`,
  );
  assert.equal(report.extra.line.site.function, 'openRoom');
  assert.equal(stderr, '');
});

test("the line named is the app's, not a package's and not Node's", async (t) => {
  const home = temporary(t);
  const packaged = path.join(home, 'node_modules', 'helper');
  fs.mkdirSync(packaged, { recursive: true });
  fs.writeFileSync(
    path.join(packaged, 'index.js'),
    "exports.listen = (bus, event) => bus.on(event, () => {});\nexports.own = (bus) => { for (let i = 0; i < 20; i++) bus.on('package', () => {}); };",
  );
  const source = counting(`
    const helper = require('helper');
    const bus = new EventEmitter().setMaxListeners(0);
    /* through a package */ function listenToOrders() { for (let i = 0; i < 20; i++) helper.listen(bus, 'tick'); }
    listenToOrders();
    for (let i = 0; i < 20; i++) require('node:events').once(bus, 'node').catch(() => {});
    setImmediate(helper.own, bus);
    extra = () => until(() => line('package'));`);
  const { report } = await ask(t, source, { home });
  const at = `${`const until\n${source}`.split('\n').findIndex((one) => one.includes('listenToOrders()'))}`;
  assert.equal(path.basename(line(report, 'tick').site.file), 'app.js');
  assert.equal(line(report, 'tick').site.function, 'listenToOrders');
  assert.equal(String(line(report, 'tick').site.line), at);
  assert.equal(path.basename(line(report, 'node').site.file), 'app.js');
  // Nobody of the app is on the stack: the package is the next best.
  assert.ok(
    report.extra.site.file.includes(path.join('node_modules', 'helper')),
    report.extra.site.file,
  );
});

test('the wrapped methods look like the ones they wrap', async (t) => {
  const source = `
    const { EventEmitter } = require('node:events');
    const describe = () => Object.fromEntries([EventEmitter.prototype, EventTarget.prototype].flatMap((prototype) =>
      ['on', 'addListener', 'prependListener', 'once', 'addEventListener'].filter((name) => prototype[name]).map((name) => {
        const { writable, enumerable, configurable } = Object.getOwnPropertyDescriptor(prototype, name);
        return [name, [prototype[name].name, prototype[name].length, writable, enumerable, configurable]];
      })));
    const before = describe();
    const keys = Object.keys(EventEmitter.prototype);
    const original = EventEmitter.prototype.on;
    const leakguard = require(process.env.GUARD);
    const wrapped = EventEmitter.prototype.on !== original;
    const after = describe();
    const alias = EventEmitter.prototype.on === EventEmitter.prototype.addListener;
    const errors = [];
    for (const call of [() => new EventEmitter().on('x', 7), () => EventEmitter.prototype.on.call(undefined, 'x', () => {}), () => new EventTarget().addEventListener()]) {
      try { call(); errors.push(null); } catch (error) { errors.push(error.code ?? error.name); }
    }
    const bus = new EventEmitter();
    const chained = bus.on('x', () => {}) === bus;
    leakguard.stop();
    process.stdout.write(JSON.stringify({ before, after, wrapped, alias, errors, chained,
      keys: JSON.stringify(keys) === JSON.stringify(Object.keys(EventEmitter.prototype)), restored: EventEmitter.prototype.on === original }));`;
  const { report } = await ask(t, source);
  assert.deepEqual(report.after, report.before);
  assert.equal(report.wrapped, true);
  assert.equal(report.alias, true);
  assert.equal(report.chained, true);
  assert.equal(report.keys, true);
  assert.equal(report.restored, true);
  const without = await ask(t, source, { env: { LEAKGUARD: 'off' } });
  assert.deepEqual(report.errors, without.report.errors);
  assert.equal(without.report.wrapped, false);
});

test("other libraries' patches work before and after ours, and after stop()", async (t) => {
  const source = `
    const { EventEmitter } = require('node:events');
    const calls = { early: 0, late: 0 };
    const more = new Set();
    // The guard takes stacks with settings of its own.
    const prepare = (Error.prepareStackTrace = (error) => String(error));
    Error.stackTraceLimit = 7;
    const counted = { tick: 1, stopped: 1, again: 1 };
    const native = EventEmitter.prototype.on;
    EventEmitter.prototype.on = EventEmitter.prototype.addListener = function (...args) { if (args[0] in counted) { calls.early++; more.add(args[2]); } return native.apply(this, args); };
    const early = EventEmitter.prototype.on;
    const leakguard = require(process.env.GUARD);
    const ours = EventEmitter.prototype.on;
    EventEmitter.prototype.on = function (...args) { if (args[0] in counted) calls.late++; return ours.apply(this, args); };
    const late = EventEmitter.prototype.on;
    const lines = () => leakguard.status().isolates[0]?.series.listeners?.top ?? [];
    const bus = new EventEmitter().setMaxListeners(0);
    const add = (n, event) => { for (let i = 0; i < n; i++) bus.on(event, () => {}, 'more'); };
    (async () => {
      add(20, 'tick');
      await until(() => lines().some((one) => one.event === 'tick' && one.count === 20));
      const during = { ...calls };
      leakguard.stop();
      // Somebody's wrap on top of ours is theirs: it stays, and ours below it does nothing.
      const kept = EventEmitter.prototype.on === late;
      add(20, 'stopped');
      const after = { ...calls, count: bus.listenerCount('stopped') };
      leakguard.start();
      add(20, 'again');
      const line = await until(() => lines().find((one) => one.event === 'again' && one.count === 20));
      process.stdout.write(JSON.stringify({ during, kept, after, again: { ...calls }, counted: line, underneath: early !== ours,
        more: [...more], stacks: [Error.stackTraceLimit, Error.prepareStackTrace === prepare] }));
    })();`;
  const { report } = await ask(t, source);
  assert.equal(report.during.early, report.during.late);
  assert.equal(report.during.late, 20);
  assert.equal(report.kept, true);
  assert.equal(report.after.late, 40);
  assert.equal(report.after.early, 40);
  assert.equal(report.after.count, 20);
  assert.equal(report.again.late, 60);
  assert.equal(report.again.early, 60);
  assert.equal(report.counted.emitter, 'EventEmitter');
  assert.deepEqual(report.more, ['more']);
  assert.deepEqual(report.stacks, [7, true]);
});

test('proxies, frozen emitters and emitters with a store of their own work as ever', async (t) => {
  const source = counting(`
    const proxied = new Proxy(new EventEmitter().setMaxListeners(0), {});
    many(20, (f) => proxied.on('proxied', f));
    const frozen = Object.freeze(new EventEmitter());
    class Own extends EventEmitter { on() { return 'own'; } }
    const own = new Own();
    const odd = Object.create(EventEmitter.prototype, { _events: { get() { throw new Error('mine'); }, set() {} } });
    const errors = [];
    for (const emitter of [frozen, odd]) {
      try { many(9, (f) => emitter.on('x', f)); errors.push('none'); } catch (error) { errors.push(error.message); }
    }
    const bare = Object.create(null);
    Object.setPrototypeOf(bare, EventEmitter.prototype);
    bare.constructor = null;
    EventEmitter.call(bare);
    bare.setMaxListeners(0);
    many(20, (f) => bare.on('bare', f));
    const bus = new EventEmitter().setMaxListeners(0);
    many(20, (f) => bus.on('tick', f));
    extra = () => ({ errors, own: own.on('x', () => {}), proxied: proxied.listenerCount('proxied'), bare: bare.listenerCount('bare') });`);
  const guarded = await ask(t, source);
  assert.equal(guarded.report.extra.own, 'own');
  assert.equal(guarded.report.extra.proxied, 20);
  assert.equal(guarded.report.extra.bare, 20);
  assert.equal(line(guarded.report, 'proxied').count, 20);
  const alone = source
    .replace(/await until.*\n/, '')
    .replace(
      'const leakguard = require(process.env.GUARD);',
      'const leakguard = { status: () => ({ isolates: [] }) };',
    );
  assert.deepEqual((await ask(t, alone)).report.extra.errors, guarded.report.extra.errors);
});

test('emitters that are collected disappear: the guard holds none', async (t) => {
  const source = counting(
    `
    const registry = new FinalizationRegistry(() => { gone++; });
    let gone = 0;
    // Held until they are reported: a GC may come sooner than the first report.
    let rooms = Array.from({ length: 100 }, () => {
      const room = new EventEmitter().setMaxListeners(0);
      registry.register(room);
      many(16, (f) => room.on('room', f));
      return room;
    });
    for (const room of rooms) leakguard.watch(room);
    const bus = new EventEmitter().setMaxListeners(0);
    many(20, (f) => bus.on('tick', f));
    extra = async () => {
      const before = lines().filter((one) => one.event === 'room').length;
      rooms = null;
      await until(() => { gc(); return gone === 100; });
      await until(() => !line('room'));
      return { before };
    };`,
    'room',
  );
  const { report } = await ask(t, source, { execArgv: ['--expose-gc'] });
  assert.ok(report.extra.before > 0);
});

test('ten thousand growing emitters are counted within bounds, and the largest are told', async (t) => {
  const source = counting(`
    const rooms = Array.from({ length: 10000 }, () => new EventEmitter().setMaxListeners(0));
    for (const room of rooms) many(16, (f) => room.on('room', f));
    const bus = new EventEmitter().setMaxListeners(0);
    many(3000, (f) => bus.on('tick', f));
    extra = () => leakguard.status().isolates[0].series.listeners.last;`);
  const { report } = await ask(t, source);
  assert.equal(report.extra, 3000);
  assert.equal(report.lines[0].event, 'tick');
  assert.ok(report.lines.length <= 60);
});

test('LEAKGUARD_LISTENERS=off leaves EventEmitter untouched while all else is guarded', async (t) => {
  const source = `
    const { EventEmitter } = require('node:events');
    const methods = ['on', 'addListener', 'prependListener'].map((name) => EventEmitter.prototype[name]);
    const add = EventTarget.prototype.addEventListener;
    const leakguard = require(process.env.GUARD);
    const untouched = () => ['on', 'addListener', 'prependListener'].every((name, i) => EventEmitter.prototype[name] === methods[i]) &&
      EventTarget.prototype.addEventListener === add;
    const first = untouched();
    leakguard.start({ listeners: true });
    const wrapped = !untouched();
    leakguard.start({ listeners: false });
    until(() => leakguard.status().liveHeap?.readings > 0).then(() =>
      process.stdout.write(JSON.stringify({ first, wrapped, last: untouched() })));`;
  const { report } = await ask(t, source, { env: { LEAKGUARD_LISTENERS: 'off' } });
  assert.deepEqual(report, { first: true, wrapped: true, last: true });
});
