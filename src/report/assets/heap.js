// The pages of `analyze` and `diff`: suspects in words first, then what supports them.

/** Steps of a retaining path that are shown at either end of a long one. */
const PATH_ENDS = 6;

/**
 * @param {number} value
 * @param {Child} [beside]
 */
function sized(value, beside) {
  return [bytes(value), beside && el('small', null, ' ', beside)];
}

/** @param {any} model */
function analysisPage(model) {
  const { snapshot, suspects } = model;
  return [
    head(model, `heap snapshot ${fileName(snapshot.file)}`, [
      ['Heap', sized(snapshot.retained_bytes)],
      ['Objects', grouped(snapshot.nodes)],
      ['References', grouped(snapshot.edges)],
      [
        'Native, by the header',
        snapshot.extra_native_bytes > 0 && bytes(snapshot.extra_native_bytes),
      ],
      ['Unreachable', snapshot.unreachable_nodes > 0 && grouped(snapshot.unreachable_nodes)],
    ]),
    truncation(snapshot),
    suspectSection(
      suspects,
      snapshot.retained_bytes,
      'Nothing stands out: no collection holds an unusual share of this heap.',
    ),
    findingSection(model.findings),
    findingTimeline(model.findings),
    model.details.length > 0 &&
      section(
        'asked',
        'Asked for',
        'What --path and --class were given.',
        model.details.map(detail),
      ),
    treeSection(model),
    model.classes.length > 0 &&
      section(
        'classes',
        'Classes',
        'Retained: what would be freed if all objects of the class went. Shallow: the objects themselves.',
        table({
          label: 'classes',
          rows: model.classes,
          total: model.class_count,
          text: ({ class_name }) => class_name,
          sorted: 3,
          columns: [
            { title: 'Class', word: true, value: ({ class_name }) => class_name },
            { title: 'Objects', value: ({ count }) => count, cell: ({ count }) => grouped(count) },
            bytesColumn('Shallow', 'shallow_bytes', { minor: true }),
            bytesColumn('Retained', 'retained_bytes', { of: snapshot.retained_bytes }),
            {
              title: 'Distance',
              minor: true,
              value: ({ distance }) => distance ?? 1e9,
              cell: ({ distance }) => distance ?? '–',
            },
          ],
        }),
      ),
    model.dominators.length > 0 &&
      section(
        'dominators',
        'Biggest single objects',
        'By what would be freed with each of them.',
        table({
          label: 'objects',
          rows: model.dominators,
          text: ({ label, class_name }) => `${label} ${class_name}`,
          sorted: 2,
          columns: [
            { title: 'Object', word: true, value: ({ label }) => label, cell: nodeCell },
            bytesColumn('Shallow', 'shallow_bytes', { minor: true }),
            bytesColumn('Retained', 'retained_bytes', { of: snapshot.retained_bytes }),
          ],
        }),
      ),
    (model.strings.length > 0 || model.duplicate_strings.length > 0) &&
      section(
        'strings',
        'Strings',
        'The largest, and texts that exist more than once. They may hold secrets of the app.',
        table({
          label: 'strings',
          rows: model.strings,
          text: ({ text }) => text,
          columns: [
            {
              title: 'Text',
              word: true,
              value: ({ text }) => text,
              cell: ({ text, id }) => [
                el('code', null, text),
                ' ',
                el('span', { class: 'soft' }, `@${id}`),
              ],
            },
            bytesColumn('Size', 'shallow_bytes', {}),
          ],
        }),
        table({
          label: 'duplicated texts',
          rows: model.duplicate_strings,
          text: ({ text }) => text,
          columns: [
            {
              title: 'Text',
              word: true,
              value: ({ text }) => text,
              cell: ({ text }) => el('code', null, text),
            },
            { title: 'Copies', value: ({ count }) => count, cell: ({ count }) => grouped(count) },
            bytesColumn('Wasted', 'wasted_bytes', {}),
          ],
        }),
      ),
    section(
      'memory',
      'Kinds of memory',
      'Shallow sizes by V8’s node types.',
      kindTable([snapshot]),
    ),
  ];
}

/** @param {any} model */
function comparisonPage(model) {
  const { snapshots, suspects } = model;
  const first = snapshots[0];
  const last = snapshots[snapshots.length - 1];
  const by = model.identity.by === 'node_ids' ? 'node ids' : 'signatures';
  return [
    head(model, `comparison of ${snapshots.length} heap snapshots`, [
      [
        'Growth',
        el(
          'span',
          { class: model.growth_bytes > 0 ? 'leak' : 'good' },
          signed(model.growth_bytes, bytes),
        ),
      ],
      ['From', sized(first.retained_bytes)],
      ['To', sized(last.retained_bytes)],
      ['Objects', signed(last.nodes - first.nodes, grouped)],
      ['Compared by', by],
    ]),
    snapshots.map(truncation),
    suspectSection(suspects, last.retained_bytes, 'Nothing grew that looks like a leak.'),
    findingSection(model.findings),
    findingTimeline(model.findings),
    section(
      'sides',
      'Side by side',
      `Compared by ${by}: ${model.identity.reason}.`,
      sideBySide(snapshots),
    ),
    model.classes.length > 0 &&
      section(
        'classes',
        'Classes that changed',
        'From the first snapshot to the last.',
        table({
          label: 'classes',
          rows: model.classes,
          total: model.class_count,
          text: ({ class_name }) => class_name,
          sorted: 4,
          choices: [
            ['all changes', () => true],
            ['grew', ({ shallow_delta }) => shallow_delta > 0],
            ['shrank', ({ shallow_delta }) => shallow_delta < 0],
          ],
          columns: [
            { title: 'Class', word: true, value: ({ class_name }) => class_name },
            {
              title: 'Before',
              minor: true,
              value: ({ count_before }) => count_before,
              cell: ({ count_before }) => grouped(count_before),
            },
            {
              title: 'After',
              minor: true,
              value: ({ count_after }) => count_after,
              cell: ({ count_after }) => grouped(count_after),
            },
            {
              title: 'Objects',
              value: ({ count_before, count_after }) => count_after - count_before,
              cell: ({ count_before, count_after }) => signed(count_after - count_before, grouped),
            },
            deltaColumn('Shallow', 'shallow_delta', false),
            deltaColumn('Retained', 'retained_delta', false),
            ...(model.classes.some((/** @type {any} */ row) => row.added !== null)
              ? [
                  {
                    title: 'New',
                    minor: true,
                    value: (/** @type {any} */ row) => row.added ?? 0,
                    cell: (/** @type {any} */ row) => grouped(row.added ?? 0),
                  },
                  {
                    title: 'Gone',
                    minor: true,
                    value: (/** @type {any} */ row) => row.removed ?? 0,
                    cell: (/** @type {any} */ row) => grouped(row.removed ?? 0),
                  },
                ]
              : []),
          ],
        }),
      ),
    treeSection(model),
  ];
}

/**
 * @param {string} title
 * @param {string} field
 * @param {{ minor?: boolean, of?: number }} options
 * @returns {Column}
 */
function bytesColumn(title, field, { minor, of }) {
  return {
    title,
    minor,
    value: (row) => row[field],
    cell: (row) => [bytes(row[field]), of && bar(row[field] / of)],
  };
}

/**
 * @param {string} title
 * @param {string} field
 * @param {boolean} minor
 * @returns {Column}
 */
function deltaColumn(title, field, minor) {
  return {
    title,
    minor,
    value: (row) => row[field],
    cell: (row) => signed(row[field], bytes),
    style: (row) => (row[field] > 0 ? 'plus' : row[field] < 0 ? 'minus' : ''),
  };
}

/** @param {any} snapshot */
function truncation({ file, truncated }) {
  return (
    truncated &&
    el(
      'p',
      { class: 'note' },
      `${fileName(file)} is truncated: it ends within its ${truncated.section}, at byte ${grouped(truncated.offset)}. What is shown is what it held.`,
    )
  );
}

/**
 * @param {any[]} suspects
 * @param {number} total
 * @param {string} none
 */
function suspectSection(suspects, total, none) {
  return section(
    'suspects',
    suspects.length === 1 ? 'One suspect' : 'Suspects',
    suspects.length > 0
      ? 'Most suspicious first. Each unfolds to the references that keep it alive.'
      : none,
    suspects.map((suspect, index) => suspectCard(suspect, index, total)),
  );
}

/**
 * @param {any} suspect
 * @param {number} index
 * @param {number} total
 */
function suspectCard(suspect, index, total) {
  const share = suspect.share || suspect.retained_bytes / (total || 1);
  const { growth, container } = suspect;
  return el(
    'article',
    { class: `card suspect ${index === 0 ? 'first' : ''}`, id: `suspect-${suspect.rank}` },
    el('span', { class: 'rank', 'aria-label': `Suspect ${suspect.rank}` }, suspect.rank),
    sentence(suspect.sentence),
    el(
      'p',
      { class: 'share' },
      bar(share),
      el('span', null, `${bytes(suspect.retained_bytes)}, ${percent(share)} of the heap`),
    ),
    pairs('pairs', [
      ['Held by', suspect.holder && el('code', null, suspect.holder)],
      ['In', place(suspect.site)],
      [
        'Made at',
        suspect.item_sites.length > 0 &&
          el(
            'ul',
            null,
            suspect.item_sites
              .slice(0, 5)
              .map((/** @type {any} */ each) =>
                el(
                  'li',
                  null,
                  place(each.site),
                  each.count > 0 && el('span', { class: 'soft' }, ` × ${grouped(each.count)}`),
                ),
              ),
          ),
      ],
      ['Container', nodeCell(container)],
      ['Grew', growth && growthWords(growth)],
    ]),
    suspect.path.length > 0 && pathDetails(suspect.path, index === 0),
  );
}

/** @param {any} growth */
function growthWords(growth) {
  const known = [
    growth.newborn !== null && `${grouped(growth.newborn)} objects are new`,
    growth.survivors !== null && `${grouped(growth.survivors)} older ones stayed`,
    growth.died !== null && `${grouped(growth.died)} went`,
  ].filter(Boolean);
  return [
    `${growth.counts.map(grouped).join(' → ')} items, `,
    el('b', { class: growth.net_bytes > 0 ? 'leak' : '' }, signed(growth.net_bytes, bytes)),
    known.length > 0 && el('span', { class: 'soft' }, ` (${known.join(', ')})`),
  ];
}

/** @param {any} node */
function nodeCell(node) {
  return [
    el('code', null, node.label || node.class_name),
    el('span', { class: 'soft' }, ` @${node.id}`),
    node.site && [' ', el('span', { class: 'soft small' }, place(node.site))],
  ];
}

/**
 * @param {any[]} path
 * @param {boolean} open
 */
function pathDetails(path, open) {
  const list = el('ol', { class: 'path' });
  const steps = path.map((step, index) => pathStep(step, index === path.length - 1));
  const hidden = steps.length - 2 * PATH_ENDS;
  if (hidden > 1) {
    const rest = steps.slice(PATH_ENDS, -PATH_ENDS);
    const more = el(
      'li',
      { class: 'more' },
      el(
        'button',
        {
          type: 'button',
          class: 'quiet',
          onclick: () => {
            foldedSteps.delete(more);
            more.replaceWith(...rest);
            rest[0].setAttribute('tabindex', '-1');
            rest[0].focus();
          },
        },
        `Show ${grouped(hidden)} more steps`,
      ),
    );
    foldedSteps.set(more, rest);
    list.append(...steps.slice(0, PATH_ENDS), more, ...steps.slice(-PATH_ENDS));
  } else {
    list.append(...steps);
  }
  return el(
    'details',
    { open },
    el('summary', null, `Retaining path, ${path.length} steps from the root`),
    list,
  );
}

/**
 * @param {any} step
 * @param {boolean} end
 */
function pathStep({ edge, node, repeats }, end) {
  return el(
    'li',
    { class: end ? 'end' : '' },
    edge && [el('code', { class: 'edge' }, edge), ' → '],
    el('code', null, node.label || node.class_name),
    repeats > 1 && [' ', el('span', { class: 'tag' }, `× ${grouped(repeats)}`)],
    el('span', { class: 'of' }, ` @${node.id} · retains ${bytes(node.retained_bytes)}`),
    node.site && el('div', { class: 'of' }, place(node.site)),
  );
}

/** @param {any} detail */
function detail(detail) {
  if (detail.of === 'path') {
    return el(
      'article',
      { class: 'card' },
      el('h3', null, nodeCell(detail.node)),
      pathDetails(detail.path, true),
    );
  }
  return el(
    'article',
    { class: 'card' },
    el('h3', null, `Class ${detail.class.class_name}`),
    el(
      'p',
      { class: 'soft' },
      `${grouped(detail.class.count)} objects retain ${bytes(detail.class.retained_bytes)}`,
    ),
    table({
      label: 'largest objects',
      rows: detail.largest,
      columns: [
        { title: 'Object', word: true, value: ({ label }) => label, cell: nodeCell },
        bytesColumn('Retained', 'retained_bytes', {}),
      ],
    }),
    detail.path.length > 0 && pathDetails(detail.path, false),
  );
}

/** @param {any[]} findings as the analyzer judged them */
function findingSection(findings) {
  if (findings.length === 0) return null;
  return section(
    'findings',
    'What the guard found',
    'Findings that belong to this snapshot, and whether it bears them out.',
    findings.map((finding, index) =>
      el(
        'article',
        { class: 'card' },
        sentence(finding.sentence),
        el(
          'p',
          { class: 'verdict' },
          el(
            'span',
            {
              class: `tag ${finding.verdict === 'confirmed' ? 'leak' : finding.verdict === 'refuted' ? 'good' : ''}`,
            },
            finding.verdict,
          ),
          ' ',
          prose(finding.verdict_sentence),
        ),
        el(
          'p',
          { class: 'soft small' },
          `finding ${index + 1}, ${moment(instant(finding.time))} ${zoneName()}, ${fileName(finding.file)}`,
        ),
        listenerTable(finding.listeners),
        routeTable(finding.routes),
      ),
    ),
  );
}

/** @param {any[]} findings */
function findingTimeline(findings) {
  if (findings.length === 0) return null;
  const charts = findings.flatMap((finding) => findingSeries(finding).map(chartOfSeries));
  const marks = findings.map((finding, index) => ({
    at: instant(finding.time),
    kind: /** @type {'finding'} */ ('finding'),
    label: finding.sentence,
    flag: `finding ${index + 1}`,
  }));
  const drawn = timeline(charts, marks);
  return (
    drawn &&
    section(
      'timeline',
      'Timeline',
      'What the guard measured until it spoke. Point at a chart, or use the arrow keys in it, to read values.',
      drawn,
    )
  );
}

/** @param {any} model */
function treeSection({ tree, suspects }) {
  const marked = new Map(
    suspects.map((/** @type {any} */ { container, rank }) => [container.id, rank]).reverse(),
  );
  const left = tree.total - tree.parent.length;
  const drawn = icicle(tree, /** @type {Map<number, number>} */ (marked));
  return (
    drawn &&
    section(
      'tree',
      'What holds the memory',
      `The dominator tree: a box is as wide as what would be freed with it. Click a box to zoom, or walk with the arrow keys, zoom with Enter and back with Escape.${left > 0 ? ` The ${grouped(left)} smallest boxes are not in this file.` : ''}`,
      drawn,
    )
  );
}

/** @param {any[]} snapshots */
function sideBySide(snapshots) {
  const names = ['First', snapshots.length > 2 ? 'Second' : 'Last', 'Last'];
  return [
    el(
      'div',
      { class: 'sides' },
      snapshots.map((snapshot, index) =>
        el(
          'article',
          { class: 'card' },
          el(
            'h3',
            null,
            `${names[index] ?? index + 1}: `,
            el('code', null, fileName(snapshot.file)),
          ),
          pairs('pairs', [
            ['Heap', el('b', null, bytes(snapshot.retained_bytes))],
            ['Objects', grouped(snapshot.nodes)],
            ['References', grouped(snapshot.edges)],
            ['Unreachable', grouped(snapshot.unreachable_nodes)],
            ['Native', snapshot.extra_native_bytes > 0 ? bytes(snapshot.extra_native_bytes) : null],
          ]),
        ),
      ),
    ),
    kindTable(snapshots),
  ];
}

/** @param {any[]} snapshots */
function kindTable(snapshots) {
  const last = snapshots.length - 1;
  const kinds = [
    ...new Set(
      snapshots.flatMap(({ kinds }) => kinds.map((/** @type {any} */ kind) => kind.node_type)),
    ),
  ];
  const rows = kinds.map((node_type) => ({
    node_type,
    each: snapshots.map(
      ({ kinds }) =>
        kinds.find((/** @type {any} */ kind) => kind.node_type === node_type) ?? {
          count: 0,
          shallow_bytes: 0,
        },
    ),
  }));
  const largest = Math.max(...rows.map(({ each }) => each[last].shallow_bytes));
  /** @type {Column[]} */
  const columns = [{ title: 'Kind', word: true, value: ({ node_type }) => node_type }];
  snapshots.forEach((_, index) => {
    columns.push(
      {
        title: snapshots.length > 1 ? `${index + 1}: objects` : 'Objects',
        minor: true,
        value: ({ each }) => each[index].count,
        cell: ({ each }) => grouped(each[index].count),
      },
      {
        title: snapshots.length > 1 ? `${index + 1}: bytes` : 'Shallow',
        value: ({ each }) => each[index].shallow_bytes,
        cell: ({ each }) => [
          bytes(each[index].shallow_bytes),
          index === last && bar(each[index].shallow_bytes / largest),
        ],
      },
    );
  });
  if (last > 0) {
    const delta = (/** @type {any} */ { each }) => each[last].shallow_bytes - each[0].shallow_bytes;
    columns.push({
      title: 'Change',
      value: delta,
      cell: (row) => signed(delta(row), bytes),
      style: (row) => (delta(row) > 0 ? 'plus' : delta(row) < 0 ? 'minus' : ''),
    });
  }
  return table({ label: 'kinds', rows, columns, sorted: columns.length - 1 });
}

start({ analysis: analysisPage, comparison: comparisonPage });
