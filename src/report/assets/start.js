// What every page begins and ends with, and what both kinds of page show in the same way. The kind's own file
// comes last and calls `start`.

/**
 * The head of any page.
 * @param {any} model
 * @param {string} what
 * @param {[string, Child][]} facts
 */
function head(model, what, facts) {
  // A long sentence says the main thing in its first clause.
  const at = model.headline.length > 90 ? model.headline.indexOf('; ') : -1;
  const first = at < 0 ? model.headline : model.headline.slice(0, at);
  const rest = at < 0 ? '' : model.headline.slice(at + 2);
  return el(
    'header',
    null,
    el('p', { class: 'brand' }, el('b', null, 'leakguard'), el('span', null, what)),
    el('h1', null, prose(capital(first))),
    rest && el('p', { class: 'lead' }, prose(`${capital(rest)}.`)),
    pairs('facts', facts),
    (model.notes ?? model.problems ?? []).map((/** @type {string} */ note) =>
      el('p', { class: 'note' }, prose(note)),
    ),
  );
}

/**
 * A sentence of several clauses: the first as heading, the others as text.
 * @param {unknown} text
 */
function sentence(text) {
  const [first, ...rest] = String(text ?? '').split('; ');
  return [
    el('h3', null, prose(capital(first))),
    rest.length > 0 && el('p', null, prose(`${capital(rest.join('; '))}.`)),
  ];
}

/** @param {string} text */
function capital(text) {
  // Not a name in code, nor one that is spelt as it is.
  return /^[a-z]+ /.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}

/** @param {any[]} listeners */
function listenerTable(listeners) {
  return table({
    label: 'emitters',
    rows: listeners ?? [],
    sorted: 1,
    columns: [
      {
        title: 'Event',
        word: true,
        value: (row) => `${row.emitter} ${row.event}`,
        cell: (row) => [
          row.emitter ?? '',
          ' ',
          el('code', null, `'${row.event ?? ''}'`),
          row.site && el('div', { class: 'soft small' }, place(row.site)),
        ],
      },
      {
        title: 'Listeners',
        value: (row) => row.count ?? 0,
        cell: (row) => grouped(row.count ?? 0),
      },
      {
        title: 'Per minute',
        value: (row) => row.growthPerMin ?? 0,
        cell: (row) => measure(row.growthPerMin ?? 0, 'count'),
      },
    ],
  });
}

/** @param {any} routes as a finding has them */
function routeTable(routes) {
  const list = (/** @type {any} */ some) =>
    Array.isArray(some) ? some.filter((one) => one !== null && typeof one === 'object') : [];
  // Anybody may have written the file.
  const number = (/** @type {any} */ value) => Number(value) || 0;
  const named = new Map(list(routes?.with).map((one) => [one.route, one]));
  const others = list(routes?.traffic).filter((one) => !named.has(one.route));
  return table({
    label: 'routes',
    rows: [...named.values(), ...others],
    columns: [
      {
        title: 'Route',
        word: true,
        value: ({ route }) => String(route),
        cell: ({ route }) => el('code', null, String(route)),
      },
      {
        title: 'Requests',
        value: ({ requests }) => number(requests),
        cell: ({ requests }) => grouped(number(requests)),
      },
      {
        title: 'Per second',
        value: ({ requestsPerSecond }) => number(requestsPerSecond),
        cell: ({ requestsPerSecond }) => measure(number(requestsPerSecond), 'count'),
      },
      {
        title: 'Growth per request',
        value: ({ bytesPerRequest }) => number(bytesPerRequest),
        cell: ({ bytesPerRequest }) =>
          bytesPerRequest === undefined ? '' : measure(number(bytesPerRequest), 'bytes'),
      },
      {
        title: 'r',
        minor: true,
        value: ({ r }) => number(r),
        cell: ({ r }) => (r === undefined ? '' : number(r).toFixed(2)),
      },
    ],
  });
}

/**
 * Reads the model and builds the page of its kind.
 * @param {Record<string, (model: any) => Child[]>} pages by kind
 */
function start(pages) {
  const model = JSON.parse(document.getElementById('model')?.textContent ?? '{}');
  adoptZone(
    (model.findings ?? []).map((/** @type {any} */ finding) => (finding.content ?? finding).time),
  );
  const main = el('main', null, pages[model.kind](model));
  const links = [...main.querySelectorAll('section')].map(({ id, firstChild }) =>
    el('li', null, el('a', { href: `#${id}` }, firstChild?.textContent)),
  );
  main
    .querySelector('header')
    ?.after(el('nav', { class: 'places', 'aria-label': 'On this page' }, el('ul', null, links)));
  main.append(
    el(
      'footer',
      null,
      `Made by leakguard ${model.version}. This file holds all it shows and loads nothing. Sizes are powers of 1024.`,
      Object.entries(model.cut).map(
        ([name, full]) =>
          ` Of ${grouped(Number(full))} ${name.replace(/_/g, ' ')} the first are here.`,
      ),
    ),
  );
  document.getElementById('page')?.append(main);

  // On paper nothing can be unfolded, so it is beforehand.
  /** @type {HTMLDetailsElement[]} */
  let unfolded = [];
  addEventListener('beforeprint', () => {
    unfolded = [...document.querySelectorAll('details')].filter((each) => !each.open);
    for (const each of unfolded) each.open = true;
    for (const [more, rest] of foldedSteps) more.replaceWith(...rest);
  });
  addEventListener('afterprint', () => {
    for (const each of unfolded) each.open = false;
    for (const [more, rest] of foldedSteps) {
      rest[0]?.before(more);
      for (const step of rest) step.remove();
    }
  });
}
