// The page of `report DIR`: findings in words, one timeline over all runs, then the runs, snapshots and refusals.

const END_WORDS = {
  running: 'running',
  in_order: 'in order',
  cut_off: 'cut off',
  unknown: 'unknown',
};

/** @param {any} model */
function historyPage(model) {
  const findings = model.findings.map((/** @type {any} */ { file, content }) => ({
    ...content,
    file,
  }));
  const { runs, snapshots } = model;
  const cutOff = runs.filter((/** @type {any} */ { end }) => end === 'cut_off').length;
  const whole = snapshots.reduce(
    (/** @type {number} */ sum, /** @type {any} */ { file_bytes }) => sum + file_bytes,
    0,
  );
  const refusals = allRefusals(findings, runs);
  return [
    head(model, `evidence in ${model.directory}`, [
      ['Findings', grouped(model.finding_count)],
      [
        'Runs',
        model.run_count > 0 && [
          grouped(model.run_count),
          cutOff > 0 && el('small', { class: 'leak' }, ` ${cutOff} ended without exit`),
        ],
      ],
      ['Snapshots and profiles', sizedCount(model.snapshot_count, whole)],
      ['Refused', refusals.length > 0 && grouped(refusals.length)],
    ]),
    section(
      'findings',
      'Findings',
      findings.length > 0
        ? 'Newest first.'
        : 'None. The guard writes one as soon as growth is certain.',
      left(model.finding_count, findings.length),
      findings.map((/** @type {any} */ finding, /** @type {number} */ index) =>
        findingCard(finding, index, findings.length),
      ),
    ),
    historyTimeline(findings, runs, snapshots, refusals),
    runSection(model),
    snapshotSection(model),
    refusals.length > 0 &&
      section(
        'refusals',
        'Not done, and why',
        'The guard refuses what could harm the app. Each says why.',
        table({
          label: 'refusals',
          rows: refusals,
          text: ({ sentence, what }) => `${what} ${sentence}`,
          columns: [
            { title: 'When', word: true, value: ({ at }) => at, cell: ({ at }) => moment(at) },
            { title: 'What', word: true, minor: true, value: ({ what }) => what },
            {
              title: 'Why not',
              word: true,
              value: ({ sentence }) => sentence,
              cell: ({ sentence }) => prose(sentence),
            },
          ],
        }),
      ),
  ];
}

/**
 * @param {number} count
 * @param {number} whole bytes
 */
function sizedCount(count, whole) {
  return [grouped(count), count > 0 && el('small', null, ` ${bytes(whole)}`)];
}

/**
 * @param {number} all
 * @param {number} shown
 */
function left(all, shown) {
  return (
    all > shown &&
    el(
      'p',
      { class: 'soft small' },
      `${grouped(all)} in all; the newest ${grouped(shown)} that could be read are in this file.`,
    )
  );
}

/**
 * @param {any[]} findings
 * @param {any[]} runs
 */
function allRefusals(findings, runs) {
  const fromFindings = findings.flatMap((finding) =>
    (finding.evidence ?? [])
      .filter((/** @type {any} */ step) => step?.state === 'refused')
      .map((/** @type {any} */ step) => ({
        at: instant(finding.time),
        what: String(step.kind ?? ''),
        sentence: String(step.sentence ?? step.reason ?? ''),
      })),
  );
  const fromRuns = runs.flatMap((run) =>
    run.events
      .filter((/** @type {any} */ event) => event.kind === 'refused')
      .map((/** @type {any} */ event) => ({
        at: event.at,
        what: `pid ${run.header.pid}`,
        sentence: refusalWords(event),
      })),
  );
  // A finding tells its refusals better than the recorder, which knows them too.
  const told = (/** @type {any} */ each) =>
    fromFindings.some((/** @type {any} */ { at }) => Math.abs(at - each.at) < 5000);
  return [...fromFindings, ...fromRuns.filter((each) => !told(each))].sort((a, b) => b.at - a.at);
}

/** @param {any} event */
function refusalWords({ reason, needed, available }) {
  const size = (/** @type {number} */ value) =>
    reason === 'memory' || reason.startsWith('disk') ? bytes(value) : grouped(value);
  const asked = needed === null ? '' : `, needed ${size(needed)}`;
  return `${reason}${asked}${available === null ? '' : `, available ${size(available)}`}`;
}

/**
 * @param {any} finding
 * @param {number} index
 * @param {number} count
 */
function findingCard(finding, index, count) {
  const number = count - index;
  const app = finding.app?.key ?? finding.app?.name;
  return el(
    'article',
    { class: `card suspect ${index === 0 ? 'first' : ''}`, id: `finding-${number}` },
    el('span', { class: 'rank', 'aria-label': `Finding ${number}` }, number),
    sentence(finding.sentence),
    el(
      'p',
      { class: 'soft small' },
      [
        `${moment(instant(finding.time))} ${zoneName()}`,
        finding.pid !== undefined && `pid ${finding.pid}`,
        app,
        finding.node && `Node ${String(finding.node).replace(/^v/, '')}`,
        Number.isFinite(finding.processAgeMs) && `${duration(finding.processAgeMs)} after start-up`,
      ]
        .filter(Boolean)
        .join(' · '),
    ),
    pairs('pairs', [
      ['Code', place(finding.cause?.site)],
      [
        'Limit',
        finding.timeToLimit &&
          `${finding.timeToLimit.limit} of ${bytes(finding.timeToLimit.bytes)} in ${duration(finding.timeToLimit.ms)}`,
      ],
      ['Evidence', evidenceList(finding.evidence)],
    ]),
    el('details', null, el('summary', null, 'Numbers behind it'), findingNumbers(finding)),
  );
}

/** @param {any[] | undefined} steps */
function evidenceList(steps) {
  if (!Array.isArray(steps) || steps.length === 0) return null;
  return el(
    'ul',
    null,
    steps.map((step) =>
      el(
        'li',
        null,
        el(
          'span',
          {
            class: `tag ${step.state === 'written' ? 'good' : step.state === 'pending' ? '' : 'leak'}`,
          },
          `${step.kind} ${step.state}`,
        ),
        ' ',
        step.file ? el('code', null, step.file) : prose(String(step.sentence ?? '')),
      ),
    ),
  );
}

/** @param {any} finding */
function findingNumbers(finding) {
  const entries = (/** @type {any} */ value) =>
    value && typeof value === 'object' ? Object.entries(value) : [];
  const changed = entries(finding.settings).filter(
    ([, setting]) => setting?.origin && setting.origin !== 'default',
  );
  const counts = [
    ...entries(finding.handles).map(([kind, count]) => ({ what: `handle ${kind}`, count })),
    ...(finding.fds ?? []).map((/** @type {any} */ fd) => ({
      what: `descriptor ${fd.kind}`,
      count: fd.count,
      example: fd.examples?.[0]?.what,
    })),
    ...(finding.threads ?? []).map((/** @type {any} */ thread) => ({
      what: `thread ${thread.name}`,
      count: thread.count,
    })),
  ];
  return [
    table({
      label: 'series',
      rows: (finding.series ?? []).filter(Boolean),
      columns: [
        {
          title: 'Series',
          word: true,
          value: ({ id }) => String(id),
          cell: ({ id, emitter, confirmed }) => [
            seriesWords(String(id)),
            emitter && ` on ${emitter}`,
            confirmed === false && el('span', { class: 'soft' }, ' (not confirmed)'),
          ],
        },
        {
          title: 'Growth',
          value: ({ slopePerHour }) => slopePerHour ?? 0,
          cell: ({ slopePerHour, unit }) => rate(slopePerHour ?? 0, unit),
        },
        {
          title: 'Counts from',
          minor: true,
          value: ({ threshold }) => threshold?.ratePerHour ?? 0,
          cell: ({ threshold, unit }) => (threshold ? rate(threshold.ratePerHour, unit) : ''),
        },
        {
          title: 'From',
          value: ({ firstValue }) => firstValue ?? 0,
          cell: ({ firstValue, unit }) => measure(firstValue ?? 0, unit),
        },
        {
          title: 'To',
          value: ({ lastValue }) => lastValue ?? 0,
          cell: ({ lastValue, unit }) => measure(lastValue ?? 0, unit),
        },
        {
          title: 'Within',
          minor: true,
          value: ({ windowMs }) => windowMs ?? 0,
          cell: ({ windowMs }) => duration(windowMs ?? 0),
        },
        {
          title: 'p',
          minor: true,
          value: ({ pValue }) => pValue ?? 1,
          cell: ({ pValue }) => (pValue ?? 1).toPrecision(2),
        },
      ],
    }),
    listenerTable(finding.listeners),
    routeTable(finding.routes),
    table({
      label: 'things held open',
      rows: counts,
      sorted: 1,
      columns: [
        {
          title: 'What',
          word: true,
          value: ({ what }) => what,
          cell: ({ what, example }) => [
            what,
            example && el('div', { class: 'soft small' }, el('code', null, example)),
          ],
        },
        { title: 'Count', value: ({ count }) => Number(count) },
      ],
    }),
    pairs('pairs', [
      ...entries(finding.context).map(
        ([id, value]) =>
          /** @type {[string, Child]} */ ([seriesWords(id), contextWords(id, Number(value))]),
      ),
      ...entries(finding.limits).map(
        ([name, value]) =>
          /** @type {[string, Child]} */ ([
            words(name),
            typeof value === 'number' ? bytes(value) : String(value),
          ]),
      ),
      [
        'Set by you',
        changed.length > 0 && changed.map(([key, setting]) => `${key} ${setting.value}`).join(', '),
      ],
      ['File', el('code', null, finding.file)],
    ]),
  ];
}

/** @param {string} name such as `cgroup_limit_bytes` or `heapLimit` */
function words(name) {
  return capital(
    `${name
      .replace(/[_-]?bytes$/i, '')
      .replace(/([a-z])([A-Z])/g, '$1 $2')
      .replace(/_/g, ' ')
      .toLowerCase()} `,
  ).trim();
}

/**
 * @param {string} id
 * @param {number} value
 */
function contextWords(id, value) {
  const counted = ['fds', 'handles', 'timers', 'threads', 'listeners'];
  if (id === 'loop_utilization') return percent(value);
  return measure(value, counted.includes(id) ? 'count' : 'bytes');
}

/**
 * @param {any[]} findings
 * @param {any[]} runs
 * @param {any[]} snapshots
 * @param {any[]} refusals
 */
function historyTimeline(findings, runs, snapshots, refusals) {
  /** @type {Map<string, any>} */
  const charts = new Map();
  for (const run of [...runs].reverse()) {
    const { cgroup_limit_bytes, heap_limit_bytes } = run.header;
    const limits = /** @type {Record<string, number>} */ ({
      live_heap: heap_limit_bytes,
      cgroup_used: cgroup_limit_bytes,
      rss: cgroup_limit_bytes,
    });
    for (const { id, unit, points } of run.series) {
      const chart = charts.get(id) ?? { title: seriesWords(id), unit, lines: [], perHour: null };
      chart.lines.push({ points, cut: run.end === 'cut_off' });
      chart.limit = limits[id];
      charts.set(id, chart);
    }
  }
  const recorded = charts.size > 0;
  for (const finding of [...findings].reverse()) {
    const at = instant(finding.time);
    const known = runs.some(
      ({ header, last_unix_ms }) =>
        header.pid === finding.pid && header.started_unix_ms <= at && at <= last_unix_ms + 60000,
    );
    for (const series of findingSeries(finding)) {
      const { emitter, trend, perHour, points } = series;
      const id = emitter ? `${series.id} ${emitter}` : series.id;
      const chart = charts.get(id);
      if (!chart) {
        charts.set(id, chartOfSeries(series));
        continue;
      }
      // Its run's recorder has the same readings and more.
      if (!known) chart.lines.push({ points });
      Object.assign(chart, { trend, perHour });
    }
  }
  const marks = [
    ...findings.map((finding, index) => ({
      at: instant(finding.time),
      kind: 'finding',
      label: String(finding.sentence ?? ''),
      flag: `finding ${findings.length - index}`,
    })),
    ...snapshots.map((each) => ({
      at: instant(each.meta?.started) || stampOf(each.file),
      kind: 'snapshot',
      label: each.file,
    })),
    ...refusals.map((each) => ({ at: each.at, kind: 'refused', label: each.sentence })),
  ].filter(({ at }) => Number.isFinite(at));
  const drawn = timeline([...charts.values()], /** @type {any[]} */ (marks));
  const source = recorded ? 'From the flight recorders of the runs' : 'From the findings';
  return (
    drawn &&
    section(
      'timeline',
      'Timeline',
      `${source}. Point at a chart, or use the arrow keys in it, to read values.`,
      drawn,
    )
  );
}

/**
 * The time in a file's name, in the zone of the process that wrote it.
 * @param {string} file
 */
function stampOf(file) {
  const stamp = /\.(\d{4})(\d\d)(\d\d)\.(\d\d)(\d\d)(\d\d)\./.exec(file)?.slice(1).map(Number);
  if (!stamp) return Number.NaN;
  const [year, month, day, hour, minute, second] = stamp;
  return Date.UTC(year, month - 1, day, hour, minute, second) - zone * 60000;
}

/** @param {any} model */
function runSection({ runs, run_count }) {
  if (run_count === 0) return null;
  const liveHeap = (/** @type {any} */ run) =>
    run.series.find((/** @type {any} */ each) => each.id === 'live_heap') ??
    run.series.find((/** @type {any} */ each) => each.id === 'rss');
  const lasted = (/** @type {any} */ run) => run.last_unix_ms - run.header.started_unix_ms;
  const longest = Math.max(...runs.map(lasted));
  const highest = Math.max(
    ...runs.flatMap((/** @type {any} */ run) =>
      (liveHeap(run)?.points ?? []).map((/** @type {Point} */ [, value]) => value),
    ),
  );
  return section(
    'runs',
    'Runs side by side',
    'One row for each start of the app; the lines of the live heap share one scale.',
    left(run_count, runs.length),
    table({
      label: 'runs',
      rows: runs,
      sorted: null,
      columns: [
        {
          title: 'Started',
          word: true,
          value: (run) => run.header.started_unix_ms,
          cell: (run) => [
            moment(run.header.started_unix_ms),
            el(
              'div',
              { class: 'soft small' },
              `pid ${run.header.pid} · ${run.header.app} ${run.header.app_version} · Node ${run.header.node_version.replace(/^v/, '')}`,
            ),
          ],
        },
        { title: 'Lasted', value: lasted, cell: (run) => duration(lasted(run)) },
        {
          title: 'Live heap',
          minor: true,
          value: (run) => liveHeap(run)?.points.at(-1)?.[1] ?? 0,
          cell: (run) => [liveHeap(run) && spark(liveHeap(run).points, longest, highest)],
        },
        {
          title: 'Growth',
          value: (run) => run.live_heap_per_hour ?? 0,
          cell: (run) =>
            run.live_heap_per_hour === null ? '–' : rate(run.live_heap_per_hour, 'bytes'),
        },
        {
          title: 'End',
          word: true,
          value: (run) => run.end,
          cell: (run) => [
            el(
              'span',
              {
                class: `tag ${run.end === 'cut_off' ? 'leak' : run.end === 'in_order' ? 'good' : ''}`,
              },
              END_WORDS[/** @type {keyof typeof END_WORDS} */ (run.end)] ?? run.end,
            ),
            ' ',
            el('span', { class: 'soft small' }, run.ending),
            (run.torn_records > 0 || run.missing_records > 0) &&
              el(
                'div',
                { class: 'soft small' },
                `${grouped(run.torn_records)} records torn, ${grouped(run.missing_records)} missing`,
              ),
            run.other_isolates > 0 &&
              el(
                'div',
                { class: 'soft small' },
                `${grouped(run.other_isolates)} workers recorded besides`,
              ),
          ],
        },
      ],
    }),
  );
}

/** @param {any} model */
function snapshotSection({ snapshots, snapshot_count }) {
  if (snapshot_count === 0) return null;
  const groups = new Map();
  for (const { file, what, meta } of [...snapshots].reverse()) {
    if (what !== 'snapshot' || !meta?.pair_id) continue;
    groups.set(meta.pair_id, [...(groups.get(meta.pair_id) ?? []), file]);
  }
  const comparable = [...groups.values()]
    .filter((files) => files.length > 1)
    .map((files) => files.slice(0, 3));
  const newest = snapshots.find((/** @type {any} */ { what }) => what === 'snapshot')?.file;
  const commands = [
    newest && `npx leakguard analyze ${newest}`,
    ...comparable.map((files) => `npx leakguard diff ${files.join(' ')}`),
  ].filter(Boolean);
  return section(
    'snapshots',
    'Snapshots and profiles',
    'They open in Chrome DevTools (Memory, Load) as well.',
    left(snapshot_count, snapshots.length),
    table({
      label: 'files',
      rows: snapshots,
      columns: [
        {
          title: 'File',
          word: true,
          value: ({ file }) => file,
          cell: ({ file, meta }) => [
            el('code', null, file),
            meta?.sha256 &&
              el(
                'div',
                { class: 'soft small minor' },
                `sha256 ${String(meta.sha256).slice(0, 16)}…`,
              ),
          ],
        },
        {
          title: 'On disk',
          value: ({ file_bytes }) => file_bytes,
          cell: ({ file_bytes }) => bytes(file_bytes),
        },
        {
          title: 'Live heap',
          minor: true,
          value: ({ meta }) => meta?.heap_bytes ?? 0,
          cell: ({ meta }) => (meta?.heap_bytes ? bytes(meta.heap_bytes) : '–'),
        },
        {
          title: 'Why',
          word: true,
          value: ({ meta, what }) => String(meta?.reason ?? what),
          cell: ({ meta, what }) => [
            reasonWords(meta?.reason ?? what),
            meta?.note && ` (${meta.note})`,
            meta?.redaction && meta.redaction !== 'none' && ', redacted',
            meta?.mode === 'fork' && ', forked',
          ],
        },
      ],
    }),
    commands.length > 0 && [
      el('p', { class: 'soft small' }, 'To read them, in this directory:'),
      commands.map((command) => el('pre', null, command)),
    ],
  );
}

/** @param {unknown} reason */
function reasonWords(reason) {
  return String(
    typeof reason === 'object' && reason !== null ? Object.keys(reason)[0] : reason,
  ).replace(/_/g, ' ');
}

start({ history: historyPage });
