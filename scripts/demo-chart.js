'use strict';

/**
 * Draws what the guard sees as lines of text: two charts over one axis of time, and a few words. Pure: the
 * picture is an argument, the lines are the result; who writes them where is in demo.js.
 */

const MEGABYTE = 1024 * 1024;

const BLOCKS = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const STEPS_PER_CELL = BLOCKS.length - 1;

/** Columns for the scale on the left, its border included. */
const SCALE_COLUMNS = 11;
const MAX_PLOT_COLUMNS = 96;
const MIN_PLOT_COLUMNS = 20;
const MAX_PLOT_ROWS = 8;
const MIN_PLOT_ROWS = 3;
/** The smallest screen that can be redrawn in place. */
const MIN_SCREEN = Object.freeze({ columns: SCALE_COLUMNS + MIN_PLOT_COLUMNS + 1, rows: 17 });
/** Lines that are not plot: titles, axis, words, and one to spare for the cursor. */
const OTHER_ROWS = 11;

const STYLES = Object.freeze({
  bold: 1,
  dim: 2,
  red: 31,
  green: 32,
  yellow: 33,
  cyan: 36,
});

/**
 * @typedef {object} Reading
 * @property {number} ms since the start of the demo
 * @property {number} value
 */

/**
 * @typedef {object} Picture
 * @property {string} title
 * @property {number} nowMs since the start of the demo
 * @property {number} lengthMs of the whole demo, the width of the charts
 * @property {number} warmupMs
 * @property {string} state what the guard says it does
 * @property {number} requests served so far
 * @property {Reading[]} heap live heap, bytes
 * @property {Reading[]} listeners on the emitter that has most
 * @property {string} listenersWhere emitter and line, empty if unknown
 * @property {string} news the last thing that happened
 */

/**
 * @typedef {object} Screen
 * @property {number} columns
 * @property {number} rows
 * @property {boolean} colour
 */

/**
 * @param {boolean} colour
 * @returns {(text: string, ...styles: (keyof typeof STYLES)[]) => string}
 */
function painter(colour) {
  if (!colour) return (text) => text;
  return (text, ...styles) =>
    `\x1b[${styles.map((style) => STYLES[style]).join(';')}m${text}\x1b[0m`;
}

/** @param {number} bytes */
function megabytes(bytes) {
  return `${(bytes / MEGABYTE).toFixed(1)} MB`;
}

/** @param {number} count */
function thousands(count) {
  return Math.round(count).toLocaleString('en');
}

/**
 * The newest value at the end of each column; none where the column lies in the future or before the
 * first reading.
 *
 * @param {Reading[]} readings in the order of time
 * @param {number} columns
 * @param {Picture} picture
 * @returns {(number | undefined)[]}
 */
function sampled(readings, columns, { nowMs, lengthMs }) {
  return Array.from({ length: columns }, (_, column) => {
    const from = (column / columns) * lengthMs;
    const to = ((column + 1) / columns) * lengthMs;
    if (from > nowMs) return undefined;
    return readings.findLast(({ ms }) => ms <= to)?.value;
  });
}

/**
 * The next round number (1, 2 or 5 times a power of ten) for the top of a scale.
 *
 * @param {number} value
 */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5].find((factor) => factor * power >= value) ?? 10) * power;
}

/**
 * The cell of a bar in one row of a chart.
 *
 * @param {number} share of the scale, 0 to 1
 * @param {number} rows of the chart
 * @param {number} below steps of the bar that belong to the rows below
 */
function block(share, rows, below) {
  // A value that is there shows, however small.
  const steps = Math.max(1, Math.round(share * rows * STEPS_PER_CELL));
  return BLOCKS[Math.min(Math.max(steps - below, 0), STEPS_PER_CELL)];
}

/**
 * One chart.
 *
 * @param {(number | undefined)[]} values by column
 * @param {number} rows
 * @param {number} top of the scale
 * @param {(value: number) => string} label
 * @param {(value: number) => keyof typeof STYLES} style of the column with this value
 * @param {ReturnType<typeof painter>} paint
 * @returns {string[]}
 */
function plot(values, rows, top, label, style, paint) {
  return Array.from({ length: rows }, (_, row) => {
    const below = (rows - 1 - row) * STEPS_PER_CELL;
    let cells = '';
    let run = '';
    /** @type {keyof typeof STYLES | undefined} */
    let runStyle;
    for (const value of [...values, undefined]) {
      const column = value === undefined ? undefined : style(value);
      if (column !== runStyle) {
        cells += runStyle ? paint(run, runStyle) : run;
        run = '';
        runStyle = column;
      }
      run += value === undefined ? ' ' : block(value / top, rows, below);
    }
    const scale = row === 0 ? label(top) : row === rows - 1 ? label(0) : '';
    return `${paint(`${scale.padStart(SCALE_COLUMNS - 2)} │`, 'dim')}${cells}`;
  });
}

/**
 * @param {string} text
 * @param {number} columns
 */
function clipped(text, columns) {
  return text.length <= columns ? text : `${text.slice(0, Math.max(columns - 1, 0))}…`;
}

/**
 * The axis of time below the charts.
 *
 * @param {number} columns of the plot
 * @param {Picture} picture
 */
function axis(columns, { lengthMs, warmupMs }) {
  const border = ' '.repeat(SCALE_COLUMNS - 1);
  const mark = Math.min(Math.round((warmupMs / lengthMs) * columns), columns - 1);
  const line = `${'─'.repeat(mark)}┴${'─'.repeat(columns - mark - 1)}`;
  const end = `${Math.round(lengthMs / 1000)} s`;
  const words = `${' '.repeat(mark)}warm-up ends`;
  const spaces = ' '.repeat(Math.max(columns - words.length - end.length, 1));
  return [`${border}└${line}`, `${border} ${clipped(words + spaces + end, columns)}`];
}

/**
 * All lines of a frame; none is longer than the screen is wide.
 *
 * @param {Picture} picture
 * @param {Screen} screen
 * @returns {string[]}
 */
function frame(picture, { columns, rows, colour }) {
  const paint = painter(colour);
  const width = Math.min(Math.max(columns - SCALE_COLUMNS - 1, MIN_PLOT_COLUMNS), MAX_PLOT_COLUMNS);
  const height = Math.min(
    Math.max(Math.floor((rows - OTHER_ROWS) / 2), MIN_PLOT_ROWS),
    MAX_PLOT_ROWS,
  );
  const { title, nowMs, state, requests, heap, listeners, listenersWhere, news } = picture;
  const first = heap[0]?.value ?? 1;
  const heapMost = Math.max(2 * first, ...heap.map(({ value }) => value * 1.1));
  const heapTop = roundUp(heapMost / MEGABYTE) * MEGABYTE;
  const listenersTop = roundUp(Math.max(100, ...listeners.map(({ value }) => value * 1.1)));
  const heapNow = heap.at(-1)?.value;
  const listenersNow = listeners.at(-1)?.value;
  const seconds = Math.floor(nowMs / 1000);

  return [
    paint(clipped(title, columns), 'bold'),
    clipped(`${seconds} s · ${thousands(requests)} requests · guard: ${state}`, columns),
    '',
    clipped(
      `live heap ${heapNow === undefined ? 'not read yet' : megabytes(heapNow)}${
        heapNow !== undefined && heap.length > 1
          ? `, ${signed(heapNow - first)} since the first reading`
          : ''
      }`,
      columns,
    ),
    ...plot(
      sampled(heap, width, picture),
      height,
      heapTop,
      (value) => (value === 0 ? '0' : `${Math.round(value / MEGABYTE)} MB`),
      (value) => (value < 1.3 * first ? 'green' : value < 2 * first ? 'yellow' : 'red'),
      paint,
    ),
    clipped(
      `listeners on one emitter ${listenersNow === undefined ? '–' : thousands(listenersNow)}${
        listenersWhere && `, ${listenersWhere}`
      }`,
      columns,
    ),
    ...plot(
      sampled(listeners, width, picture),
      height,
      listenersTop,
      thousands,
      (value) => (value <= 10 ? 'green' : value < 100 ? 'yellow' : 'red'),
      paint,
    ),
    ...axis(width, picture).map((line) => paint(line, 'dim')),
    paint(clipped(news, columns), 'cyan'),
  ];
}

/** @param {number} bytes */
function signed(bytes) {
  return `${bytes < 0 ? '−' : '+'}${megabytes(Math.abs(bytes))}`;
}

/**
 * The same in one line, for where nothing can be redrawn.
 *
 * @param {Picture} picture
 */
function plainLine({ nowMs, state, requests, heap, listeners, listenersWhere }) {
  const heapNow = heap.at(-1)?.value;
  const listenersNow = listeners.at(-1)?.value;
  const parts = [
    `${Math.round(nowMs / 1000)} s`.padStart(5),
    `live heap ${heapNow === undefined ? 'not read yet' : megabytes(heapNow)}`,
    `listeners ${listenersNow === undefined ? '–' : thousands(listenersNow)}${
      listenersWhere && ` (${listenersWhere})`
    }`,
    `${thousands(requests)} requests`,
    `guard: ${state}`,
  ];
  return parts.join('  ');
}

module.exports = { MIN_SCREEN, frame, megabytes, painter, plainLine, thousands };
