// The page /cases: it tests its browser, and shows the verdicts on all clients.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { launch, whySkipped, withBrowser, withPage } from './browsers.mjs';
import { Server, assertAccessible, eventually, fill, focused, keepSaved, state, text, texts, until, withServer } from './harness.mjs';

const SELECTED = '1.*,2.*,7.1.*,7.9.*,16.1.*';
// Lines that the browsers log about the cases. No page can prevent them.
const EXPECTED = /WebSocket|can’t establish a connection|connection to .* was interrupted/;

let server;
before(async () => {
  server = await Server.start({ flags: ['--cases', SELECTED] });
  // "wrong" answers no pings.
  await runElsewhere('wrong', ['1.1.2', '2.1', '2.2', '2.5', '7.1.1', '7.9.3'], { autoPong: false });
  await runElsewhere('ws', ['1.1.2', '2.1', '2.2', '2.5', '7.1.1', '7.9.3']);
});
after(() => server?.stop());

/** A client outside of the browser, one case after the other. */
async function runElsewhere(agent, ids, options) {
  for (const id of ids) {
    const socket = new WebSocket(`${server.socket}runCase?casetuple=${id}&agent=${encodeURIComponent(agent)}`, { perMessageDeflate: false, ...options });
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
    socket.on('error', () => {});
    await new Promise((resolve) => { socket.on('close', resolve); });
  }
}

for (const name of (process.env.BROWSERS ?? 'Chromium,Firefox,WebKit').split(',')) {
  describe(name, { skip: whySkipped(name) }, () => {
    let browser;
    before(async () => { browser = await launch(name); });
    after(() => browser?.close());

    /** A test with a page of its own. */
    const testPage = (title, body, { view = '', wait = 'ready', size } = {}) => test(title, () => withPage(browser, size, async (page) => {
      await page.goto(`${server.page}cases${view}`);
      await state(page, wait);
      await until(page, 'the agents are listed', () => document.querySelectorAll('#agents li').length > 1);
      await body(page);
      assert.deepEqual(page.said.filter((line) => !EXPECTED.test(line)), [], 'the console stays empty');
    }));

    running(testPage, name);
    if (name === 'WebKit') return;
    viewing(testPage, () => browser);
    for (const scheme of name === 'Chromium' ? ['light', 'dark'] : ['light']) looks(name, scheme);
    if (name !== 'Chromium') return;
    forcedColors(name);
    following(testPage);
    smoothness();
  });
}

const cell = (page, id) => page.evaluate((wanted) => document.querySelector(`.cell[value="${wanted}"]`).getAttribute('aria-label'), id);
const labelled = (page, id, label) => until(page, `${id}: ${label}`, (wanted, expected) => document.querySelector(`.cell[value="${wanted}"]`)?.getAttribute('aria-label') === expected, id, label);
const drawn = (page) => until(page, 'all cells are drawn', () => due.size === 0);
const clickCell = (page, id) => page.evaluate((wanted) => document.querySelector(`.cell[value="${wanted}"]`).click(), id);
const report = async (path) => (await fetch(`${server.page}reports/${path}`)).json();

/** Picks these groups, and no others. */
const pickGroups = (page, numbers) => page.evaluate((wanted) => {
  for (const { number, box } of groups) if (box.checked !== wanted.includes(number)) box.click();
}, numbers);

/** Picks these agents in their order, and no others. */
async function pickAgents(page, names) {
  await page.evaluate((wanted) => {
    for (const item of document.querySelector('#agents').children) if (item.box.checked) item.box.click();
    for (const agent of wanted) [...document.querySelector('#agents').children].find((item) => item.agent === agent).box.click();
  }, names);
  await until(page, `the verdicts on ${names}`, (wanted) => wanted.every((agent) => verdicts.has(agent)), names);
}

function running(testPage, name) {
  testPage('tests the browser, and shows the verdicts that the server has', async (page) => {
    const agent = `${name} as tested`;
    await fill(page, '#agent', agent);
    await pickGroups(page, ['1', '2']);
    // A run may be over before one looks again.
    const begun = await page.evaluate(() => new Promise((resolve) => {
      document.querySelector('#test').click();
      requestAnimationFrame(() => resolve(['#state', '#test'].map((selector) => document.querySelector(selector).textContent)));
    }));
    assert.deepEqual(begun, ['testing', 'Stop']);
    await state(page, 'ready');
    assert.match(await text(page, '#situation'), new RegExp(`^27 cases run in \\d+ s\\. ${agent}: 2\\d OK`));
    await drawn(page);
    const entries = (await report(`index.json?agent=${encodeURIComponent(agent)}`))[agent];
    assert.equal(Object.keys(entries).length, 27);
    for (const [id, { behavior, behaviorClose }] of Object.entries(entries)) {
      const word = behavior !== 'FAILED' && behaviorClose !== 'OK' ? behaviorClose : behavior;
      assert.equal(await cell(page, id), `${id}, ${word}`);
      assert.equal(entries[id].behavior, 'OK', `${name} passes ${id}`);
    }
    assert.equal(await cell(page, '7.9.3'), '7.9.3, not run');
    assert.match((await texts(page, '#agents li')).find((line) => line.startsWith(agent)), /OK/);
  });

  testPage('a case can be run alone, and a run be stopped without a verdict that is wrong', async (page) => {
    const agent = `${name}, stopped`;
    await fill(page, '#agent', agent);
    await clickCell(page, '1.1.2');
    await page.click('#alone');
    await labelled(page, '1.1.2', '1.1.2, OK');
    await until(page, 'the end of the run', () => run === null);
    await eventually(page, '#about code', `runCase?casetuple=1.1.2&agent=${encodeURIComponent(agent).replaceAll('%20', '+')}`);
    await page.click('#close');
    await page.evaluate(() => { document.querySelector('#test').click(); document.querySelector('#test').click(); });
    await until(page, 'the end of the run', () => run === null);
    const entries = (await report(`index.json?agent=${encodeURIComponent(agent)}`))[agent];
    assert.equal(Object.keys(entries).length, 8, 'only those that had begun');
    for (const [id, { behavior }] of Object.entries(entries)) assert.equal(behavior, 'OK', id);
  });
}

function viewing(testPage, browserOf) {
  testPage('two agents stand side by side, what differs is marked, and a link opens the same view', async (page) => {
    await pickAgents(page, ['wrong', 'ws']);
    await labelled(page, '2.1', '2.1, wrong FAILED, ws OK, different');
    assert.equal(await cell(page, '1.1.2'), '1.1.2, wrong OK, ws OK');
    assert.equal(await cell(page, '1.1.3'), '1.1.3, wrong not run, ws not run');
    await page.evaluate(() => { const { show } = page; show.value = 'differences'; show.onchange(); });
    const left = () => page.evaluate(() => [...document.querySelectorAll('.cell')].filter((one) => one.offsetParent !== null).map((one) => one.value));
    assert.deepEqual(await left(), ['2.1', '2.2']);
    await clickCell(page, '2.2');
    await eventually(page, '#about .differs', 'Received');
    assert.deepEqual(await texts(page, '#about tbody tr:first-child > *'), ['Verdict', 'FAILED', 'OK']);
    const look = (one) => one.evaluate(() => ['#groups', '#legend', '#about', '#detail-title'].map((selector) => document.querySelector(selector).innerText).join('\n'));
    await drawn(page);
    const seen = await look(page);
    const link = await page.evaluate(() => document.querySelector('#link').href);
    assert.equal(link, await page.evaluate(() => location.href), 'the address is the link');
    await withPage(browserOf(), {}, async (other) => {
      await other.goto(link);
      await eventually(other, '#about .differs', 'Received');
      await drawn(other);
      assert.equal(await look(other), seen);
      // A third one replaces the first.
      await other.evaluate(() => [...document.querySelector('#agents').children].find((item) => !item.box.checked)?.box.click());
      assert.equal(await other.evaluate(() => shown[0]), 'ws');
    });
  });

  testPage('what is shown can be saved', async (page) => {
    await pickAgents(page, ['wrong', 'ws']);
    await keepSaved(page);
    await page.click('#save');
    await until(page, 'it is saved', () => 'saved' in window);
    const saved = JSON.parse(await page.evaluate(() => window.saved.text));
    assert.deepEqual(Object.keys(saved), ['saved', 'from', 'cases', 'verdicts']);
    assert.equal(saved.cases.length, await page.evaluate(() => cases.length));
    assert.deepEqual(Object.keys(saved.cases[0]), ['case', 'id', 'group', 'description', 'expectation', 'rule', 'maxDuration']);
    assert.equal(saved.verdicts.wrong['2.1'].behavior, 'FAILED');
    assert.equal(saved.verdicts.ws['2.1'].behavior, 'OK');
  });

  testPage('everything is reached and done by keys', async (page) => {
    await pickAgents(page, ['ws']);
    await page.evaluate(() => document.querySelector('#link').focus());
    await page.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement === groups[0].box), true, 'the first group');
    await page.press('Tab');
    const at = () => page.evaluate(() => document.activeElement.value);
    assert.equal(await at(), '1.1.1');
    await page.press('ArrowRight');
    assert.equal(await at(), '1.1.2');
    await page.press('End');
    assert.equal(await at(), await page.evaluate(() => cases.at(-1).id));
    await page.press('ArrowUp');
    await page.press('ArrowLeft');
    await page.press('Home');
    assert.equal(await at(), '1.1.1');
    await page.press('ArrowLeft');
    assert.equal(await at(), '1.1.1', 'nothing is before the first');
    await page.press('ArrowDown');
    assert.notEqual(await at(), '1.1.1');
    await page.press('ArrowUp');
    assert.equal(await at(), '1.1.1');
    await page.press('ArrowRight');
    await page.press('Enter');
    assert.equal(await focused(page), 'detail-title');
    assert.equal(await text(page, '#detail-title'), 'Case 1.1.2');
    await page.press('Tab');
    assert.equal(await focused(page), 'alone');
    await page.press('Escape');
    assert.equal(await at(), '1.1.2', 'back where it was');
    assert.equal(await page.evaluate(() => document.querySelectorAll('.cell[tabindex="0"]').length), 1, 'one of the cells is reached by Tab');
  });

  testPage('it says what is wrong: no group, no name, no server', async (page) => {
    await pickGroups(page, []);
    await page.click('#test');
    await eventually(page, '#problem', 'Pick a group first.');
    await page.evaluate(() => document.querySelector('#all').click());
    await fill(page, '#agent', '  ');
    await page.click('#test');
    await eventually(page, '#problem', 'needs a name');
    assert.equal(await focused(page), 'agent');
    await page.evaluate(() => { window.fetch = () => Promise.reject(new Error('gone')); });
    await page.evaluate(() => poll());
    await state(page, 'offline');
    await page.evaluate(() => load());
    await eventually(page, '#problem', 'No list of cases: gone. This page has to come from wsecho');
  });

  test('a server that goes away ends the run, and is found again', () => withServer(['--cases', '6.4.*,12.1.*'], (own) => withPage(browserOf(), {}, async (page) => {
    await page.goto(`${own.page}cases`);
    await state(page, 'ready');
    await page.click('#test');
    await until(page, 'the first verdict', () => run?.ended > 0);
    await own.stop('SIGKILL');
    await until(page, 'the end of the run', () => run === null);
    await state(page, 'offline');
    assert.equal(await text(page, '#situation'), 'The server went away during the run.');
    const again = await Server.start({ port: own.port });
    try {
      await state(page, 'ready');
      await eventually(page, '#agents li', 'The server does not know it.');
    } finally {
      await again.stop();
    }
  })));

  testPage('the console and it lead to each other', async (page) => {
    await page.goto(await page.evaluate(() => document.querySelector('nav a').href));
    await state(page, 'open');
    await page.click('#cases');
    await state(page, 'ready');
    assert.equal(await page.evaluate(() => location.href), `${server.page}cases`);
  });
}

function looks(name, scheme) {
  describe(`its looks, ${scheme}`, () => {
    let browser;
    before(async () => { browser = await launch(name, { scheme }); });
    after(() => browser?.close());

    for (const width of name === 'Chromium' ? [320, 1440] : [320]) {
      test(`${width} px wide: it fits, and axe-core finds nothing`, () => withPage(browser, { width, height: width === 320 ? 640 : 900 }, async (page) => {
        await page.goto(`${server.page}cases#agent=ws`);
        await labelled(page, '2.1', '2.1, OK');
        const check = async (when) => {
          await drawn(page);
          const wide = await page.evaluate(() => ['html', '#detail', ...document.querySelectorAll('.cell')].map((one) => (typeof one === 'string' ? document.querySelector(one) : one)).filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.id || one.value || one.tagName));
          assert.deepEqual(wide, [], `nothing is too wide ${when}`);
          await assertAccessible(page, when);
          if (process.env.PICTURES) await page.screenshot(join(process.env.PICTURES, `${name}-${scheme}-${width}-${when}.png`));
        };
        await check('with one agent');
        await pickAgents(page, ['wrong', 'ws']);
        await clickCell(page, '2.2');
        await eventually(page, '#about .differs', 'Received');
        await check('with two agents and a case');
      }));
    }
  });
}

function forcedColors(name) {
  test('in forced colors each verdict keeps its sign and its border', () => withBrowser(name, { forcedColors: 'active' }, async (browser) => {
    const page = await browser.newPage();
    await page.goto(`${server.page}cases#agent=wrong`);
    await labelled(page, '2.1', '2.1, FAILED');
    assert.ok(await page.evaluate(() => matchMedia('(forced-colors: active)').matches), 'colors are forced');
    const drawn = await page.evaluate(() => ['2.1', '1.1.2', '1.1.3'].map((id) => {
      const one = document.querySelector(`.cell[value="${id}"]`);
      const { borderTopStyle, borderTopWidth, borderTopLeftRadius } = getComputedStyle(one);
      return [borderTopStyle, borderTopWidth, borderTopLeftRadius, one.querySelector('path').getAttribute('d')].join(' ');
    }));
    assert.equal(new Set(drawn).size, 3, drawn.join('; '));
    if (process.env.PICTURES) await page.screenshot(join(process.env.PICTURES, `${name}-forced-colors.png`));
  }));
}

function following(testPage) {
  testPage('the newest agent is shown, and what it does elsewhere comes by itself', async (page) => {
    const agent = 'elsewhere';
    await runElsewhere(agent, ['2.1'], { autoPong: false });
    await labelled(page, '2.1', '2.1, FAILED');
    await runElsewhere(agent, ['1.1.1']);
    await labelled(page, '1.1.1', '1.1.1, OK');
    assert.equal(await page.evaluate(() => location.hash), '', 'nobody picked it');
    assert.match(await page.evaluate(() => document.querySelector('#link').href), /#agent=elsewhere/);
    await clickCell(page, '2.1');
    await eventually(page, '#about td', 'received []');
    assert.equal(await text(page, '#detail-title'), 'Case 2.1');
    assert.deepEqual((await texts(page, '#about dt')).slice(0, 2), ['Sent', 'Expected']);
    assert.match((await texts(page, '#about dd'))[1], /^Expects pong/);
    await page.evaluate(() => document.querySelector('.cell[value^="16."]').click());
    await eventually(page, '#about dt', 'RFC');
    assert.match((await texts(page, '#about dd'))[2], /RFC 6455 §/);
    await clickCell(page, '2.1');
    await eventually(page, '#about td', 'received []');
    const source = await page.evaluate(async () => (await fetch(document.querySelector('#about a').href)).json());
    assert.equal(`${source.agent} ${source.id} ${source.behavior}`, `${agent} 2.1 FAILED`);
    // Rarely while nothing happens, and not at all while the page is hidden.
    await page.evaluate(() => { Object.defineProperty(document, 'hidden', { value: true, configurable: true }); });
    assert.equal(await page.evaluate(() => poll().then(() => polling)), null, 'no further question');
    await page.evaluate(() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); });
    await until(page, 'the next question', () => polling !== null);
  });
}

function smoothness() {
  test('hundreds of verdicts that change at once take no task over 100 ms', () => withBrowser('Chromium', {}, async (browser) => { // its own, in which this page is the busiest
    const page = await browser.newPage();
    await page.goto(`${server.page}cases`);
    await state(page, 'ready');
    // As if the server had selected many, and two agents ran them.
    await page.evaluate(() => {
      clearTimeout(polling);
      cases = Array.from({ length: 700 }, (_, place) => ({ id: `${1 + Math.floor(place / 50)}.${1 + (place % 50)}.1`, group: 'Many', description: 'Sends text.', expectation: 'Expects text.', rule: '', maxDuration: 1000 }));
      buildGroups();
      [picked, shown] = [true, ['one', 'two']];
    });
    const change = () => page.evaluate(async () => {
      const pairs = [['OK', 'FAILED'], ['FAILED', 'OK'], ['NON-STRICT', 'NON-STRICT']];
      for (const words of [...pairs, ...pairs, ...pairs]) {
        shown.forEach((agent, place) => verdicts.set(agent, Object.fromEntries(cases.map(({ id }) => [id, { behavior: words[place], behaviorClose: 'OK' }]))));
        redraw();
        while (due.size > 0) await new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); });
      }
    });
    await page.assertSmooth(change, { tasks: 10, limit: 100, rounds: 5 });
  }));
}
