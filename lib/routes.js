'use strict';

/**
 * Counts finished requests by route: Node's own `diagnostics_channel` says when a response has ended. Express has left
 * the matched route on the request by then; Fastify tells it on a channel of its own when it calls a route's handler.
 * Nothing is patched, no listener is added, no request is kept. It counts and names; what grows with which traffic
 * is judged natively. What comes by neither framework is counted by method alone. Above a thousand requests a second
 * a random sample of them is looked at: Express gives each request hidden classes of its own on Node 20 and 22, so
 * that V8 looks every property up anew.
 *
 * A name is a template as the app wrote it, never a URL with values: where the mount of a router has parameters,
 * `req.baseUrl` holds their values, so the mount is looked up once in the app's own tables and named by its pattern,
 * or by `/*` where that cannot be found.
 */

const diagnostics = require('node:diagnostics_channel');
const { random } = require('./chance');
const clock = require('./clock');

const START = 'http.server.request.start';
const FINISH = 'http.server.response.finish';
/**
 * Fastify 5 has called the handler of a route that it matched; no response has ended by then. With a subscriber to its
 * `start` it would also make a function for each request.
 */
const FASTIFY = 'tracing:fastify.request.handler:end';

/** Rows at most, the first two included: `MAX_ROUTES` of src/routes.rs. Later routes are counted as other. */
const MAX_ROUTES = 64;

/** Characters of a name. */
const MAX_NAME = 120;

/** Mounts of one route object that are told apart; more of them, and more layers looked at, are not worth it. */
const MAX_MOUNTS = 8;
const MAX_LAYERS = 4096;
const MAX_DEPTH = 16;

/** Requests looked at in a second at most; of more, one in several, which stands for those passed over. */
const LOOKS_PER_SECOND = 1000;

/** Looks between two paces after which half as many are made: a burst comes before the pace that it asks for. */
const MOST_LOOKS = 4096;

/** Milliseconds over which the pace is taken, at least. */
const PACE_MS = 1000;

/** Requests that have begun and whose response has not ended: under way, or left by the client. */
const UNFINISHED = 0;
const OTHER = 1;

/** Names by row. */
const names = ['(unfinished)', '(other)'];
/** Requests by row, since the environment began. */
const counts = new Float64Array(MAX_ROUTES);
/** @type {Map<string, number>} */
const rows = new Map();

/**
 * Where a route object can be reached, and its row by method there.
 *
 * @typedef {object} Mount
 * @property {string} base the mount of the first request
 * @property {RegExp | null} bases what matches every mount of the pattern, if that has parameters
 * @property {string} pattern
 * @property {Map<string, number>} rows
 *
 * @typedef {object} Known
 * @property {string} base of the request before
 * @property {string} method of the request before
 * @property {number} row of the request before
 * @property {Mount[]} mounts
 */

/** @type {WeakMap<object, Known>} routes come and go with the app's routers */
const known = new WeakMap();

/** What is counted by method alone is named as if this were its template. */
const UNMATCHED = '(unmatched)';

/** Templates of one method whose rows are remembered; those of later ones are looked up by name each time. */
const MAX_TEMPLATES = 1024;

/** Rows by method and template, of requests that have no route object. @type {Map<string, Map<string, number>>} */
const templates = new Map();

class Itself {
  /** @param {object} object */
  constructor(object) {
    // biome-ignore lint/correctness/noConstructorReturn: how a class gives its private fields to objects of others
    return object;
  }
}

/**
 * Leaves the template of its route on a request that Fastify has under way: in a private field, which nobody but
 * this class can see and which goes with the request. A WeakMap does the same for 1.0 to 1.6 us more a request.
 */
class Marked extends Itself {
  /** @type {string} */
  #template;

  /**
   * @param {object} request
   * @param {string} template
   */
  constructor(request, template) {
    super(request);
    this.#template = template;
  }

  /**
   * @param {object} request
   * @param {string} template
   */
  static mark(request, template) {
    // It is there if a handler gave the request to another instance of Fastify: the route that answers is named.
    if (!(#template in request)) new Marked(request, template);
  }

  /**
   * @param {object} request
   * @returns {string}
   */
  static template(request) {
    return #template in request ? request.#template : UNMATCHED;
  }
}

/** Requests that have begun, and those of them that have ended. */
let started = 0;
let ended = 0;

/** Requests of which one is looked at, on average. */
let stride = 1;
/** Requests that the next look stands for, and those of them still to be passed over. */
let weight = 1;
let toPass = 0;
/** Looks, and finished requests at the time of the last pace. */
let looks = 0;
let pacedAt = 0;
let pacedEnded = 0;

let installed = false;
/** @type {unknown} the native guard that knows the first `told` names */
let toldTo = null;
let told = 0;

function onStart() {
  started++;
}

/** @param {unknown} message */
function onFinish(message) {
  ended++;
  if (--toPass >= 0) return;
  const standsFor = weight;
  draw();
  if (++looks === MOST_LOOKS) {
    looks = 0;
    stride *= 2;
  }
  // What a subscriber throws becomes an uncaught exception of the app.
  try {
    const { request } = /** @type {{ request: any }} */ (message);
    const { route } = request;
    if (typeof route === 'object' && route !== null) counts[rowOf(route, request)] += standsFor;
    else counts[rowOfTemplate(request.method, Marked.template(request))] += standsFor;
  } catch {
    counts[OTHER] += standsFor;
  }
}

/** Chooses the next request that is looked at: evenly from the next few, so that no rhythm of the traffic is followed. */
function draw() {
  toPass = stride === 1 ? 0 : Math.floor(random() * (2 * stride - 1));
  weight = toPass + 1;
}

/** Brings the number of looks to what the traffic of the last seconds asks for. */
function pace() {
  const now = clock.now();
  const elapsed = now - pacedAt;
  if (elapsed < PACE_MS) return;
  const perSecond = ((ended - pacedEnded) / elapsed) * 1000;
  stride = Math.max(1, Math.ceil(perSecond / LOOKS_PER_SECOND));
  looks = 0;
  pacedAt = now;
  pacedEnded = ended;
}

/** @param {unknown} message */
function onFastify(message) {
  try {
    const { request, route } = /** @type {{ request: any, route: any }} */ (message);
    if (typeof route.url === 'string') Marked.mark(request.raw, route.url);
  } catch {
    // A Fastify of another kind: its requests are counted by method.
  }
}

/**
 * @param {any} route
 * @param {any} request
 * @returns {number}
 */
function rowOf(route, request) {
  const { method } = request;
  const base = request.baseUrl ?? '';
  let of = known.get(route);
  if (of === undefined) {
    of = { base: '', method: '', row: OTHER, mounts: [] };
    known.set(route, of);
  } else if (of.base === base && of.method === method) {
    return of.row;
  }
  const mount = mountOf(of, route, request, base);
  let row = mount?.rows.get(method);
  if (row === undefined) {
    row = mount === null ? OTHER : rowNamed(`${method} ${join(mount.pattern, pathOf(route))}`);
    mount?.rows.set(method, row);
  }
  of.base = base;
  of.method = method;
  of.row = row;
  return row;
}

/**
 * @param {Known} of
 * @param {any} route
 * @param {any} request
 * @param {string} base
 * @returns {Mount | null} null if the route has more mounts than are told apart
 */
function mountOf(of, route, request, base) {
  const found = of.mounts.find((mount) =>
    mount.bases === null ? mount.base === base : mount.bases.test(base),
  );
  if (found !== undefined) return found;
  if (of.mounts.length >= MAX_MOUNTS) return null;
  const pattern = patternOf(route, request, base);
  const expression = expressionOf(pattern);
  // A pattern that is not understood stands for this one mount.
  const bases = pattern !== base && expression.test(base) ? expression : null;
  const mount = { base, bases, pattern, rows: new Map() };
  of.mounts.push(mount);
  return mount;
}

/**
 * The mount of a route as the app wrote it: the way through its routers that leads by `base` to the route.
 *
 * @param {any} route
 * @param {any} request
 * @param {string} base
 * @returns {string}
 */
function patternOf(route, request, base) {
  const { app } = request;
  if (app === undefined || app === null) return base === '' ? '' : '/*';
  let outer = '';
  let rest = base;
  if (app.parent) {
    // An app within an app: the table of the outer one does not show the inner one's, but it knows its path.
    outer = app.path();
    const segments = outer.split('/').length;
    rest = base.split('/').slice(segments).join('/');
    if (rest !== '') rest = `/${rest}`;
  }
  // In Express 4 `app.router` throws, in Express 5 `app._router` is not there.
  const { stack } = app._router ?? app.router;
  const inner = search(stack, rest, route, 0, { layers: MAX_LAYERS });
  return inner === null ? '/*' : clip(outer + inner);
}

/**
 * @param {any[]} stack layers of a router
 * @param {string} rest of the mount
 * @param {any} route
 * @param {number} depth
 * @param {{ layers: number }} left
 * @returns {string | null} the pattern of the rest
 */
function search(stack, rest, route, depth, left) {
  if (rest === '' && stack.some((layer) => layer.route === route)) return '';
  if (depth >= MAX_DEPTH) return null;
  for (const layer of stack) {
    if (left.layers-- <= 0) return null;
    const inside = layer.handle?.stack;
    if (!Array.isArray(inside)) continue;
    const match = matchLayer(layer, rest);
    if (match === null) continue;
    const inner = search(inside, rest.slice(match.length), route, depth + 1, left);
    if (inner !== null) return match.pattern + inner;
  }
  return null;
}

/**
 * How much of a path a layer takes. The layer is not told: its own `match` would leave a mark in it.
 *
 * @param {any} layer
 * @param {string} rest
 * @returns {{ length: number, pattern: string } | null}
 */
function matchLayer(layer, rest) {
  if (layer.slash || layer.regexp?.fast_slash) return { length: 0, pattern: '' };
  /** @type {string | undefined} */
  let taken;
  /** @type {[string, unknown][]} */
  let values = [];
  let written;
  if (layer.regexp instanceof RegExp) {
    // Express 4.
    const match = layer.regexp.exec(rest);
    if (match === null) return null;
    taken = match[0];
    values = layer.keys.map((/** @type {any} */ key, /** @type {number} */ at) => [
      String(key.name),
      match[at + 1],
    ]);
  } else if (Array.isArray(layer.matchers)) {
    // Express 5; since 5.3 with what the app wrote.
    for (const [at, matcher] of layer.matchers.entries()) {
      const match = matcher(rest);
      if (!match) continue;
      taken = match.path;
      values = Object.entries(match.params);
      written = Array.isArray(layer.rawPath) ? layer.rawPath[at] : layer.rawPath;
      break;
    }
  }
  if (taken === undefined) return null;
  // As Express makes `baseUrl`.
  if (taken.endsWith('/')) taken = taken.slice(0, -1);
  const pattern = typeof written === 'string' ? join(written, '/') : masked(taken, values);
  return { length: taken.length, pattern };
}

/**
 * A path with its values replaced by their names.
 *
 * @param {string} path
 * @param {[string, unknown][]} values
 * @returns {string} `/*` if a value is not found
 */
function masked(path, values) {
  const segments = path.split('/');
  for (const [name, value] of values) {
    if (value === undefined) continue;
    const parts = (Array.isArray(value) ? value : String(value).split('/')).map(String);
    for (const part of parts) {
      if (part === '') continue;
      const same = (/** @type {string} */ segment) => segment === part || decoded(segment) === part;
      const holds = (/** @type {string} */ segment) => decoded(segment).includes(part);
      let at = segments.findIndex(same);
      if (at < 0) at = segments.findIndex(holds);
      if (at < 0) return '/*';
      segments[at] = /^\d/.test(name) ? '*' : `:${name}`;
    }
  }
  return segments.join('/');
}

/** @param {string} segment */
function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** @param {string} pattern */
function expressionOf(pattern) {
  const segments = pattern.split('/').map((segment) => {
    if (segment.includes('*')) return '.*';
    if (/[:(){}?+]/.test(segment)) return '[^/]+';
    return segment.replace(/[.\\[\]^$|-]/g, '\\$&');
  });
  return new RegExp(`^${segments.join('/')}$`, 'i');
}

/**
 * @param {string} mount
 * @param {string} path
 */
function join(mount, path) {
  if (path === '/') return mount === '' ? '/' : mount.replace(/\/$/, '');
  return mount + path;
}

/** @param {any} route */
function pathOf(route) {
  const { path } = route;
  return Array.isArray(path) ? path.map(String).join('|') : String(path);
}

/**
 * @param {string} method
 * @param {string} template
 * @returns {number}
 */
function rowOfTemplate(method, template) {
  let ofMethod = templates.get(method);
  if (ofMethod === undefined) {
    ofMethod = new Map();
    // Node's parser takes some forty methods and no other.
    templates.set(method, ofMethod);
  }
  let row = ofMethod.get(template);
  if (row === undefined) {
    row = rowNamed(`${method} ${template}`);
    if (ofMethod.size < MAX_TEMPLATES) ofMethod.set(template, row);
  }
  return row;
}

/**
 * @param {string} name
 * @returns {number}
 */
function rowNamed(name) {
  let row = rows.get(name);
  if (row === undefined) {
    const short = clip(name);
    row = rows.get(short);
    if (row === undefined) {
      if (names.length >= MAX_ROUTES) return OTHER;
      row = names.push(short) - 1;
      rows.set(short, row);
    }
  }
  return row;
}

/** @param {string} text */
function clip(text) {
  return text.length <= MAX_NAME ? text : `${text.slice(0, MAX_NAME - 1)}\u2026`;
}

/** Begins to count. */
function install() {
  if (installed) return;
  installed = true;
  pacedAt = clock.now();
  pacedEnded = ended;
  diagnostics.subscribe(START, onStart);
  diagnostics.subscribe(FINISH, onFinish);
  diagnostics.subscribe(FASTIFY, onFastify);
}

/** Counts no more. What was counted stays. */
function uninstall() {
  if (!installed) return;
  installed = false;
  diagnostics.unsubscribe(START, onStart);
  diagnostics.unsubscribe(FINISH, onFinish);
  diagnostics.unsubscribe(FASTIFY, onFastify);
  // Those under way will end unseen.
  started = ended;
}

/**
 * Tells the native guard how many requests there were.
 *
 * @param {any} native the native guard
 * @param {boolean} afterGc whether the heap was read after a major GC just now
 */
function report(native, afterGc) {
  if (!installed) return;
  pace();
  if (toldTo !== native) {
    toldTo = native;
    told = 0;
  }
  // Requests that had begun before the first was counted end as well.
  if (ended > started) started = ended;
  counts[UNFINISHED] = started - ended;
  native.recordRoutes(names.slice(told), counts.subarray(0, names.length), afterGc);
  told = names.length;
}

module.exports = { install, names, report, uninstall };
