'use strict';

/**
 * What it takes to be turned away from the status page, by what was wrong: whether the time of a 401 says how much of
 * a token was right. Wrong tokens of every shape in random order, one request at a time, two of them the same
 * (A/A control).
 */

const net = require('node:net');
const { bootstrap, median, random, shuffled } = require('./support/statistics.js');
const { Child, ROOT } = require('./support/children.js');
const { interval, micros, requirement } = require('./support/words.js');

const TOKEN = 'kD3v-Zb8x_Q1mW7r.T5yH2cN9sJ4gL6p';
const PATH = '/leakguard?format=json';
/** Requests of each shape that stand for one block. */
const PER_BLOCK = 20;
const WARM_BLOCKS = 20;
/** Finer than this no clock of a client tells, microseconds. */
const GRAIN = 0.1;

/**
 * @typedef {object} Shape
 * @property {string} words
 * @property {string[]} fields of the request
 * @property {string} [against] the shape it differs from in nothing but how much is right; the first of its kind has none
 */

/** @param {string} text @param {number} at */
function wrongAt(text, at) {
  const place = (at + text.length) % text.length;
  return text.slice(0, place) + (text[place] === 'x' ? 'y' : 'x') + text.slice(place + 1);
}

/** @param {string} cookie that opens the page @returns {Record<string, Shape>} */
function shapesWith(cookie) {
  const seal = cookie.indexOf('.') + 1;
  const bearer = (/** @type {string} */ token) => [`Authorization: Bearer ${token}`];
  const session = (/** @type {number} */ at) => [
    `Cookie: ${cookie.slice(0, seal)}${wrongAt(cookie.slice(seal), at)}`,
  ];
  const half = TOKEN.length / 2;
  return {
    first: { words: 'header, wrong from the first byte', fields: bearer('x'.repeat(TOKEN.length)) },
    again: {
      words: 'the same again (A/A control)',
      fields: bearer('x'.repeat(TOKEN.length)),
      against: 'first',
    },
    half: {
      words: 'header, the first half right',
      fields: bearer(TOKEN.slice(0, half).padEnd(TOKEN.length, 'x')),
      against: 'first',
    },
    last: {
      words: 'header, right but for the last byte',
      fields: bearer(wrongAt(TOKEN, -1)),
      against: 'first',
    },
    short: {
      words: 'header, right but a byte short',
      fields: bearer(TOKEN.slice(0, -1)),
      against: 'first',
    },
    long: { words: 'header, right and a byte more', fields: bearer(`${TOKEN}x`), against: 'first' },
    cookie: { words: 'cookie, wrong in the first byte of its seal', fields: session(0) },
    cookieAgain: {
      words: 'the same again (A/A control)',
      fields: session(0),
      against: 'cookie',
    },
    cookieLast: {
      words: 'cookie, right but for the last byte',
      fields: session(-1),
      against: 'cookie',
    },
    none: { words: 'neither header nor cookie', fields: [] },
  };
}

/** Asks on one kept connection, one question at a time. */
class Client {
  #socket;
  #received = '';
  /** @type {(response: string) => void} */
  #take = () => {};
  /** @type {(error: Error) => void} */
  #fail = () => {};

  /** @param {number} port */
  constructor(port) {
    this.#socket = net.connect(port, '127.0.0.1').setNoDelay().setEncoding('latin1');
    this.#socket.on('data', (/** @type {any} */ text) => {
      this.#received += text;
      const end = this.#received.indexOf('\r\n\r\n');
      if (end < 0) return;
      const length = Number(/^content-length: (\d+)/im.exec(this.#received)?.[1] ?? 0);
      if (this.#received.length < end + 4 + length) return;
      const response = this.#received;
      this.#received = '';
      this.#take(response);
    });
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('close', () => this.#fail(new Error('the app closed the connection')));
  }

  /** @param {string} request @returns {Promise<string>} */
  ask(request) {
    return new Promise((resolve, reject) => {
      this.#take = resolve;
      this.#fail = reject;
      this.#socket.write(request);
    });
  }

  end() {
    this.#fail = () => {};
    this.#socket.destroy();
  }
}

/** @param {string} method @param {string[]} fields */
function requestWith(method, fields) {
  return [`${method} ${PATH} HTTP/1.1`, 'Host: app', ...fields, '', ''].join('\r\n');
}

/** @param {{ node: string, quick: boolean }} options */
async function measure({ node, quick }) {
  const blocks = quick ? 60 : 600;
  const app = new Child(node, 'page.js', {
    settings: { guard: ROOT },
    env: { LEAKGUARD_TOKEN: TOKEN, LEAKGUARD_LOG: 'silent', LEAKGUARD_SNAPSHOT: 'off' },
  });
  const client = new Client(await app.ask('port'));
  const login = await client.ask(requestWith('POST', [`Authorization: Bearer ${TOKEN}`]));
  const cookie = /^set-cookie: (leakguard=[^;\r]+)/im.exec(login)?.[1];
  if (cookie === undefined) throw new Error(`no login: ${login.slice(0, 200)}`);
  const shapes = shapesWith(cookie);
  const names = Object.keys(shapes);
  const requests = Object.fromEntries(
    names.map((name) => [name, requestWith('GET', shapes[name].fields)]),
  );
  await app.ask('spent');

  const draw = random(1);
  /** Median of each block by shape: on the app's thread, and as the client saw it. */
  const own = Object.fromEntries(names.map((name) => [name, /** @type {number[]} */ ([])]));
  const seen = Object.fromEntries(names.map((name) => [name, /** @type {number[]} */ ([])]));
  for (let block = -WARM_BLOCKS; block < blocks; block++) {
    const order = shuffled(
      names.flatMap((name) => new Array(PER_BLOCK).fill(name)),
      draw,
    );
    /** @type {number[]} */
    const trips = [];
    for (const name of order) {
      const began = performance.now();
      const response = await client.ask(requests[name]);
      trips.push((performance.now() - began) * 1000);
      if (!response.startsWith('HTTP/1.1 401 ')) throw new Error(`${name}: ${response}`);
    }
    /** @type {number[]} */
    const spent = await app.ask('spent');
    if (spent.length !== order.length) throw new Error('a request was not timed');
    if (block < 0) continue;
    for (const name of names) {
      const ofShape = (/** @type {number[]} */ all) => all.filter((_, at) => order[at] === name);
      own[name].push(median(ofShape(spent)));
      seen[name].push(median(ofShape(trips)));
    }
  }
  client.end();
  await app.stop();

  /** Difference within a block, so that the machine of that moment cancels out. */
  const difference = (/** @type {Record<string, number[]>} */ of, /** @type {string} */ name) => {
    const base = of[shapes[name].against ?? 'first'];
    const each = of[name].map((value, at) => value - base[at]);
    return { value: median(each), ends: bootstrap([each], (drawn) => median(drawn)) };
  };
  const signed = (/** @type {number} */ value) =>
    `${value < 0 ? '-' : '+'}${Math.abs(value).toFixed(2)} µs`;
  const rows = names.map((name) => {
    const cells = [
      shapes[name].words,
      (blocks * PER_BLOCK).toLocaleString('en'),
      micros(median(own[name])),
    ];
    const differs = (/** @type {Record<string, number[]>} */ of) => {
      if (name === 'first') return ['', ''];
      const { value, ends } = difference(of, name);
      return [signed(value), interval(ends, signed)];
    };
    return [...cells, ...differs(own), micros(median(seen[name])), ...differs(seen)];
  });
  const compared = names.filter((name) => shapes[name].against && !/[aA]gain$/.test(name));
  const controls = names.filter((name) => /[aA]gain$/.test(name));
  const figures = Object.fromEntries(
    names
      .filter((name) => name !== 'first')
      .map((name) => [name, { own: difference(own, name), seen: difference(seen, name) }]),
  );
  const judged = [
    /** @type {const} */ (['own', "on the app's thread", own]),
    /** @type {const} */ (['seen', 'as a client sees it', seen]),
  ].map(([which, where]) => {
    const of = (/** @type {string} */ name) => figures[name][which];
    const largest = compared.reduce((a, b) =>
      Math.abs(of(a).value) >= Math.abs(of(b).value) ? a : b,
    );
    // What the same request differs from itself by, and what no clock shows.
    const reach = Math.max(GRAIN, ...controls.flatMap((name) => of(name).ends.map(Math.abs)));
    const within = compared.every(
      (name) => of(name).ends[0] <= reach && of(name).ends[1] >= -reach,
    );
    return requirement(
      `difference between wrong tokens, ${where}, against A/A`,
      `${signed(of(largest).value)} (95 % ${interval(of(largest).ends, signed)}: ${shapes[largest].words}); A/A ${controls.map((name) => `${signed(of(name).value)} (${interval(of(name).ends, signed)})`).join(', ')}`,
      'not distinguishable from A/A',
      within,
    );
  });
  return {
    columns: [
      'what was wrong',
      'requests',
      "on the app's thread, median",
      'difference',
      '95 %',
      'as a client sees it, median',
      'difference',
      '95 %',
    ],
    rows,
    figures,
    requirements: judged,
    notes: [
      'Differences are within headers and within cookies; the first cookie, and neither, are set against the first row: other bytes to read, which say nothing of the token.',
    ],
  };
}

module.exports = {
  name: 'page',
  title: 'Being turned away from the status page',
  method: [
    `A client on a kept loopback connection asks for the page's JSON, one request at a time, with a wrong token of each shape ${PER_BLOCK} times a block in random order; time on the app's thread is that of the handler until its 401 is written.`,
    'Difference of medians within each block, its median over blocks, interval by bootstrap over blocks; the same wrong token twice is the A/A control.',
  ],
  perNode: true,
  seconds: { full: 60, quick: 10 },
  measure,
};
