'use strict';

// The pages of `analyze --html`, `diff --html` and `report DIR`, made from snapshots and findings of real leaking
// apps and opened in a real Chromium, which may load nothing and must have nothing to say on its console.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const { pathToFileURL } = require('node:url');
const { promisify } = require('node:util');
const { chromium } = require('playwright-core');
const apps = require('./apps/index.js');
const { runLoad } = require('./apps/load.js');
const { startApp } = require('./harness.js');
const { snapshots } = require('./heap-drive.js');
const { writeRun } = require('./recorder-file.js');
const { need } = require('../scripts/system.js');
const { ROOT } = require('../scripts/steps.js');

const run = promisify(execFile);
const COMMAND = path.join(ROOT, 'bin', 'leakguard.js');
const CHROMIUM_ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const FINDING_DEADLINE_MS = 120_000;
/** Script and style of a page; what it shows comes on top. */
const MAX_ASSET_BYTES = 60 * 1024;
/** What a page of these small heaps may take in all. */
const MAX_PAGE_BYTES = 1024 * 1024;
const WIDE = { width: 1200, height: 900 };
const PHONE = { width: 360, height: 740 };

const { file: browserFile, skip } = need('chromium');

/** @typedef {import('playwright-core').Page} Page */

/**
 * Runs a command line of leakguard.
 * @param {string[]} args
 */
const leakguard = (args) => run(process.execPath, [COMMAND, ...args], { cwd: directory });

/** @type {string} */
let directory;
/** @type {import('playwright-core').Browser} */
let browser;

before(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'leakguard-report-'));
  if (browserFile) {
    browser = await chromium.launch({ executablePath: browserFile, args: CHROMIUM_ARGUMENTS });
  }
});

after(async () => {
  await browser?.close();
  fs.rmSync(directory, { recursive: true, force: true });
});

/**
 * Opens a page of the report, lets `use` work on it, and asserts that it said nothing and asked for nothing.
 * @param {string} file
 * @param {import('playwright-core').BrowserContextOptions} options
 * @param {(page: Page) => Promise<void>} use
 */
async function open(file, options, use) {
  const context = await browser.newContext({ viewport: WIDE, ...options });
  try {
    const page = await context.newPage();
    const url = pathToFileURL(file).href;
    /** @type {string[]} */
    const complaints = [];
    /** @type {string[]} */
    const requests = [];
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(String(error.stack)));
    page.on('dialog', (dialog) => {
      complaints.push(`dialog ${dialog.message()}`);
      dialog.dismiss();
    });
    await context.route('**', (route) => {
      if (route.request().url() === url) return route.continue();
      requests.push(route.request().url());
      return route.abort();
    });
    await page.goto(url);
    await page.locator('main footer').waitFor();
    await use(page);
    assert.deepEqual(complaints, []);
    assert.deepEqual(requests, []);
    assert.equal(await page.evaluate('globalThis.hit'), undefined);
  } finally {
    await context.close();
  }
}

/**
 * The section that a page shows under a heading of its navigation.
 * @param {Page} page
 * @param {string} id
 */
const section = (page, id) => page.locator(`section#${id}`);

/**
 * The texts of one column of a table.
 * @param {import('playwright-core').Locator} within
 * @param {number} column
 * @returns {Promise<string[]>}
 */
const column = (within, column) =>
  within.locator(`tbody tr td:nth-child(${column + 1})`).allTextContents();

/** @param {string} text such as `1,234` */
const count = (text) => Number(text.replaceAll(',', '').replace('−', '-').replace('+', ''));

/**
 * @param {Page} page
 * @returns {Promise<number>} pixels by which the page is wider than the window
 */
const overflow = (page) => page.evaluate('document.documentElement.scrollWidth - innerWidth');

describe('a page in Chromium', { skip, timeout: 15 * 60_000 }, () => {
  /** @type {string[]} snapshots of a Map cache that grows */
  let pair;
  /** @type {string} */
  let analysisPage;
  /** @type {string} */
  let comparisonPage;

  before(async () => {
    const app = apps.ALL.find(({ name }) => name === 'map-cache');
    assert.ok(app);
    const portions = [
      { requests: 600, ms: 30_000 },
      { requests: 1500, ms: 60_000 },
    ];
    pair = await snapshots(app, { directory, portions, speed: 20 });
    analysisPage = path.join(directory, 'analysis.html');
    comparisonPage = path.join(directory, 'comparison.html');
    await leakguard(['analyze', pair[1], '--html', analysisPage]);
    await leakguard(['diff', ...pair, '--html', comparisonPage]);
  });

  test('a leak is named in the headline, with its path unfolded below', async () => {
    await open(analysisPage, {}, async (page) => {
      assert.match((await page.locator('h1').textContent()) ?? '', /Map held by cache/);
      assert.match((await page.locator('#suspect-1').textContent()) ?? '', /map-cache\.js:\d+/);
      const path = page.locator('#suspect-1 details');
      assert.equal(await path.getAttribute('open'), '');
      assert.ok((await path.locator('li').count()) > 3);
    });
  });

  test('paths unfold and fold by mouse and by keyboard', async () => {
    await open(analysisPage, {}, async (page) => {
      const details = page.locator('#suspect-1 details');
      const summary = details.locator('summary');
      const isOpen = () => details.evaluate((each) => each.hasAttribute('open'));
      await summary.click();
      assert.equal(await isOpen(), false);
      await summary.focus();
      await page.keyboard.press('Enter');
      assert.equal(await isOpen(), true);
      await page.keyboard.press('Space');
      assert.equal(await isOpen(), false);
      await summary.click();
      const more = details.locator('li.more button');
      assert.equal(await more.count(), 1, 'the path through Express is a long one');
      const steps = await details.locator('li').count();
      await more.focus();
      await page.keyboard.press('Enter');
      assert.equal(await more.count(), 0);
      assert.ok((await details.locator('li').count()) > steps);
    });
  });

  test('the class table sorts by mouse and by keyboard, and filters', async () => {
    await open(analysisPage, {}, async (page) => {
      const classes = section(page, 'classes');
      const heads = classes.locator('th');
      assert.equal(await heads.nth(3).getAttribute('aria-sort'), 'descending');

      await heads.nth(1).locator('button').click();
      assert.equal(await heads.nth(1).getAttribute('aria-sort'), 'descending');
      assert.equal(await heads.nth(3).getAttribute('aria-sort'), null);
      const counts = (await column(classes, 1)).map(count);
      assert.deepEqual(
        counts,
        [...counts].sort((a, b) => b - a),
      );
      assert.ok(counts[0] > counts[counts.length - 1]);

      await heads.nth(0).locator('button').focus();
      await page.keyboard.press('Enter');
      const names = await column(classes, 0);
      assert.deepEqual(
        names,
        [...names].sort((a, b) => a.localeCompare(b, 'en')),
      );
      await page.keyboard.press('Enter');
      assert.equal(await heads.nth(0).getAttribute('aria-sort'), 'descending');

      const shown = names.length;
      const all = count(
        /Show all ([\d,]+) rows/.exec((await classes.textContent()) ?? '')?.[1] ?? '',
      );
      assert.ok(all > shown);
      await classes.getByRole('button', { name: /Show all/ }).click();
      assert.equal((await column(classes, 0)).length, all);

      await classes.getByRole('searchbox').fill('renderedpage');
      assert.deepEqual(await column(classes, 0), ['RenderedPage']);
      assert.match((await classes.getByRole('status').textContent()) ?? '', /^1 of /);
      await classes.getByRole('searchbox').fill('no such class');
      assert.deepEqual(await column(classes, 0), []);
    });
  });

  test('the dominator tree zooms by mouse and by keyboard, and back out', async () => {
    await open(analysisPage, {}, async (page) => {
      const tree = section(page, 'tree');
      const boxes = tree.locator('.box');
      const crumbs = () => tree.locator('.crumbs button').count();
      const total = await boxes.count();
      assert.ok(total > 10);
      const suspect = tree.locator('.suspect-box[aria-label^="suspect 1:"]');

      assert.equal(await crumbs(), 0);
      await suspect.click();
      const deep = await crumbs();
      assert.ok(deep >= 2, 'what holds the cache is some way down');
      assert.match((await tree.locator('.chosen').textContent()) ?? '', /^suspect 1/);
      await tree.locator('.crumbs button').first().click();
      assert.equal(await crumbs(), 0);
      assert.equal(await boxes.count(), total);

      // By keyboard: one box is in the order of the Tab key, arrows go on from it.
      const focused = () => page.evaluate('document.activeElement.getAttribute("aria-level")');
      await tree.locator('.box[tabindex="0"]').focus();
      assert.equal(await focused(), '1');
      await page.keyboard.press('ArrowDown');
      assert.equal(await focused(), '2');
      await page.keyboard.press('ArrowRight');
      await page.keyboard.press('ArrowLeft');
      await page.keyboard.press('Enter');
      assert.equal(await crumbs(), 1);
      assert.equal(await focused(), '2', 'the focus stays on the box');
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('Enter');
      assert.equal(await crumbs(), 2);
      await page.keyboard.press('Escape');
      await page.keyboard.press('Escape');
      assert.equal(await crumbs(), 0);
    });
  });

  test('a comparison has its snapshots side by side and classes that grew and shrank', async () => {
    await open(comparisonPage, {}, async (page) => {
      assert.match((await page.locator('h1').textContent()) ?? '', /held by cache/);
      assert.match(
        (await page.locator('#suspect-1').textContent()) ?? '',
        /[\d,]+ → [\d,]+ items, \+/,
      );
      const sides = section(page, 'sides').locator('.sides article');
      assert.equal(await sides.count(), 2);
      for (const [index, file] of pair.entries()) {
        assert.match((await sides.nth(index).textContent()) ?? '', new RegExp(path.basename(file)));
      }
      const classes = section(page, 'classes');
      const all = (await column(classes, 3)).length;
      await classes.getByRole('combobox').selectOption('shrank');
      const shrank = await column(classes, 4);
      assert.ok(
        shrank.every((text) => text.startsWith('−')),
        String(shrank),
      );
      await classes.getByRole('combobox').selectOption('grew');
      const grew = await column(classes, 4);
      assert.ok(grew.length > 0 && grew.every((text) => text.startsWith('+')), String(grew));
      assert.ok(grew.length <= all);
    });
  });

  test('light and dark differ, and text has contrast in both', async () => {
    /** @type {string[]} */
    const papers = [];
    for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
      await open(analysisPage, { colorScheme }, async (page) => {
        const colours = await page.evaluate(
          '(() => { const { color, backgroundColor } = getComputedStyle(document.body); return [color, backgroundColor]; })()',
        );
        const [ink, paper] = /** @type {string[]} */ (colours);
        papers.push(paper);
        // WCAG 2, 1.4.6: enhanced contrast.
        assert.ok(contrast(ink, paper) >= 7, `${ink} on ${paper}`);
      });
    }
    assert.notEqual(papers[0], papers[1]);
  });

  test('what has the focus can be seen', async () => {
    await open(analysisPage, {}, async (page) => {
      /** @type {Set<string>} */
      const reached = new Set();
      for (let presses = 0; presses < 60; presses++) {
        await page.keyboard.press('Tab');
        const [kind, outline] = /** @type {string[]} */ (
          await page.evaluate(
            '(() => { const e = document.activeElement; const s = getComputedStyle(e); return [e.className.split?.(" ")[0] || e.tagName, s.outlineStyle + " " + s.outlineWidth]; })()',
          )
        );
        if (kind === 'BODY') break;
        reached.add(kind);
        assert.match(outline, /^solid [1-9]/, kind);
      }
      for (const kind of ['A', 'SUMMARY', 'box', 'INPUT', 'BUTTON']) {
        assert.ok(reached.has(kind), `${kind} is not in the order of the Tab key: ${[...reached]}`);
      }
    });
  });

  test('a phone shows it without scrolling sideways', async () => {
    for (const file of [analysisPage, comparisonPage]) {
      await open(file, { viewport: PHONE }, async (page) => {
        assert.ok((await overflow(page)) <= 0);
        await section(page, 'tree').locator('.suspect-box').first().click();
        assert.ok((await overflow(page)) <= 0);
      });
    }
  });

  test('paper has no controls and everything unfolded', async () => {
    await open(analysisPage, {}, async (page) => {
      await page.locator('#suspect-1 summary').click();
      await page.emulateMedia({ media: 'print' });
      await page.evaluate('dispatchEvent(new Event("beforeprint"))');
      for (const control of ['nav.places', '.tools', '.crumbs', 'button.quiet']) {
        const visible = await page
          .locator(control)
          .evaluateAll((all) => all.filter((each) => each.getClientRects().length > 0).length);
        assert.equal(visible, 0, control);
      }
      assert.equal(await page.locator('details:not([open])').count(), 0);
      assert.equal(await page.locator('.path li.more').count(), 0, 'no step is left out');
      await page.evaluate('dispatchEvent(new Event("afterprint"))');
      assert.equal(await page.locator('#suspect-1 details[open]').count(), 0);
      assert.equal(await page.locator('#suspect-1 li.more').count(), 1);
      assert.ok((await page.pdf()).length > 10_000);
    });
  });

  test('a heap full of markup and script runs none of it', async () => {
    const snapshot = path.join(directory, 'hostile.heapsnapshot');
    await run(process.execPath, [path.join(__dirname, 'hostile-heap.js'), snapshot]);
    const pages = ['hostile.html', 'hostile-diff.html'].map((name) => path.join(directory, name));
    await leakguard(['analyze', snapshot, '--html', pages[0]]);
    await leakguard(['diff', snapshot, snapshot, '--html', pages[1]]);
    const html = fs.readFileSync(pages[0], 'utf8');
    assert.equal(html.match(/<script/g)?.length, 2, 'the model and the one script');
    assert.ok(!/[\u2028\u2029]/.test(html));
    for (const file of pages) {
      await open(file, {}, async (page) => {
        assert.equal(await page.locator('script').count(), 2);
        assert.equal(await page.locator('img, main svg[onload]').count(), 0);
        await page.locator('main').evaluate((main) => {
          for (const each of main.querySelectorAll('summary, button')) {
            /** @type {{ click(): void }} */ (/** @type {unknown} */ (each)).click();
          }
        });
      });
    }
    await open(pages[0], {}, async (page) => {
      const text = (await page.locator('main').textContent()) ?? '';
      assert.ok(text.includes('</script><script>globalThis.hit=1</script>'), 'it is shown as text');
    });
  });

  test('the policy allows exactly the script and the style that are there', () => {
    const html = fs.readFileSync(analysisPage, 'utf8');
    const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(html)?.[1] ?? '';
    const script = /<script>([\s\S]*?)<\/script>/.exec(html)?.[1] ?? '';
    const style = /<style>([\s\S]*?)<\/style>/.exec(html)?.[1] ?? '';
    const hash = (/** @type {string} */ text) =>
      `'sha256-${crypto.createHash('sha256').update(text).digest('base64')}'`;
    const directives = policy.split('; ');
    assert.ok(directives.includes("default-src 'none'"));
    assert.ok(directives.includes(`script-src ${hash(script)}`));
    assert.ok(directives.includes(`style-src ${hash(style)}`));
    assert.ok(!policy.includes('unsafe'));
    assert.ok(script.length + style.length <= MAX_ASSET_BYTES, `${script.length + style.length}`);
    assert.ok(html.length <= MAX_PAGE_BYTES, `${html.length}`);
    assert.equal(fs.statSync(analysisPage).mode & 0o077, 0, 'nobody else may read it');
  });

  test('the policy holds: a page that was tampered with runs nothing', async () => {
    const tampered = path.join(directory, 'tampered.html');
    const html = fs.readFileSync(analysisPage, 'utf8');
    fs.writeFileSync(
      tampered,
      html.replace(
        '<div id="page">',
        '<script>globalThis.hit=1</script><img src="http://127.0.0.1:9/x" onerror="globalThis.hit=2"><div id="page">',
      ),
    );
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(pathToFileURL(tampered).href);
    await page.locator('main footer').waitFor();
    assert.equal(await page.evaluate('globalThis.hit'), undefined);
    await context.close();
  });

  test('a truncated snapshot still gives a page, which says so', async () => {
    const cut = path.join(directory, 'cut.heapsnapshot');
    const whole = fs.readFileSync(pair[1]);
    fs.writeFileSync(cut, whole.subarray(0, Math.floor(whole.length * 0.9)));
    const file = path.join(directory, 'cut.html');
    await leakguard(['analyze', cut, '--html', file]);
    await open(file, {}, async (page) => {
      assert.match((await page.locator('main').textContent()) ?? '', /truncated/);
    });
  });

  describe('of an evidence directory', () => {
    /** @type {string} */
    let evidence;
    /** @type {string} */
    let historyPage;

    before(async () => {
      evidence = path.join(directory, 'evidence');
      await collect(evidence);
      writeRuns(evidence);
      writeHostile(evidence);
      historyPage = path.join(directory, 'history.html');
      await leakguard(['report', evidence, '--out', historyPage]);
    });

    test('the newest finding is the headline, with code and evidence', async () => {
      await open(historyPage, {}, async (page) => {
        assert.match(
          (await page.locator('h1').textContent()) ?? '',
          /^Listeners of 'reload' on EventEmitter pile up/,
        );
        const newest = page.locator('section#findings article').first();
        assert.match((await newest.textContent()) ?? '', /listener-per-request\.js:\d+/);
        assert.match((await newest.textContent()) ?? '', /snapshot written/);
        await newest.locator('summary').click();
        assert.match((await newest.locator('details').textContent()) ?? '', /Live heap/);
      });
    });

    test('charts show what was measured, with what happened, and can be read by keyboard', async () => {
      await open(historyPage, {}, async (page) => {
        const timeline = section(page, 'timeline');
        const titles = await timeline.locator('figcaption > span').allTextContents();
        for (const title of ['Live heap', 'Resident memory', 'Open descriptors', 'Handles']) {
          assert.ok(titles.includes(title), `${title}: ${titles}`);
        }
        assert.ok(titles.some((title) => title.startsWith('Listeners')));
        assert.ok((await timeline.locator('path.cut').count()) > 0, 'a run that was cut off');
        const chart = timeline.locator('svg[role=slider]').first();
        await chart.focus();
        const now = () => chart.getAttribute('aria-valuenow').then(Number);
        const last = await now();
        await page.keyboard.press('ArrowLeft');
        assert.equal(await now(), last - 1);
        await page.keyboard.press('Home');
        assert.equal(await now(), 0);
        const readout = timeline.locator('figcaption output').first();
        assert.match((await readout.textContent()) ?? '', /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d · /);
        await page.keyboard.press('Escape');
        assert.doesNotMatch((await readout.textContent()) ?? '', /^\d{4}-/);
        await chart.hover();
        assert.match((await readout.textContent()) ?? '', /^\d{4}-/);
      });
    });

    test('runs stand side by side and say how they ended', async () => {
      await open(historyPage, {}, async (page) => {
        const runs = section(page, 'runs');
        const ends = await column(runs, 4);
        assert.equal(ends.length, 3);
        assert.match(ends[0], /ended in order \(exit, exit code 0\)/);
        assert.match(ends[1], /cut off ended without exit, at 498 MB of the container's 512 MB/);
        const growth = await column(runs, 3);
        assert.match(growth[1], /^\+120 MB\/h$/);
        assert.ok((await runs.locator('svg.spark').count()) === 3);
        assert.match(
          (await section(page, 'refusals').textContent()) ?? '',
          /memory, needed 900 MB, available 14\.0 MB/,
        );
      });
    });

    test('snapshots are listed with the commands that read them', async () => {
      await open(historyPage, {}, async (page) => {
        const files = section(page, 'snapshots');
        const listed = await files.locator('tbody code').allTextContents();
        const there = fs
          .readdirSync(evidence)
          .filter((name) => /\.heap(snapshot|profile)$/.test(name));
        assert.deepEqual([...listed].sort(), [...there].sort());
        assert.match(
          (await files.locator('pre').first().textContent()) ?? '',
          /^npx leakguard analyze Heap\./,
        );
      });
    });

    test('it fits a phone, and hostile findings and files are only text', async () => {
      await open(historyPage, { viewport: PHONE, colorScheme: 'dark' }, async (page) => {
        await page.locator('main').evaluate((main) => {
          for (const each of main.querySelectorAll('details')) each.setAttribute('open', '');
        });
        assert.ok((await overflow(page)) <= 0);
        const text = (await page.locator('main').textContent()) ?? '';
        assert.ok(text.includes('</script><script>globalThis.hit=1</script>'));
        assert.ok(
          text.includes('Finding.20200101.000001.1.0.002.json'),
          'the broken file is named',
        );
      });
    });

    test('an empty directory gives a page that says so, a missing one an error', async () => {
      const empty = path.join(directory, 'empty');
      fs.mkdirSync(empty);
      const file = path.join(directory, 'empty.html');
      await leakguard(['report', empty, '--out', file]);
      await open(file, {}, async (page) => {
        assert.match((await page.locator('h1').textContent()) ?? '', /No evidence/);
      });
      await assert.rejects(leakguard(['report', path.join(directory, 'nowhere')]), { code: 2 });
    });
  });
});

/**
 * The evidence of a real app with a listener per request: its finding and its snapshots.
 * @param {string} target
 */
async function collect(target) {
  const known = apps.ALL.find(({ name }) => name === 'listener-per-request');
  assert.ok(known);
  const app = await startApp(known.name, { env: { LEAKGUARD_BASELINE: 'on' } });
  const stopped = new AbortController();
  try {
    const load = runLoad(app.port, known.load, {
      durationMs: 2 * FINDING_DEADLINE_MS,
      signal: stopped.signal,
    });
    const written = (/** @type {import('./harness.js').Finding} */ finding) =>
      finding.evidence.some(({ kind, state }) => kind === 'snapshot' && state === 'written');
    await app.waitForFinding(FINDING_DEADLINE_MS, written);
    stopped.abort();
    await load.catch(() => {});
    fs.cpSync(app.dir, target, { recursive: true });
    // Run files of this run would stand beside those that the tests know.
    for (const name of fs.readdirSync(target)) {
      if (name.endsWith('.rec')) fs.rmSync(path.join(target, name));
    }
  } finally {
    stopped.abort();
    await app.stop();
  }
}

/**
 * Three runs before that: one that ended in order, two that were cut off near their limit.
 * @param {string} target
 */
function writeRuns(target) {
  const MB = 1 << 20;
  const minutes = 60_000;
  const start = Date.now() - 200 * minutes;
  const runs = [
    { from: 0, grows: 2, cut: true },
    { from: 70, grows: 2, cut: true },
    { from: 140, grows: 0, cut: false },
  ];
  for (const [index, { from, grows, cut }] of runs.entries()) {
    const ticks = Array.from({ length: 60 }, (_, minute) => minute * minutes);
    writeRun(path.join(target, `run.shop.${100 + index}.rec`), {
      header: {
        app: 'shop',
        app_version: '1.2.3',
        node_version: 'v22.1.0',
        guard_version: '0.1.0',
        pid: 100 + index,
        started_unix_ms: start + from * minutes,
        interval_ms: 1000,
        cgroup_limit_bytes: 512 * MB,
      },
      samples: ticks.map((at) => ({
        at,
        values: {
          rss: (200 + (grows * at) / minutes) * MB,
          cgroupUsed: (498 - grows * (59 - at / minutes)) * MB,
          fds: 20,
          handles: 4,
        },
      })),
      readings: ticks.map((at) => ({ at, bytes: (60 + (grows * at) / minutes) * MB })),
      refusals: cut
        ? [{ at: 50 * minutes, needed: 900 * MB, available: 14 * MB, reason: 'memory' }]
        : [],
      exit: cut ? undefined : { at: 60 * minutes, code: 0, reason: 'exit' },
    });
  }
}

/**
 * Files that somebody else put there: a finding full of markup, one that is no JSON, and one that is a link.
 * @param {string} target
 */
function writeHostile(target) {
  const attack =
    '</script><script>globalThis.hit=1</script>"><img src=x onerror="globalThis.hit=2">\u2028';
  const hostile = {
    schema: 1,
    kind: 'finding',
    time: attack,
    sentence: attack,
    cause: { kind: attack, site: { file: attack, line: attack, column: {}, function: attack } },
    series: [{ id: attack, unit: attack, points: [[1, 2], [3, attack], null, [4, -1]] }, null, 7],
    listeners: [{ emitter: attack, event: attack, count: attack, site: { file: attack } }],
    routes: {
      with: [{ route: attack, requests: attack, bytesPerRequest: attack, r: attack }, null, 7],
      traffic: { route: attack },
    },
    handles: { [attack]: attack },
    fds: [{ kind: attack, count: 1, examples: [{ what: attack }] }],
    threads: [{ name: attack }],
    limits: { [attack]: attack },
    settings: { [attack]: { value: attack, origin: attack } },
    evidence: [
      { kind: attack, state: attack, sentence: attack },
      { state: 'refused', kind: attack },
    ],
    timeToLimit: { ms: 1, limit: attack, bytes: 2 },
  };
  fs.writeFileSync(
    path.join(target, 'Finding.20200101.000000.1.0.001.json'),
    JSON.stringify(hostile),
  );
  fs.writeFileSync(path.join(target, 'Finding.20200101.000001.1.0.002.json'), '{"kind":');
  fs.symlinkSync('/etc/hostname', path.join(target, 'Finding.20200101.000002.1.0.003.json'));
}

/**
 * Contrast of two colours (WCAG 2, "contrast ratio").
 * @param {string} one `rgb(1, 2, 3)`
 * @param {string} other
 */
function contrast(one, other) {
  const luminance = (/** @type {string} */ colour) => {
    const [red, green, blue] = (colour.match(/\d+/g) ?? []).map((part) => {
      const share = Number(part) / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}
