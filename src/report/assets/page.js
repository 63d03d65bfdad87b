// What all parts of the page share: making elements, and words for numbers. Text is only ever set as text;
// nothing here or elsewhere parses markup.

/** @typedef {Node | string | number | null | undefined | false | Child[]} Child */

/**
 * An element with attributes, listeners (`onclick`) and children. A null or false attribute is left out.
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * The same for SVG.
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...Child} children
 * @returns {SVGElement}
 */
function vector(tag, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

/**
 * @template {Element} E
 * @param {E} element
 * @param {Record<string, any> | null | undefined} attributes
 * @param {Child[]} children
 * @returns {E}
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/**
 * A bar of a share between 0 and 1.
 * @param {number} share
 */
function bar(share) {
  const inner = el('i');
  inner.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el('span', { class: 'bar', 'aria-hidden': 'true' }, inner);
}

/**
 * A section of the page, with its entry in the navigation.
 * @param {string} id
 * @param {string} title
 * @param {Child} note one sentence on what is shown
 * @param {...Child} children
 */
function section(id, title, note, ...children) {
  return el(
    'section',
    { id, 'aria-labelledby': `${id}-title` },
    el('h2', { id: `${id}-title` }, title),
    note && el('p', { class: 'soft small' }, note),
    ...children,
  );
}

/**
 * `83.1 MB`; powers of 1024, as everywhere in leakguard.
 * @param {number} value
 */
function bytes(value) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let scaled = Math.abs(value);
  let unit = 0;
  while (scaled >= 1023.95 && unit + 1 < units.length) {
    scaled /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || scaled >= 99.95 ? 0 : 1;
  return `${value < 0 ? '−' : ''}${scaled.toFixed(digits)} ${units[unit]}`;
}

/** @param {number} value */
function grouped(value) {
  return Math.round(value).toLocaleString('en-US').replace('-', '−');
}

/**
 * @param {number} value
 * @param {(value: number) => string} format
 */
function signed(value, format) {
  return value > 0 ? `+${format(value)}` : format(value);
}

/**
 * What stands for the steps of a path that are folded away, and those steps.
 * @type {Map<HTMLElement, HTMLElement[]>}
 */
const foldedSteps = new Map();

/** @param {number} share 0 to 1 */
function percent(share) {
  const value = share * 100;
  return `${value >= 9.95 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}

/**
 * A value of a series in its unit.
 * @param {number} value
 * @param {string} unit
 */
function measure(value, unit) {
  if (unit === 'bytes') return bytes(value);
  if (unit === 'ratio') return percent(value);
  return Math.abs(value) < 100 && !Number.isInteger(value) ? value.toFixed(1) : grouped(value);
}

/**
 * A slope: per hour for bytes, per minute for things, as the guard's sentences have it.
 * @param {number} perHour
 * @param {string} unit
 */
function rate(perHour, unit) {
  if (unit === 'bytes') return `${signed(perHour, bytes)}/h`;
  return `${signed(perHour / 60, (value) => measure(value, unit))}/min`;
}

/**
 * Two units at most: `9 h 40 min`.
 * @param {number} ms
 */
function duration(ms) {
  const seconds = Math.round(ms / 1000);
  const [days, hours, minutes] = [
    Math.floor(seconds / 86400),
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 60) % 60,
  ];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 1) return `${minutes} min`;
  return `${seconds} s`;
}

/** Minutes east of UTC in which times are shown: the guard's own, where a finding tells it. */
let zone = 0;

/**
 * Times are shown in the zone of the process that was guarded, as its sentences and file names are.
 * @param {unknown[]} times as the guard wrote them
 */
function adoptZone(times) {
  for (const time of times) {
    const offset = typeof time === 'string' && /([+-])(\d\d):?(\d\d)$/.exec(time);
    if (offset) {
      zone = (Number(offset[2]) * 60 + Number(offset[3])) * (offset[1] === '-' ? -1 : 1);
      return;
    }
  }
}

function zoneName() {
  if (zone === 0) return 'UTC';
  const size = Math.abs(zone);
  const two = (/** @type {number} */ value) => String(value).padStart(2, '0');
  return `UTC${zone < 0 ? '−' : '+'}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

/**
 * `2026-01-31 14:02:10`, in the zone of the report.
 * @param {number} ms since 1970
 */
function moment(ms) {
  const shifted = new Date(ms + zone * 60000);
  return Number.isNaN(shifted.getTime())
    ? ''
    : shifted.toISOString().slice(0, 19).replace('T', ' ');
}

/**
 * @param {unknown} time as the guard wrote it: milliseconds since 1970 or an ISO date
 * @returns {number} milliseconds since 1970; NaN if it is neither
 */
function instant(time) {
  if (typeof time === 'number') return time;
  return typeof time === 'string' ? Date.parse(time) : Number.NaN;
}

/**
 * @param {{ file: string, line: number, column: number, function: string } | null | undefined} site
 * @returns {Child}
 */
function place(site) {
  if (!site?.file) return null;
  const line = site.line ? `:${site.line}${site.column ? `:${site.column}` : ''}` : '';
  const name = site.function ? ` (${site.function})` : '';
  return [el('code', null, `${site.file.replace(/^file:\/\//, '')}${line}`), name];
}

/**
 * A sentence with its `quoted code` and the places it names set as code; of a long path the end, which tells most.
 * @param {string} text
 * @returns {Child[]}
 */
function prose(text) {
  const tidy = text.replaceAll(' -> ', ' → ');
  return tidy
    .split(/(`[^`]*`|(?:file:\/\/|node:)?[\w.@-]*[/\\][^\s,;'"]+:\d+)/)
    .map((part, index) => {
      if (index % 2 === 0) return part;
      if (part.startsWith('`')) return el('code', null, part.slice(1, -1));
      const segments = part.split(/[/\\]/);
      const short =
        segments.length > 3 && !part.startsWith('node:')
          ? `…/${segments.slice(-2).join('/')}`
          : part;
      return el('code', { title: part }, short);
    });
}

/**
 * Pairs of term and description; those without a description are left out.
 * @param {string} style
 * @param {[string, Child][]} pairs
 */
function pairs(style, pairs) {
  const told = pairs.filter(
    ([, value]) => value !== null && value !== undefined && value !== false && value !== '',
  );
  const items = told.map(([term, value]) => [el('dt', null, term), el('dd', null, value)]);
  if (style === 'facts') {
    return el(
      'dl',
      { class: style },
      items.map((item) => el('div', null, item)),
    );
  }
  return told.length > 0 && el('dl', { class: style }, items);
}

/** @param {string} text */
function fileName(text) {
  return text.split(/[/\\]/).pop() ?? text;
}
