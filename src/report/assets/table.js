// A table that sorts by any column and filters by text. Long ones show their first rows until asked for more.

/** Rows that are shown at first. */
const FIRST_ROWS = 40;
/** Fewer are read more quickly than filtered. */
const FILTERED_ROWS = 8;

/**
 * @typedef {object} Column
 * @property {string} title
 * @property {(row: any) => number | string} value what is sorted by
 * @property {(row: any) => Child} [cell] what is shown; the value if absent
 * @property {(row: any) => string} [style] class of the cell
 * @property {boolean} [word] text and no number: left, and ascending first
 * @property {boolean} [minor] left out where the page is narrow
 *
 * @typedef {object} TableOptions
 * @property {string} label what the rows are, in the plural
 * @property {Column[]} columns
 * @property {any[]} rows
 * @property {number} [total] rows there are, where some were left out of the file
 * @property {number | null} [sorted] column sorted by at first, descending; the order of the rows if absent
 * @property {(row: any) => string} [text] what the filter looks at; no filter if absent
 * @property {[string, (row: any) => boolean][]} [choices] named subsets, the first of them in force
 */

/**
 * @param {TableOptions} options
 * @returns {Child}
 */
function table({ label, columns, rows, total = rows.length, sorted = null, text, choices = [] }) {
  if (rows.length === 0) return null;
  let column = sorted;
  let ascending = false;
  let all = false;
  let wanted = '';
  let subset = choices[0]?.[1] ?? (() => true);

  const heads = columns.map(({ title, word, minor }, index) =>
    el(
      'th',
      { scope: 'col', class: `${word ? 'word' : ''} ${minor ? 'minor' : ''}` },
      el('button', { type: 'button', onclick: () => sortBy(index) }, title),
    ),
  );
  const body = el('tbody');
  const count = el('span', { class: 'soft small', role: 'status' });
  const more = el('button', { type: 'button', class: 'quiet', onclick: showAll });

  /** @param {number} index */
  function sortBy(index) {
    ascending = column === index ? !ascending : Boolean(columns[index].word);
    column = index;
    draw();
  }

  function showAll() {
    all = true;
    draw();
  }

  function draw() {
    const matching = rows.filter(
      (row) => subset(row) && (!text || text(row).toLowerCase().includes(wanted)),
    );
    if (column !== null) {
      const { value } = columns[column];
      const direction = ascending ? 1 : -1;
      matching.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (typeof x === 'string' || typeof y === 'string') {
          return direction * String(x).localeCompare(String(y), 'en');
        }
        return direction * (x - y);
      });
    }
    heads.forEach((head, index) => {
      if (index === column) {
        head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
      } else {
        head.removeAttribute('aria-sort');
      }
    });
    const shown = all ? matching : matching.slice(0, FIRST_ROWS);
    body.replaceChildren(
      ...shown.map((row) =>
        el(
          'tr',
          null,
          columns.map(({ value, cell, style, word, minor }) =>
            el(
              'td',
              { class: `${word ? 'word' : ''} ${minor ? 'minor' : ''} ${style?.(row) ?? ''}` },
              (cell ?? value)(row),
            ),
          ),
        ),
      ),
    );
    const filtered = matching.length < rows.length ? `${grouped(matching.length)} of ` : '';
    const left =
      total > rows.length ? `; ${grouped(total)} in all, the rest is not in this file` : '';
    count.textContent = `${filtered}${grouped(rows.length)} ${label}${left}`;
    more.textContent = `Show all ${grouped(matching.length)} rows`;
    more.hidden = shown.length === matching.length;
  }

  const filter =
    text &&
    rows.length > FILTERED_ROWS &&
    el('input', {
      type: 'search',
      placeholder: `Filter ${label}`,
      'aria-label': `Filter ${label}`,
      autocomplete: 'off',
      spellcheck: 'false',
      oninput: (/** @type {any} */ event) => {
        wanted = event.target.value.trim().toLowerCase();
        draw();
      },
    });
  const chooser =
    choices.length > 0 &&
    el(
      'select',
      {
        'aria-label': `Which ${label}`,
        onchange: (/** @type {any} */ event) => {
          subset = choices[event.target.selectedIndex][1];
          draw();
        },
      },
      choices.map(([name]) => el('option', null, name)),
    );
  draw();
  const short = !filter && !chooser && total <= FIRST_ROWS;
  return [
    !short && el('div', { class: 'tools' }, filter, chooser, count),
    el(
      'div',
      { class: 'sheet' },
      el('table', null, el('thead', null, el('tr', null, heads)), body),
    ),
    rows.length > FIRST_ROWS && el('div', { class: 'tools' }, more),
  ];
}
