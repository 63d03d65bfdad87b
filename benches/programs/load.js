'use strict';

/**
 * The load, in a process of its own: GET requests over kept connections, written to plain sockets so that the
 * client costs less than the server. Either a number of requests as fast as they are answered, or a steady
 * rate until it is stopped.
 */

const net = require('node:net');
const { answer } = require('./answer.js');

const REQUEST = Buffer.from(
  'GET /item/4711 HTTP/1.1\r\nHost: localhost\r\nX-Request: bench\r\n\r\n',
);
const HEAD_END = Buffer.from('\r\n\r\n');

class Connection {
  /** @type {Buffer} */
  #rest = Buffer.alloc(0);
  busy = false;
  /** @type {() => void} */
  onAnswer = () => {};

  /** @param {number} port */
  constructor(port) {
    this.socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
    this.socket.on('data', (chunk) => this.#take(chunk));
    this.socket.on('error', fail);
  }

  send() {
    this.busy = true;
    this.socket.write(REQUEST);
  }

  /** @param {Buffer} chunk */
  #take(chunk) {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (;;) {
      const head = this.#rest.indexOf(HEAD_END);
      if (head < 0) return;
      const text = this.#rest.toString('latin1', 0, head);
      if (!text.startsWith('HTTP/1.1 200')) fail(new Error(`unexpected answer: ${text}`));
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1]);
      const end = head + HEAD_END.length + length;
      if (!Number.isFinite(length)) fail(new Error(`no length: ${text}`));
      if (this.#rest.length < end) return;
      this.#rest = this.#rest.subarray(end);
      this.busy = false;
      this.onAnswer();
    }
  }
}

/** @param {Error} error @returns {never} */
function fail(error) {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}

/** @type {Map<number, Connection[]>} by port, kept between slices as between the requests of a slice */
const kept = new Map();

/** @param {number} port @param {number} count */
function connections(port, count) {
  const own = kept.get(port) ?? [];
  kept.set(port, own);
  while (own.length < count) own.push(new Connection(port));
  return own;
}

/** @param {{ port: number, count: number, requests: number }} slice */
function serve({ port, count, requests }) {
  return new Promise((resolve) => {
    let sent = 0;
    let answered = 0;
    const began = performance.now();
    for (const connection of connections(port, count)) {
      connection.onAnswer = () => {
        if (++answered === requests) resolve({ ms: performance.now() - began });
        if (sent < requests) {
          sent++;
          connection.send();
        }
      };
      if (sent < requests) {
        sent++;
        connection.send();
      }
    }
  });
}

/** @type {NodeJS.Timeout | undefined} */
let timer;

/** @param {{ port: number, count: number, perSecond: number }} rate */
function steady({ port, count, perSecond }) {
  const pool = connections(port, count);
  for (const connection of pool) connection.onAnswer = () => {};
  const began = performance.now();
  let sent = 0;
  timer = setInterval(() => {
    const due = ((performance.now() - began) / 1000) * perSecond;
    for (const connection of pool) {
      if (sent >= due) break;
      if (connection.busy) continue;
      sent++;
      connection.send();
    }
    // What the server could not take is not made up for: that would be a burst after every stop.
    sent = Math.max(sent, Math.floor(due) - count);
  }, 5);
}

answer({
  serve,
  steady,
  stop: () => clearInterval(timer),
});
