// Line charts over one common time axis, with what happened marked in them. One cursor runs through all of them,
// by pointer or by the arrow keys.

const CHART_HEIGHT = 150;
const CHART_MARGIN = { left: 54, right: 12, top: 18, bottom: 20 };
/** Distances of time ticks, ms. */
const TIME_STEPS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800,
  604800, 2592000, 31536000,
].map((seconds) => seconds * 1000);

/**
 * @typedef {[number, number]} Point milliseconds since 1970, and a value
 *
 * @typedef {object} Line
 * @property {Point[]} points in order of time
 * @property {boolean} [cut] the process died at its end
 *
 * @typedef {object} Chart
 * @property {string} title
 * @property {string} unit
 * @property {Line[]} lines
 * @property {{ from: Point, to: Point } | null} [trend] the slope that was found
 * @property {number | null} [perHour] that slope
 * @property {number} [limit] the value at which the process ends
 *
 * @typedef {object} Mark
 * @property {number} at milliseconds since 1970
 * @property {'finding' | 'snapshot' | 'refused'} kind
 * @property {string} label
 * @property {string} [flag] short text at the mark
 */

/**
 * @param {Chart[]} charts
 * @param {Mark[]} marks
 * @returns {Child}
 */
function timeline(charts, marks) {
  const drawn = charts.filter((chart) => chart.lines.some((line) => line.points.length > 1));
  const times = drawn.flatMap(({ lines }) =>
    lines.flatMap(({ points }) =>
      points.length > 0 ? [points[0][0], points[points.length - 1][0]] : [],
    ),
  );
  if (times.length === 0) return null;
  let [start, end] = [Math.min(...times), Math.max(...times)];
  // What happened just outside belongs to the picture, what happened long before does not.
  const reach = (end - start) * 0.15 + 60000;
  const near = marks.filter(({ at }) => at >= start - reach && at <= end + reach);
  for (const { at } of near) [start, end] = [Math.min(start, at), Math.max(end, at)];
  if (end === start) end = start + 1000;

  /** @type {((at: number | null) => void)[]} */
  const cursors = [];
  const moveCursors = (/** @type {number | null} */ at) => {
    for (const move of cursors) move(at);
  };
  const figures = drawn.map((chart) => figure(chart, near, start, end, moveCursors, cursors));
  const kinds = new Set(near.map(({ kind }) => kind));
  const sign = (/** @type {SVGElement} */ shape) =>
    vector('svg', { viewBox: '0 0 14 14', class: 'chart', 'aria-hidden': 'true' }, shape);
  const legend = [
    kinds.has('finding') && [sign(vector('path', { class: 'finding', d: 'M7 1V13' })), 'finding'],
    kinds.has('snapshot') && [sign(snapshotShape(7, 7)), 'snapshot'],
    kinds.has('refused') && [sign(refusedShape(7, 7)), 'refused'],
    drawn.some(({ trend }) => trend) && [
      sign(vector('path', { class: 'trend', d: 'M1 12L13 2' })),
      'slope that was found',
    ],
    drawn.some(({ lines }) => lines.some(({ cut }) => cut)) && [
      sign(cutShape(7, 7)),
      'ended without exit',
    ],
  ];
  return [
    el('div', { class: 'charts' }, figures),
    el(
      'p',
      { class: 'legend' },
      legend.filter(Boolean).map((entry) => el('span', null, entry || [])),
      el('span', null, `times in ${zoneName()}`),
    ),
  ];
}

/**
 * @param {Chart} chart
 * @param {Mark[]} marks
 * @param {number} start
 * @param {number} end
 * @param {(at: number | null) => void} moveCursors
 * @param {((at: number | null) => void)[]} cursors
 */
function figure(chart, marks, start, end, moveCursors, cursors) {
  const all = chart.lines.flatMap(({ points }) => points).sort((a, b) => a[0] - b[0]);
  const last = all[all.length - 1];
  const values = all.map(([, value]) => value);
  const heights = chart.trend ? [...values, chart.trend.from[1], chart.trend.to[1]] : [...values];
  // A limit far above would flatten the line.
  const limit = chart.limit && chart.limit < 1.5 * Math.max(...values) ? chart.limit : null;
  if (limit !== null) heights.push(limit);
  const summary =
    `${measure(last[1], chart.unit)}` +
    (chart.perHour === null || chart.perHour === undefined
      ? ''
      : ` · ${rate(chart.perHour, chart.unit)}`);
  const readout = el('output', null, summary);
  const svg = vector('svg', {
    class: 'chart',
    tabindex: '0',
    role: 'slider',
    'aria-label': `${chart.title}, from ${measure(all[0][1], chart.unit)} to ${measure(last[1], chart.unit)}`,
    'aria-valuemin': '0',
    'aria-valuemax': String(all.length - 1),
  });
  let width = 0;
  let x = (/** @type {number} */ at) => at;
  let y = (/** @type {number} */ value) => value;
  const cursor = vector('g');

  /** @param {number} index */
  function say(index) {
    const [at, value] = all[index];
    svg.setAttribute('aria-valuenow', String(index));
    svg.setAttribute('aria-valuetext', `${moment(at)}, ${measure(value, chart.unit)}`);
  }
  say(all.length - 1);

  /** @param {number | null} at */
  function showCursor(at) {
    if (at === null) {
      cursor.replaceChildren();
      readout.textContent = summary;
      return;
    }
    const index = nearest(all, at);
    const [time, value] = all[index];
    say(index);
    cursor.replaceChildren(
      vector('path', {
        class: 'cursor',
        d: `M${x(time)} ${CHART_MARGIN.top}V${CHART_HEIGHT - CHART_MARGIN.bottom}`,
      }),
      vector('circle', { class: 'dot', cx: x(time), cy: y(value), r: 4 }),
    );
    readout.textContent = `${moment(time)} · ${measure(value, chart.unit)}`;
  }
  cursors.push(showCursor);

  function draw() {
    const area = {
      left: CHART_MARGIN.left,
      right: width - CHART_MARGIN.right,
      top: CHART_MARGIN.top,
      bottom: CHART_HEIGHT - CHART_MARGIN.bottom,
    };
    const ticks = valueTicks(Math.min(...heights), Math.max(...heights), chart.unit);
    const [low, high] = [ticks[0], ticks[ticks.length - 1]];
    x = (at) => round(area.left + ((at - start) / (end - start)) * (area.right - area.left));
    y = (value) => round(area.bottom - ((value - low) / (high - low)) * (area.bottom - area.top));
    svg.setAttribute('viewBox', `0 0 ${width} ${CHART_HEIGHT}`);
    svg.replaceChildren(
      ...ticks.map((tick) =>
        vector(
          'g',
          null,
          vector('path', { class: 'grid', d: `M${area.left} ${y(tick)}H${area.right}` }),
          vector(
            'text',
            { x: area.left - 6, y: y(tick) + 4, 'text-anchor': 'end' },
            tick === 0 ? '0' : measure(tick, chart.unit).replace('.0 ', ' '),
          ),
        ),
      ),
      ...timeTicks(start, end, Math.max(2, Math.floor(width / 90))).map(({ at, words }) =>
        vector('text', { x: x(at), y: CHART_HEIGHT - 5, 'text-anchor': 'middle' }, words),
      ),
      ...chart.lines.flatMap((line) => drawLine(line, area.bottom)),
    );
    if (chart.trend) {
      const { from, to } = chart.trend;
      svg.append(
        vector('path', {
          class: 'trend',
          d: `M${x(from[0])} ${y(from[1])}L${x(to[0])} ${y(to[1])}`,
        }),
      );
    }
    if (limit !== null) {
      svg.append(
        vector('path', { class: 'limit', d: `M${area.left} ${y(limit)}H${area.right}` }),
        vector(
          'text',
          { class: 'flag', x: area.left + 4, y: y(limit) - 4 },
          `limit ${measure(limit, chart.unit)}`,
        ),
      );
    }
    for (const mark of marks) svg.append(drawMark(mark, area));
    svg.append(cursor);
  }

  /**
   * @param {Line} line
   * @param {number} bottom
   */
  function drawLine({ points, cut }, bottom) {
    if (points.length === 0) return [];
    const path = points.map(([at, value]) => `${x(at)} ${y(value)}`).join('L');
    const end = points[points.length - 1];
    return [
      vector('path', {
        class: 'area',
        d: `M${path}L${x(end[0])} ${bottom}L${x(points[0][0])} ${bottom}Z`,
      }),
      vector('path', { class: 'line', d: `M${path}` }),
      ...(cut ? [cutShape(x(end[0]), y(end[1]))] : []),
    ];
  }

  /**
   * @param {Mark} mark
   * @param {{ top: number, bottom: number }} area
   */
  function drawMark({ at, kind, label, flag }, { top, bottom }) {
    const title = vector('title', null, `${moment(at)} ${label}`);
    if (kind === 'finding') {
      return vector(
        'g',
        { class: 'mark' },
        title,
        vector('path', { class: 'finding', d: `M${x(at)} ${top}V${bottom}` }),
        vector(
          'text',
          {
            class: 'flag',
            x: x(at),
            y: top - 6,
            'text-anchor': x(at) > width - 40 ? 'end' : 'middle',
          },
          flag ?? '',
        ),
      );
    }
    const shape = kind === 'snapshot' ? snapshotShape(x(at), bottom) : refusedShape(x(at), bottom);
    return vector('g', { class: 'mark' }, title, shape);
  }

  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const { clientX } = /** @type {PointerEvent} */ (event);
    const at = ((clientX - box.left) / box.width) * width;
    const inside = (at - CHART_MARGIN.left) / (width - CHART_MARGIN.left - CHART_MARGIN.right);
    moveCursors(start + inside * (end - start));
  });
  svg.addEventListener('pointerleave', () => moveCursors(null));
  svg.addEventListener('blur', () => moveCursors(null));
  svg.addEventListener('keydown', (event) => {
    const { key } = /** @type {KeyboardEvent} */ (event);
    const now = Number(svg.getAttribute('aria-valuenow'));
    const page = Math.max(1, Math.round(all.length / 10));
    const to = {
      ArrowLeft: now - 1,
      ArrowRight: now + 1,
      PageUp: now - page,
      PageDown: now + page,
      Home: 0,
      End: all.length - 1,
      Escape: -1,
    }[key];
    if (to === undefined) return;
    event.preventDefault();
    if (key === 'Escape') moveCursors(null);
    else moveCursors(all[Math.max(0, Math.min(all.length - 1, to))][0]);
  });
  const resize = () => {
    const room = Math.round(svg.getBoundingClientRect().width) || 480;
    if (room === width) return;
    width = room;
    draw();
  };
  width = 480;
  draw();
  new ResizeObserver(resize).observe(svg);
  return el(
    'figure',
    { class: 'card' },
    el('figcaption', null, el('span', null, prose(chart.title)), readout),
    svg,
  );
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 10) / 10;
}

/**
 * @param {number} x
 * @param {number} y
 */
function snapshotShape(x, y) {
  return vector('path', { class: 'snapshot', d: `M${x} ${y - 5}l5 5l-5 5l-5 -5z` });
}

/**
 * @param {number} x
 * @param {number} y
 */
function refusedShape(x, y) {
  return vector('circle', { class: 'refused', cx: x, cy: y, r: 4 });
}

/**
 * @param {number} x
 * @param {number} y
 */
function cutShape(x, y) {
  return vector('path', { class: 'cut', d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8` });
}

/**
 * The point nearest in time.
 * @param {Point[]} points
 * @param {number} at
 */
function nearest(points, at) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= at) low = middle;
    else high = middle;
  }
  return at - points[low][0] <= points[high][0] - at ? low : high;
}

/**
 * Three to six round values that enclose all of them; from zero, unless that would flatten the line.
 * @param {number} low
 * @param {number} high
 * @param {string} unit
 */
function valueTicks(low, high, unit) {
  const from = low > 0 && low > high * 0.6 && low < high ? low : Math.min(0, low);
  const span = high - from || Math.abs(high) || 1;
  const base =
    unit === 'bytes' ? 1024 ** Math.max(0, Math.floor(Math.log(span / 2) / Math.log(1024))) : 1;
  const rough = span / 3 / base;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5, 10].find((each) => each * magnitude >= rough) ?? 10;
  let step = factor * magnitude * base;
  if (unit === 'count') step = Math.max(1, Math.round(step));
  const ticks = [];
  for (
    let tick = Math.floor(from / step) * step;
    tick < high + step * 0.999 && ticks.length < 12;
    tick += step
  ) {
    ticks.push(tick);
  }
  if (ticks.length < 2) ticks.push(ticks[0] + step);
  return ticks;
}

/**
 * @param {number} start
 * @param {number} end
 * @param {number} most
 */
function timeTicks(start, end, most) {
  const step = TIME_STEPS.find((each) => (end - start) / each <= most) ?? (end - start) / most;
  const shift = zone * 60000;
  const ticks = [];
  for (let at = Math.ceil((start + shift) / step) * step - shift; at <= end; at += step) {
    const text = moment(at);
    const words =
      step >= 86400000 ? text.slice(5, 10) : step < 60000 ? text.slice(11) : text.slice(11, 16);
    // At midnight the day says more than 00:00.
    ticks.push({
      at,
      words: step < 86400000 && step >= 60000 && words === '00:00' ? text.slice(5, 10) : words,
    });
  }
  return ticks;
}

/**
 * A line small enough for a table.
 * @param {Point[]} points
 * @param {number} longest ms: the span that fills the width
 * @param {number} highest the value that fills the height
 */
function spark(points, longest, highest) {
  if (points.length < 2 || !(longest > 0) || !(highest > 0)) return null;
  const line = points
    .map(
      ([at, value]) =>
        `${round(((at - points[0][0]) / longest) * 108 + 1)} ${round(23 - (value / highest) * 21)}`,
    )
    .join('L');
  return vector(
    'svg',
    { class: 'chart spark', viewBox: '0 0 110 24', 'aria-hidden': 'true' },
    vector('path', { class: 'line', d: `M${line}` }),
  );
}

/** How series are spoken of. */
const SERIES_WORDS = {
  live_heap: 'Live heap',
  array_buffers: 'ArrayBuffers',
  external: 'External memory',
  native: 'Native memory',
  rss: 'Resident memory',
  cgroup_used: 'Container memory',
  listeners: 'Listeners',
  handles: 'Handles',
  fds: 'Open descriptors',
  timers: 'Timers',
  threads: 'Threads',
  heap_used: 'Heap in use, garbage included',
  heap_total: 'Heap committed',
  loop_utilization: 'Event loop in use',
};

/** @param {string} id */
function seriesWords(id) {
  return SERIES_WORDS[/** @type {keyof typeof SERIES_WORDS} */ (id)] ?? id;
}

/**
 * The points of a finding's series in wall time. The guard counts from its start; the last reading of all is
 * the one the finding was made at.
 * @param {{ time: unknown, series?: any[] }} finding
 * @returns {{ id: string, unit: string, perHour: number | null, points: Point[], trend: any, emitter: string | null }[]}
 */
function findingSeries(finding) {
  const series = (finding.series ?? []).filter((each) => Array.isArray(each?.points));
  const lasts = series.map(({ points }) => Number(points[points.length - 1]?.[0] ?? 0));
  const newest = Math.max(0, ...lasts);
  const made = instant(finding.time);
  const shift = newest < 1e11 && Number.isFinite(made) ? made - newest : 0;
  return series.map((each) => {
    const points = each.points
      .filter(
        (/** @type {any} */ point) => Number.isFinite(point?.[0]) && Number.isFinite(point?.[1]),
      )
      .map((/** @type {Point} */ [at, value]) => [at + shift, value]);
    const perHour = Number.isFinite(each.slopePerHour) ? each.slopePerHour : null;
    const last = points[points.length - 1];
    let trend = null;
    if (last && perHour !== null && each.windowMs > 0) {
      const from = Math.max(points[0][0], last[0] - each.windowMs);
      const inWindow = points.filter((/** @type {Point} */ [at]) => at >= from);
      const middle =
        inWindow.reduce(
          (/** @type {number} */ sum, /** @type {Point} */ [, value]) => sum + value,
          0,
        ) / inWindow.length;
      const half = ((last[0] - from) / 3.6e6 / 2) * perHour;
      trend = { from: [from, middle - half], to: [last[0], middle + half] };
    }
    return {
      id: String(each.id ?? ''),
      unit: String(each.unit ?? ''),
      perHour,
      points,
      trend,
      emitter: each.emitter ?? null,
    };
  });
}

/** @param {ReturnType<typeof findingSeries>[number]} series */
function chartOfSeries({ id, unit, perHour, points, trend, emitter }) {
  return {
    title: emitter ? `${seriesWords(id)} on ${emitter}` : seriesWords(id),
    unit,
    perHour,
    trend,
    lines: [{ points }],
  };
}
