// The status page: what the guard of one process knows, fetched from where the page came from and drawn anew while
// it is looked at. It holds no data of its own, and asks nobody else.

/** Spans of the charts, with how often each is worth fetching again, ms. */
const SPANS = /** @type {const} */ ([
  ['5m', '5 min', 2000],
  ['1h', '1 h', 5000],
  ['6h', '6 h', 30000],
  ['1d', '27 h', 60000],
]);
/** An answer that takes longer is none. */
const FETCH_DEADLINE_MS = 15000;
/** Charts that were touched stand still for so long. */
const HANDS_OFF_MS = 6000;
/** Emitters that get a chart. */
const CHARTED_EMITTERS = 4;

/** Charts in the order of how much they tell; what has no points is left out. */
const CHARTED = [
  'live_heap',
  'heap_used',
  'rss',
  'native',
  'array_buffers',
  'external',
  'loop_utilization',
  'handles',
  'fds',
  'timers',
  'threads',
  'cgroup_used',
];

const STATE_WORDS = {
  starting: 'The guard is starting',
  'warm-up': 'Warming up: nothing is judged yet',
  armed: 'Nothing leaks as far as the guard can tell',
  collecting: 'A leak was found, and evidence is being collected',
  stopped: 'The guard has stopped',
  failed: 'The guard has failed',
};

/** @typedef {[string, string, number]} Span */

let span = '1h';
/** @type {number | null} the isolate that is shown; null: the one that answers */
let shownIsolate = null;
let touched = 0;
/** @type {any} the model that is drawn */
let drawn = null;
/** What each part was last drawn from. @type {Map<Element, string>} */
const sources = new Map();
let timer = 0;

const parts = {
  head: el('div'),
  charts: el('div', { class: 'live-charts' }),
  findings: el('div'),
  listeners: el('div'),
  evidence: el('div'),
  numbers: el('div'),
};
const liveness = el('output', { class: 'liveness' }, 'asking');
const spans = SPANS.map(([name, words]) =>
  el(
    'button',
    { type: 'button', class: 'span', 'aria-pressed': String(name === span), onclick: choose },
    words,
  ),
);

/** @param {Event} event */
function choose(event) {
  const index = spans.indexOf(/** @type {HTMLElement} */ (event.currentTarget));
  span = SPANS[index][0];
  spans.forEach((button, at) => {
    button.setAttribute('aria-pressed', String(at === index));
  });
  touched = 0;
  refresh();
}

/**
 * Draws a part, if what it shows has changed: what a reader has unfolded or sorted stays as it is.
 * @param {Element} part
 * @param {unknown} source
 * @param {() => Child} draw
 */
function show(part, source, draw) {
  const text = JSON.stringify(source) ?? '';
  if (sources.get(part) === text) return;
  sources.set(part, text);
  part.replaceChildren();
  fill(part, null, [draw()]);
}

async function refresh() {
  clearTimeout(timer);
  const every = SPANS.find(([name]) => name === span)?.[2] ?? 5000;
  if (!document.hidden) await ask();
  clearTimeout(timer);
  timer = setTimeout(refresh, every);
}

async function ask() {
  const query = `?format=json&span=${span}${shownIsolate === null ? '' : `&isolate=${shownIsolate}`}`;
  try {
    const response = await fetch(query, {
      headers: { accept: 'application/json' },
      signal: AbortSignal.timeout(FETCH_DEADLINE_MS),
    });
    if (response.status === 401 || response.status === 404) {
      location.reload();
      return;
    }
    if (!response.ok) throw new Error(response.status === 503 ? 'the guard is not running' : '');
    draw(await response.json());
    liveness.textContent = `live · ${moment(drawn.time).slice(11)}`;
    liveness.className = 'liveness';
  } catch (error) {
    const why = error instanceof Error ? error.message : '';
    liveness.textContent = why || 'no answer';
    liveness.className = 'liveness lost';
  }
}

/** @param {any} model */
function draw(model) {
  drawn = model;
  const { findings, isolate, process: own } = model;
  document.title = `${findings.length > 0 ? `(${findings.length}) ` : ''}${model.app.name} · leakguard`;
  show(parts.head, [model.time], () => statusHead(model));
  // A chart that is being read is not pulled away.
  if (Date.now() - touched > HANDS_OFF_MS) show(parts.charts, [model.time], () => charts(model));
  show(parts.findings, findings, () => findings.map(foundCard));
  show(parts.listeners, [isolate?.listeners, isolate?.handles], () => held(isolate));
  show(parts.evidence, [model.snapshots, model.refusals, model.previousRuns], () =>
    evidence(model),
  );
  show(parts.numbers, [own.series, isolate?.series, model.settings, model.cost], () =>
    numbers(model),
  );
}

/** @param {any} model */
function statusHead(model) {
  const { findings, isolate, app, limits, process: own } = model;
  const newest = findings[findings.length - 1];
  const live = isolate?.series.live_heap;
  const headline = newest
    ? newest.sentence.split('; ')[0]
    : STATE_WORDS[/** @type {keyof typeof STATE_WORDS} */ (model.state)];
  return [
    el('h1', { class: newest ? 'leak' : null }, prose(capital(headline ?? model.state))),
    pairs('facts', [
      ['Live heap', live && amount(live.last, limits.heapBytes, 'bytes')],
      ['Resident', own.series.rss && amount(own.series.rss.last, limits.containerBytes, 'bytes')],
      [
        'Event loop',
        isolate?.series.loop_utilization && percent(isolate.series.loop_utilization.last),
      ],
      ['Findings', grouped(findings.length)],
      ['Up', duration(model.uptimeMs)],
      [
        'Process',
        [`${model.pid}`, el('small', null, ` ${app.name} ${app.version}, Node ${model.node}`)],
      ],
    ]),
    model.failure && el('p', { class: 'note' }, prose(model.failure)),
    model.directoryProblem && el('p', { class: 'note' }, prose(model.directoryProblem)),
    !model.ready && el('p', { class: 'note' }, 'A snapshot is stopping a loop of this process.'),
    model.isolates.length > 1 && isolateChoice(model),
  ];
}

/**
 * @param {number} value
 * @param {number | null} limit
 * @param {string} unit
 */
function amount(value, limit, unit) {
  return [measure(value, unit), limit !== null && el('small', null, ` of ${measure(limit, unit)}`)];
}

/** @param {any} model */
function isolateChoice(model) {
  const options = model.isolates.map((/** @type {any} */ { id, tid, liveHeapBytes }) =>
    el(
      'option',
      { value: id, selected: id === model.isolate?.id },
      `${tid === 0 ? 'main thread' : `worker ${tid}`}${
        liveHeapBytes === null ? '' : `, ${bytes(liveHeapBytes)}`
      }`,
    ),
  );
  const select = el('select', { onchange: () => chooseIsolate(select) }, options);
  return el('p', { class: 'tools' }, el('label', null, 'Heap, handles and listeners of ', select));
}

/** @param {HTMLElement} select */
function chooseIsolate(select) {
  shownIsolate = Number(/** @type {HTMLSelectElement} */ (select).value);
  touched = 0;
  refresh();
}

/** @param {any} model */
function charts(model) {
  const { isolate, limits, process: own } = model;
  /** @type {Record<string, number | null>} */
  const limitOf = {
    live_heap: limits.heapBytes,
    heap_used: limits.heapBytes,
    rss: limits.containerBytes,
    cgroup_used: limits.containerBytes,
  };
  const series = { ...own.series, ...isolate?.series };
  const known = CHARTED.filter((id) => series[id]);
  const lines = known.map((id) =>
    lineChart(seriesWords(id), series[id], series[id].growing?.slopePerHour, limitOf[id]),
  );
  const emitters = (isolate?.listeners ?? []).slice(0, CHARTED_EMITTERS);
  for (const line of emitters) {
    const title = `Listeners: ${line.emitter} '${line.event}'`;
    lines.push(lineChart(title, { ...line, unit: 'count' }, line.growthPerMin * 60, null));
  }
  const marks = [
    ...model.findings.map((/** @type {any} */ { time, sentence }, /** @type {number} */ at) => ({
      at: instant(time),
      kind: 'finding',
      label: sentence,
      flag: `${at + 1}`,
    })),
    ...model.snapshots.map((/** @type {any} */ { ended, file }) => ({
      at: instant(ended),
      kind: 'snapshot',
      label: file,
    })),
  ].filter(({ at }) => Number.isFinite(at));
  const focused = [...parts.charts.querySelectorAll('svg[tabindex]')].indexOf(
    /** @type {Element} */ (document.activeElement),
  );
  const figures = timeline(lines, marks);
  if (figures === null) return el('p', { class: 'soft' }, 'The first points come in a moment.');
  if (focused >= 0) {
    // Drawn anew, it is still the chart that the keys move in.
    queueMicrotask(() => {
      const again = parts.charts.querySelectorAll('svg[tabindex]')[focused];
      /** @type {any} */ (again)?.focus({ preventScroll: true });
    });
  }
  return figures;
}

/**
 * @param {string} title
 * @param {{ points: Point[], unit: string }} series
 * @param {number | null | undefined} perHour
 * @param {number | null | undefined} limit
 * @returns {Chart}
 */
function lineChart(title, { points, unit }, perHour, limit) {
  return { title, unit, perHour: perHour || null, limit: limit ?? undefined, lines: [{ points }] };
}

/**
 * @param {any} finding
 * @param {number} index
 */
function foundCard(finding, index) {
  const steps = finding.evidence.map((/** @type {any} */ step) =>
    el(
      'li',
      null,
      el(
        'span',
        { class: `tag ${{ written: 'good', pending: '' }[String(step.state)] ?? 'leak'}` },
        `${step.kind} ${step.state}`,
      ),
      ' ',
      step.file ? el('code', null, fileName(step.file)) : prose(String(step.sentence ?? '')),
    ),
  );
  return el(
    'article',
    { class: 'card suspect first' },
    el('span', { class: 'rank', 'aria-label': `Finding ${index + 1}` }, index + 1),
    sentence(finding.sentence),
    el('p', { class: 'soft small' }, `${moment(instant(finding.time))} ${zoneName()}`),
    pairs('pairs', [
      ['Code', place(finding.cause?.site)],
      [
        'Growth',
        finding.series.map((/** @type {any} */ each) =>
          el(
            'div',
            null,
            `${seriesWords(each.id)}${each.emitter ? ` of ${each.emitter}` : ''} ${rate(each.slopePerHour, each.unit)} over ${duration(each.windowMs)}`,
          ),
        ),
      ],
      [
        'Routes',
        finding.routes?.with?.length > 0 &&
          finding.routes.with.map((/** @type {any} */ { route, share }) =>
            el('div', null, el('code', null, route), ` ${percent(share)} of the growth`),
          ),
      ],
      ['Evidence', steps.length > 0 && el('ul', null, steps)],
      ['File', finding.file && el('code', null, finding.file)],
    ]),
  );
}

/** @param {any} isolate */
function held(isolate) {
  if (!isolate) return null;
  const handles = Object.entries(isolate.handles ?? {});
  const { listeners } = isolate;
  if (handles.length === 0 && listeners.length === 0) return null;
  return section(
    'held',
    'Held open',
    'Emitters with the fastest growing lists of listeners, and libuv handles by type.',
    listeners.length > 0 &&
      plainTable(
        ['Event', 'Listeners', 'Per minute'],
        listeners.map((/** @type {any} */ line) => [
          [
            `${line.emitter} `,
            el('code', null, `'${line.event}'`),
            line.site && el('div', { class: 'soft small' }, place(line.site)),
          ],
          grouped(line.count),
          measure(line.growthPerMin, 'count'),
        ]),
      ),
    handles.length > 0 &&
      plainTable(
        ['Handle', 'Count'],
        handles.map(([kind, count]) => [kind, grouped(Number(count))]),
      ),
  );
}

/** @param {any} model */
function evidence({ snapshots, refusals, previousRuns }) {
  return [
    snapshots.length > 0 &&
      section(
        'snapshots',
        'Snapshots',
        null,
        plainTable(
          ['File', 'Why', 'Stopped', 'Size'],
          [...snapshots]
            .reverse()
            .map((/** @type {any} */ each) => [
              el('code', null, each.file),
              `${each.reason} (${each.mode})`,
              `${grouped(each.pauseMs)} ms`,
              bytes(each.fileBytes),
            ]),
          2,
        ),
      ),
    refusals.length > 0 &&
      section(
        'refusals',
        'Not done, and why',
        'The guard refuses what could harm the app.',
        plainTable(
          ['What', 'Why not'],
          [...refusals]
            .reverse()
            .map((/** @type {any} */ each) => [each.kind, prose(each.sentence)]),
          2,
        ),
      ),
    previousRuns.length > 0 &&
      section(
        'runs',
        'Earlier runs',
        null,
        el(
          'ul',
          { class: 'path' },
          [...previousRuns]
            .reverse()
            .map((/** @type {any} */ each) => el('li', null, prose(capital(each.sentence)))),
        ),
      ),
  ];
}

/** @param {any} model */
function numbers({ process: own, isolate, settings, cost, losses, directory, version }) {
  const values = Object.entries({ ...own.series, ...isolate?.series }).filter(
    ([id]) => id !== 'listeners',
  );
  const changed = Object.entries(settings).filter(([, { origin }]) => origin !== 'default');
  const spent = cost.meanTickMicros;
  return section(
    'numbers',
    'Numbers',
    null,
    pairs('pairs', [
      ...values.map(
        ([id, series]) =>
          /** @type {[string, Child]} */ ([
            seriesWords(id),
            [
              measure(series.last, series.unit),
              series.growing &&
                el('span', { class: 'leak' }, ` ${rate(series.growing.slopePerHour, series.unit)}`),
            ],
          ]),
      ),
      [
        'Live heap is known by',
        isolate && [isolate.liveHeap.way, ', ', prose(isolate.liveHeap.why)],
      ],
      ['Evidence goes to', directory && el('code', null, directory)],
      [
        'Set by you',
        changed.length > 0 && changed.map(([key, { value }]) => `${key} ${value}`).join(', '),
      ],
      ['The guard costs', spent !== null && `${grouped(spent)} µs a sample, on its own thread`],
      ['Readings lost', losses.readings > 0 && grouped(losses.readings)],
      ['leakguard', version],
    ]),
  );
}

/**
 * @param {string[]} titles
 * @param {Child[][]} rows
 * @param {number} [words] leading columns that hold text
 */
function plainTable(titles, rows, words = 1) {
  const style = (/** @type {number} */ at) => ({ class: at < words ? 'word' : null });
  return el(
    'div',
    { class: 'sheet' },
    el(
      'table',
      null,
      el(
        'thead',
        null,
        el(
          'tr',
          null,
          titles.map((title, at) => el('th', style(at), title)),
        ),
      ),
      el(
        'tbody',
        null,
        rows.map((row) =>
          el(
            'tr',
            null,
            row.map((cell, at) => el('td', style(at), cell)),
          ),
        ),
      ),
    ),
  );
}

function startStatus() {
  // Nobody's zone is known but the reader's.
  zone = -new Date().getTimezoneOffset();
  const touch = () => {
    touched = Date.now();
  };
  for (const event of ['pointermove', 'keydown']) parts.charts.addEventListener(event, touch);
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) refresh();
  });
  const controls = el(
    'div',
    { class: 'live-controls' },
    el('div', { class: 'spans', role: 'group', 'aria-label': 'Span of the charts' }, spans),
    liveness,
  );
  const main = el(
    'main',
    null,
    el('p', { class: 'brand' }, el('b', null, 'leakguard'), el('span', null, 'status')),
    parts.head,
    parts.findings,
    el('section', { id: 'charts', 'aria-label': 'Charts' }, controls, parts.charts),
    parts.listeners,
    parts.evidence,
    parts.numbers,
    el('footer', null, 'Names and numbers only, nothing of the heap. Sizes are powers of 1024.'),
  );
  document.getElementById('page')?.append(main);
  refresh();
}

startStatus();
