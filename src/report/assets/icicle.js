// The dominator tree as an icicle: a box is as wide as what it retains, and what it dominates hangs below it. A
// click zooms to a box; with the keyboard, arrows walk the boxes, Enter zooms, Escape goes back out.

const ROW_HEIGHT = 26;
/** Rows of the picture: enough to reach what holds the first suspect, if it lies deeper than the least. */
const LEAST_ROWS = 12;
const MOST_ROWS = 32;
/** Rows above it, so that the way back can be clicked. */
const ROWS_ABOVE = 3;
/** Narrower boxes are not drawn. */
const MIN_BOX_PX = 3;

/**
 * @typedef {object} TreeColumns
 * @property {number[]} parent -1 for the root
 * @property {string[]} label
 * @property {(number | null)[]} id null for several nodes together
 * @property {number[]} count
 * @property {number[]} shallow
 * @property {number[]} retained
 * @property {number} total nodes of the tree before it was cut
 */

/**
 * @param {TreeColumns} tree
 * @param {Map<number, number>} suspects rank of the suspect by the id of what holds it
 * @returns {Child}
 */
function icicle(tree, suspects) {
  const size = tree.parent.length;
  if (size === 0) return null;
  /** @type {number[][]} */
  const children = tree.parent.map(() => []);
  tree.parent.forEach((parent, node) => {
    if (parent >= 0) children[parent].push(node);
  });
  let zoomed = 0;
  let chosen = 0;
  let width = 0;
  /** @type {Map<number, HTMLElement>} */
  let boxes = new Map();

  const frame = el('div', { class: 'icicle', role: 'tree', 'aria-label': 'Dominator tree' });
  const crumbs = el('nav', { class: 'crumbs', 'aria-label': 'Zoom' });
  const details = el('div', { class: 'chosen', role: 'status' });

  /** @param {number} node */
  function ancestors(node) {
    const path = [];
    for (let at = tree.parent[node]; at >= 0; at = tree.parent[at]) path.unshift(at);
    return path;
  }

  const first = tree.id.findIndex((id) => id !== null && suspects.get(id) === 1);
  const rows = Math.min(
    MOST_ROWS,
    Math.max(LEAST_ROWS, first < 0 ? 0 : ancestors(first).length + 2),
  );

  /** @param {number} node */
  function name(node) {
    return node === 0 ? 'the whole heap' : tree.label[node];
  }

  /** @param {number} node */
  function rank(node) {
    const id = tree.id[node];
    return id === null ? undefined : suspects.get(id);
  }

  /** @param {number} node */
  function kind(node) {
    if (rank(node) !== undefined) return 'suspect-box';
    const label = tree.label[node];
    if (tree.id[node] === null) return 'group';
    if (label.startsWith('"')) return 'text';
    return /^\(|^system|^$|^v8::|^Node \//.test(label) ? 'inner' : 'own';
  }

  /** @param {number} node */
  function words(node) {
    const share = percent(tree.retained[node] / (tree.retained[0] || 1));
    const suspect = rank(node);
    return `${suspect ? `suspect ${suspect}: ` : ''}${name(node)}, ${bytes(tree.retained[node])}, ${share} of the heap`;
  }

  function draw() {
    boxes = new Map();
    const above = ancestors(zoomed).slice(-ROWS_ABOVE);
    above.forEach((node, row) => {
      addBox(node, row, 0, width, 'above');
    });
    const deepest = addBelow(zoomed, above.length, 0, width);
    frame.style.height = `${(deepest + 1) * ROW_HEIGHT}px`;
    frame.replaceChildren(...boxes.values());
    if (!boxes.has(chosen)) chosen = zoomed;
    drawCrumbs();
    choose(chosen, false);
  }

  /**
   * @param {number} node
   * @param {number} row
   * @param {number} left
   * @param {number} room
   * @returns {number} the lowest row that was filled
   */
  function addBelow(node, row, left, room) {
    addBox(node, row, left, room, '');
    let deepest = row;
    if (row >= rows) return deepest;
    let at = left;
    for (const child of children[node]) {
      const part = (tree.retained[child] / (tree.retained[node] || 1)) * room;
      if (part >= MIN_BOX_PX) deepest = Math.max(deepest, addBelow(child, row + 1, at, part));
      at += part;
    }
    return deepest;
  }

  /**
   * @param {number} node
   * @param {number} row
   * @param {number} left
   * @param {number} room
   * @param {string} style
   */
  function addBox(node, row, left, room, style) {
    const box = el(
      'div',
      {
        class: `box ${kind(node)} ${style}`,
        role: 'treeitem',
        tabindex: '-1',
        'aria-level': ancestors(node).length + 1,
        'aria-label': words(node),
        title: words(node),
        onclick: () => {
          chosen = node;
          // A second click on the box that fills the width goes back out.
          zoom(node === zoomed && tree.parent[node] >= 0 ? tree.parent[node] : node);
        },
        onfocus: () => choose(node, false),
        onkeydown: (/** @type {any} */ event) => key(event, node),
      },
      room > 34 && name(node),
      room > 150 && el('span', { class: 'amount' }, bytes(tree.retained[node])),
    );
    box.style.left = `${(left / width) * 100}%`;
    box.style.width = `${(room / width) * 100}%`;
    box.style.top = `${row * ROW_HEIGHT}px`;
    if (room < 12) box.style.padding = '0';
    boxes.set(node, box);
  }

  /** @param {number} node */
  function zoom(node) {
    zoomed = node;
    draw();
    boxes.get(chosen)?.focus({ preventScroll: true });
  }

  /**
   * @param {number} node
   * @param {boolean} focus
   */
  function choose(node, focus) {
    boxes.get(chosen)?.setAttribute('tabindex', '-1');
    chosen = node;
    const box = boxes.get(node);
    box?.setAttribute('tabindex', '0');
    if (focus) box?.focus({ preventScroll: true });
    const parent = tree.parent[node];
    const suspect = rank(node);
    details.replaceChildren(
      el(
        'p',
        null,
        suspect && [
          el('a', { href: `#suspect-${suspect}`, class: 'leak' }, `suspect ${suspect}`),
          ' ',
        ],
        el('b', null, name(node)),
        tree.id[node] === null ? '' : el('span', { class: 'soft' }, ` @${tree.id[node]}`),
      ),
      el(
        'p',
        { class: 'soft' },
        `retains ${bytes(tree.retained[node])}, ${percent(tree.retained[node] / (tree.retained[0] || 1))} of the heap`,
        parent >= 0 &&
          `, ${percent(tree.retained[node] / (tree.retained[parent] || 1))} of what holds it`,
        tree.count[node] > 1 && `; ${grouped(tree.count[node])} objects together`,
        `; ${bytes(tree.shallow[node])} itself`,
        children[node].length === 0 && '; what it holds is too small to be drawn',
      ),
    );
  }

  /**
   * @param {KeyboardEvent} event
   * @param {number} node
   */
  function key(event, node) {
    const parent = tree.parent[node];
    const beside = (parent < 0 ? [node] : children[parent]).filter((each) => boxes.has(each));
    const index = beside.indexOf(node);
    const shown = (/** @type {number | undefined} */ each) => each !== undefined && boxes.has(each);
    const moves = /** @type {Record<string, number | undefined>} */ ({
      ArrowLeft: beside[index - 1],
      ArrowRight: beside[index + 1],
      ArrowUp: parent,
      ArrowDown: children[node].find(shown),
      Home: zoomed,
    });
    if (event.key in moves) {
      const to = moves[event.key];
      if (to !== undefined && shown(to)) choose(to, true);
    } else if (event.key === 'Enter' || event.key === ' ') {
      zoom(node);
    } else if ((event.key === 'Escape' || event.key === 'Backspace') && zoomed !== 0) {
      zoom(tree.parent[zoomed]);
    } else {
      return;
    }
    event.preventDefault();
  }

  function drawCrumbs() {
    const path = ancestors(zoomed);
    crumbs.replaceChildren(
      ...path.flatMap((node) => [
        el(
          'button',
          {
            type: 'button',
            onclick: () => {
              chosen = node;
              zoom(node);
            },
          },
          name(node),
        ),
        el('span', { class: 'soft', 'aria-hidden': 'true' }, '›'),
      ]),
      el('b', null, name(zoomed)),
    );
  }

  new ResizeObserver(() => {
    const room = Math.round(frame.getBoundingClientRect().width);
    if (room === width || room === 0) return;
    width = room;
    const focused = frame.contains(document.activeElement);
    draw();
    if (focused) boxes.get(chosen)?.focus({ preventScroll: true });
  }).observe(frame);
  width = 640;
  draw();
  const entry = (/** @type {string} */ style, /** @type {string} */ text) =>
    el('span', null, el('i', { class: style }), text);
  return [
    crumbs,
    frame,
    details,
    el(
      'p',
      { class: 'legend' },
      suspects.size > 0 && entry('suspect-box', 'holds a suspect'),
      entry('own', 'objects'),
      entry('text', 'strings'),
      entry('group', 'several of one class'),
      entry('inner', 'internals of V8 and Node'),
    ),
  ];
}
