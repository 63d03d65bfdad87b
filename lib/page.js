'use strict';

/**
 * The status page as a request handler: who may see it, and what goes out. It holds nothing of what it shows: the
 * native thread makes the model, as JSON, and the documents, which are the same for everybody and are drawn in the
 * browser. It trusts nothing that a client or a proxy says of itself but the token.
 *
 * Loaded with the first `middleware()`, and `node:crypto` with it.
 */

const crypto = require('node:crypto');
const clock = require('./clock');

/** Where it answers when it is mounted without a path. */
const DEFAULT_PATH = '/leakguard';

/** How far back charts may go; the page offers the same. */
const SPANS_MS = Object.freeze({
  '5m': 300_000,
  '1h': 3_600_000,
  '6h': 21_600_000,
  '1d': 86_400_000,
});
const DEFAULT_SPAN = '1h';

const COOKIE = 'leakguard';
const SESSION_SECONDS = 12 * 3600;
/** A browser sends more than one only if the page has moved. */
const MAX_COOKIES = 4;

/** Questions that may wait for the native thread; it keeps as many answers (src/mailbox.rs). */
const MAX_WAITING = 8;
/** An answer takes a few milliseconds; after this long it is asked for again. */
const ANSWER_WITHIN_MS = 5000;

const JSON_TYPE = 'application/json; charset=utf-8';
const HTML_TYPE = 'text/html; charset=utf-8';
const TEXT_TYPE = 'text/plain; charset=utf-8';

/** What every response says, whoever asked. */
const HEADERS = Object.freeze({
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  // Not `no-referrer`: the login learns from it under which address a proxy shows the page.
  'Referrer-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'X-Robots-Tag': 'noindex',
});

/**
 * @typedef {import('node:http').IncomingMessage & { baseUrl?: string, originalUrl?: string, route?: any }} Request
 * @typedef {import('node:http').ServerResponse} Response
 * @typedef {(req: Request, res: Response, next?: (error?: unknown) => void) => void} Handler
 * @typedef {{ html: string, policy: string }} Document
 *
 * @typedef {object} Surroundings
 * @property {() => Buffer | null} token SHA-256 of the token; null: there is no page
 * @property {() => any} native the native guard, null while it does not run
 * @property {() => any} binding the native library
 *
 * @typedef {object} Waiting
 * @property {number} number of the question
 * @property {number} askedAt
 * @property {Promise<string | null>} answer
 * @property {(json: string | null) => void} settle
 */

class PageServer {
  /** @type {Surroundings} */
  #around;
  /** @type {Map<string, Waiting>} by what is asked, so that ten open pages are one question */
  #waiting = new Map();
  #nextNumber = 1;
  /** @type {{ status: Document, token: Document } | null} */
  #documents = null;

  /** @param {Surroundings} around */
  constructor(around) {
    this.#around = around;
  }

  /** @returns {Handler} */
  handler() {
    /** @type {Handler} */
    const leakguardPage = (req, res, next) => {
      if (next !== undefined && !isMeant(req, leakguardPage)) {
        next();
        return;
      }
      this.#answer(req, res).catch(() => fail(req, res));
    };
    return leakguardPage;
  }

  /** @param {any} native */
  takeAnswers(native) {
    for (let answer = native.takePage(); answer !== null; answer = native.takePage()) {
      const [number, json] = answer;
      for (const [key, waiting] of this.#waiting) {
        if (waiting.number === number) this.#settle(key, json);
      }
    }
  }

  /** The guard has stopped: nobody answers. */
  stop() {
    for (const key of [...this.#waiting.keys()]) this.#settle(key, null);
  }

  /**
   * @param {Request} req
   * @param {Response} res
   */
  async #answer(req, res) {
    const token = this.#around.token();
    if (token === null) {
      send(req, res, 404, TEXT_TYPE, 'Not Found\n');
      return;
    }
    const query = new URLSearchParams(split(req.url)[1]);
    // Both are always looked at: neither the answer nor the work tells which of them was wrong.
    const byToken = holdsToken(req, token);
    const bySession = holdsSession(req, token);
    const login = req.method === 'POST';
    if (!login && req.method !== 'GET' && req.method !== 'HEAD') {
      send(req, res, 405, TEXT_TYPE, 'Method Not Allowed\n', { Allow: 'GET, HEAD, POST' });
    } else if (!(byToken || (bySession && !login))) {
      this.#refuse(req, res, query);
    } else if (login) {
      send(req, res, 204, TEXT_TYPE, '', { 'Set-Cookie': sessionCookie(req, token) });
    } else if (wantsJson(req, query)) {
      await this.#showModel(req, res, query);
    } else {
      const { html, policy } = this.#document('status');
      send(req, res, 200, HTML_TYPE, html, { 'Content-Security-Policy': policy });
    }
  }

  /**
   * The same for a wrong token as for none.
   *
   * @param {Request} req
   * @param {Response} res
   * @param {URLSearchParams} query
   */
  #refuse(req, res, query) {
    const challenge = { 'WWW-Authenticate': 'Bearer realm="leakguard"' };
    if (wantsJson(req, query)) {
      send(req, res, 401, JSON_TYPE, '{"error":"unauthorized"}\n', challenge);
      return;
    }
    const { html, policy } = this.#document('token');
    send(req, res, 401, HTML_TYPE, html, { ...challenge, 'Content-Security-Policy': policy });
  }

  /**
   * @param {Request} req
   * @param {Response} res
   * @param {URLSearchParams} query
   */
  async #showModel(req, res, query) {
    const span = query.get('span') ?? DEFAULT_SPAN;
    const known = Object.hasOwn(SPANS_MS, span) ? span : DEFAULT_SPAN;
    const spanMs = SPANS_MS[/** @type {keyof typeof SPANS_MS} */ (known)];
    const isolate = query.get('isolate') ?? '';
    const json = await this.#ask(spanMs, /^\d{1,9}$/.test(isolate) ? Number(isolate) : null);
    if (json === null) {
      const error = '{"error":"the guard is not running"}\n';
      send(req, res, 503, JSON_TYPE, error, { 'Retry-After': '5' });
      return;
    }
    send(req, res, 200, JSON_TYPE, json);
  }

  /**
   * Asks the native thread, which owns the series.
   *
   * @param {number} spanMs
   * @param {number | null} isolate
   * @returns {Promise<string | null>} JSON; null if nobody will answer
   */
  #ask(spanMs, isolate) {
    const native = this.#around.native();
    const key = `${spanMs} ${isolate}`;
    const now = clock.now();
    let waiting = this.#waiting.get(key);
    if (waiting !== undefined && now - waiting.askedAt < ANSWER_WITHIN_MS) return waiting.answer;
    if (waiting === undefined) {
      if (this.#waiting.size >= MAX_WAITING) return Promise.resolve(null);
      /** @type {(json: string | null) => void} */
      let settle = () => {};
      const answer = new Promise((/** @type {(json: string | null) => void} */ resolve) => {
        settle = resolve;
      });
      waiting = { number: 0, askedAt: now, answer, settle };
      this.#waiting.set(key, waiting);
    }
    waiting.number = this.#nextNumber;
    waiting.askedAt = now;
    this.#nextNumber = (this.#nextNumber % 0xffff_ffff) + 1;
    if (!native?.requestPage(waiting.number, spanMs, isolate)) this.#settle(key, null);
    return waiting.answer;
  }

  /**
   * @param {string} key
   * @param {string | null} json
   */
  #settle(key, json) {
    this.#waiting.get(key)?.settle(json);
    this.#waiting.delete(key);
  }

  /** @param {'status' | 'token'} name */
  #document(name) {
    if (this.#documents === null) {
      const binding = this.#around.binding();
      this.#documents = { status: binding.statusPage(), token: binding.tokenPage() };
    }
    return this.#documents[name];
  }
}

/**
 * Whether a request that came through a chain of middleware is for the page: at the path it is mounted on, as the
 * handler of a route, or at the default path. Everything else is the app's.
 *
 * @param {Request} req
 * @param {Handler} handler
 */
function isMeant(req, handler) {
  const [path] = split(req.url);
  const { stack } = req.route ?? {};
  if (Array.isArray(stack) && stack.some((layer) => layer?.handle === handler)) return true;
  // Express says where a handler is mounted; connect only that the URL has lost something.
  const mounted =
    typeof req.baseUrl === 'string'
      ? req.baseUrl !== ''
      : req.originalUrl !== undefined && split(req.originalUrl)[0] !== path;
  return mounted ? path === '/' || path === '' : path === DEFAULT_PATH;
}

/**
 * Path and query of a request's URL, as they came.
 *
 * @param {string | undefined} url
 */
function split(url = '') {
  const at = url.indexOf('?');
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)];
}

/**
 * @param {Request} req
 * @param {URLSearchParams} query
 */
function wantsJson(req, query) {
  const format = query.get('format');
  if (format !== null) return format === 'json';
  const accept = req.headers.accept ?? '';
  return accept.includes('application/json') && !accept.includes('text/html');
}

/** @param {string} text */
function digest(text) {
  return crypto.createHash('sha256').update(text, 'latin1').digest();
}

/**
 * @param {Request} req
 * @param {Buffer} token
 */
function holdsToken(req, token) {
  const given = /^bearer +(.*)$/i.exec(req.headers.authorization ?? '')?.[1] ?? '';
  return crypto.timingSafeEqual(digest(given), token);
}

/**
 * Whether a cookie of the request is one of ours and still good. It does not hold the token, only what one who knows
 * the token can make; so nothing is kept here, and every process with the same token takes it.
 *
 * @param {Request} req
 * @param {Buffer} token
 */
function holdsSession(req, token) {
  const cookies = (req.headers.cookie ?? '').matchAll(
    new RegExp(`(?:^|; *)${COOKIE}=([^;]*)`, 'g'),
  );
  const given = [...cookies].slice(0, MAX_COOKIES).map(([, value]) => value);
  let holds = false;
  // One that is not there is compared as well.
  for (const cookie of given.length > 0 ? given : ['']) {
    const [expires = '', seal = ''] = cookie.split('.');
    const genuine = crypto.timingSafeEqual(digest(seal), digest(sealOf(expires, token)));
    if (genuine && Number.parseInt(expires, 36) * 1000 > Date.now()) holds = true;
  }
  return holds;
}

/**
 * @param {string} expires
 * @param {Buffer} token
 */
function sealOf(expires, token) {
  return crypto
    .createHmac('sha256', token)
    .update(`leakguard page until ${expires}`)
    .digest('base64url');
}

/**
 * The browser says in the referrer under which address it sees the page; behind a proxy we cannot know. Whoever forges
 * that gets a cookie that is of less use to him.
 *
 * @param {Request} req
 * @param {Buffer} token
 */
function sessionCookie(req, token) {
  const expires = Math.ceil(Date.now() / 1000 + SESSION_SECONDS).toString(36);
  const parts = [`${COOKIE}=${expires}.${sealOf(expires, token)}`, 'HttpOnly', 'SameSite=Strict'];
  const seen = URL.canParse(req.headers.referer ?? '') ? new URL(req.headers.referer ?? '') : null;
  if (seen !== null && /^\/[\w./~%-]*$/.test(seen.pathname)) parts.push(`Path=${seen.pathname}`);
  const encrypted = 'encrypted' in req.socket && req.socket.encrypted === true;
  if (encrypted || seen?.protocol === 'https:') parts.push('Secure');
  return parts.join('; ');
}

/**
 * @param {Request} req
 * @param {Response} res
 * @param {number} status
 * @param {string} type
 * @param {string} body
 * @param {Record<string, string>} [headers] over the usual ones
 */
function send(req, res, status, type, body, headers) {
  if (res.headersSent || res.writableEnded) return;
  res.statusCode = status;
  for (const [name, value] of Object.entries({ ...HEADERS, ...headers })) {
    res.setHeader(name, value);
  }
  if (status !== 204) {
    res.setHeader('Content-Type', type);
    res.setHeader('Content-Length', Buffer.byteLength(body));
  }
  if (req.method === 'HEAD' || status === 204) res.end();
  else res.end(body);
}

/**
 * What failed is ours: the app's own error handling does not hear of it.
 *
 * @param {Request} req
 * @param {Response} res
 */
function fail(req, res) {
  try {
    send(req, res, 500, TEXT_TYPE, 'Internal Server Error\n');
  } catch {
    // A response that takes nothing: there is nobody left to tell.
  }
}

module.exports = { DEFAULT_PATH, PageServer };
