import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import {
  CHROMIUM, PAGE, Server, assertAccessible, choose, closedPort, entries, eventually, launch, newPage, noChromium, open, say, state, text,
} from './harness.mjs';

const WORDS = ['hello', 'hi', 'name', 'age', 'date', 'time', 'thanks', 'bye'];
const HOSTILE = '<img src=x onerror=alert(1)>';

// Every run of a pipeline must test the page; a developer without Chromium may go on without.
const skip = noChromium && process.env.CI !== 'true' ? `SKIPPED: no Chromium at ${CHROMIUM}; set CHROMIUM to yours` : false;
if (skip) console.log(`# ${skip}`);

let server;
let browser;

before(async () => {
  if (skip) return;
  assert.ok(!noChromium, `no Chromium at ${CHROMIUM}, and CI=true forbids to skip`);
  server = await Server.start();
  browser = await launch(server.port);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const urlOf = (from) => (from === 'file' ? pathToFileURL(PAGE).href : server.page);

function assertQuiet(page, expected) {
  assert.deepEqual(page.said.filter((line) => !expected?.test(line)), [], 'the console stays empty');
}

/** A test with a browser context of its own; nothing but `expected` may appear in its console. */
function testPage(name, { expected = null, ...options }, body) {
  test(name, { skip }, async () => {
    const page = await newPage(browser, options);
    try {
      await open(page, server.page);
      await body(page);
      assertQuiet(page, expected);
    } finally {
      await page.context().close();
    }
  });
}

for (const from of ['file', 'server']) {
  for (const width of [320, 1600]) {
    for (const scheme of ['light', 'dark']) {
      describe(`from the ${from}, ${width} px wide, ${scheme}`, () => everySetting({ from, width, scheme }));
    }
  }
}

function everySetting({ from, width, scheme }) {
  // One context for all: loading the page anew is as clean, and many times cheaper.
  let page;
  before(async () => { page = skip ? null : await newPage(browser, { width, scheme }); });
  after(() => page?.context().close());

  const check = (name, body) => test(name, { skip }, async () => {
    await open(page, urlOf(from));
    await state(page, 'open');
    await body(page);
    assertQuiet(page);
  });

  check('it connects on load, to where the page came from, with the cursor in the input', async (page) => {
    const expected = from === 'file' ? 'ws://127.0.0.1:1222/' : server.socket;
    assert.equal(await page.inputValue('#address'), expected);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'message');
    await page.keyboard.type('typed at once');
    await page.keyboard.press('Enter');
    await eventually(page, '.received', 'You have entered: typed at once');
  });

  check('it loads nothing but itself', async (page) => {
    const others = page.requested.filter((url) => !url.startsWith('data:') && url !== page.url());
    assert.deepEqual(others, []);
  });

  check('axe-core finds nothing to complain of, open or closed', async (page) => {
    await say(page, HOSTILE);
    await say(page, 'long '.repeat(500));
    for (let times = 0; times < 3; times += 1) await say(page, '1\n2\n3\n4\n5'); // more than fits
    await choose(page, 'Hex');
    await say(page, '00 ff 48 69');
    await page.fill('#message', 'xyz');
    await page.press('#message', 'Enter');
    await assertAccessible(page, 'with entries and a problem');
    await page.getByRole('button', { name: 'Quit' }).click();
    await state(page, 'closed');
    await choose(page, 'File');
    await page.fill('#address', 'http://wrong');
    await page.getByRole('button', { name: 'Connect' }).click();
    await page.evaluate(() => { document.querySelector('#log').scrollTop = 0; });
    await page.locator('#newest').waitFor();
    await assertAccessible(page, 'when closed, with a wrong address and the log scrolled up');
  });

  check('it fits its width, in every state, with unbroken and multi-line messages', async (page) => {
    await say(page, 'unbroken'.repeat(100));
    await say(page, 'one\ntwo\nthree');
    await choose(page, 'Hex');
    await say(page, '00'.repeat(1000));
    const wider = await page.evaluate(() => ['html', '#log'].filter((selector) => {
      const element = document.querySelector(selector);
      return element.scrollWidth > element.clientWidth;
    }));
    assert.deepEqual(wider, [], 'nothing scrolls sideways');
    const widths = await page.evaluate(() => ['.received .body', '#log'].map((selector) => document.querySelector(selector).clientWidth));
    assert.ok(widths[0] > widths[1] / 2, `messages have the most room: ${widths}`);
    const rows = await page.locator('.bytes').first().evaluate((bytes) => new Set(Array.from(bytes.getClientRects(), ({ top }) => Math.round(top))).size);
    assert.equal(rows, (await page.locator('.bytes').first().innerText()).split('\n').length, 'no row of bytes is broken');
  });

  check('nothing moves when a message, a problem or another state comes', async (page) => {
    await page.evaluate(() => document.fonts.ready);
    const places = () => page.evaluate(() => ['#state', '#address', '#quit', '#log', '#copy', '#message', '#words', '#composer']
      .map((selector) => {
        const { x, y, width, height } = document.querySelector(selector).getBoundingClientRect();
        return [selector, x, y + (selector === '#state' ? 0 : window.scrollY), width, height].join(' ');
      }));
    const atFirst = await places();
    await say(page, 'hello');
    assert.deepEqual(await places(), atFirst, 'after a message');
    await page.press('#message', 'Enter');
    await eventually(page, '#problem', 'empty');
    assert.deepEqual(await places(), atFirst, 'with a problem');
    await page.locator('#quit').click();
    await state(page, 'closed');
    assert.deepEqual(await places(), atFirst, 'when closed');
    await page.fill('#subprotocols', 'a b a');
    await page.press('#subprotocols', 'Enter');
    await eventually(page, '#outlook', 'twice');
    assert.deepEqual(await places(), atFirst, 'with a wrong subprotocol');
  });

  check('what came from the network stays text', async (page) => {
    await say(page, HOSTILE);
    assert.match(await entries(page, 'received').innerText(), /You have entered: <img src=x onerror=alert\(1\)>/);
    assert.equal(await page.locator('img').count(), 0);
  });

  check('the log shows direction, time, size and round trip, and the median of these', async (page) => {
    for (const message of ['a', 'é', 'ccc']) await say(page, message);
    const sent = await entries(page, 'sent').nth(1).innerText();
    const received = await entries(page, 'received').nth(1).innerText();
    assert.match(sent, /sent/);
    assert.match(sent, /\d\d:\d\d:\d\d\.\d{3}/);
    assert.match(sent, /2 B/, 'é is two bytes');
    assert.match(received, /received/);
    assert.match(received, /20 B/);
    const times = (await page.locator('.roundtrip').allInnerTexts()).map(parseFloat);
    assert.equal(times.length, 3, 'a round trip for each reply');
    const [latest, median] = (await text(page, '#times')).match(/\d+\.\d/g).map(Number);
    assert.equal(latest, times.at(-1));
    assert.equal(median, times.sort((a, b) => a - b)[1]);
    assert.equal(await text(page, '#counts'), '3 sent, 3 received');
  });

  check('the tutorial\'s words are one click each', async (page) => {
    for (const word of WORDS) await page.getByRole('button', { name: word, exact: true }).click();
    await entries(page, 'received').nth(WORDS.length - 1).waitFor();
    const replies = await page.locator('.received .body').allInnerTexts();
    assert.deepEqual(replies, WORDS.map((word) => `You have entered: ${word}`));
  });

  check('an empty message is refused in the page', async (page) => {
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await eventually(page, '#problem', 'A message cannot be empty.');
    assert.equal(await page.getAttribute('#message', 'aria-invalid'), 'true');
    assert.equal(await entries(page, 'sent').count(), 0);
    await page.locator('#message').pressSequentially('x');
    assert.equal(await text(page, '#problem'), '', 'typing takes the complaint away');
  });

  check('up and down walk the history and come back to the draft', async (page) => {
    for (const message of ['first', 'second', 'two\nlines']) await say(page, message);
    await page.fill('#message', 'draft');
    const walk = async (...keys) => {
      for (const key of keys) await page.press('#message', key);
      return page.inputValue('#message');
    };
    assert.equal(await walk('ArrowUp'), 'two\nlines');
    assert.equal(await walk('ArrowUp'), 'two\nlines', 'inside a text, the arrows move between its lines');
    assert.equal(await walk('ArrowUp'), 'second');
    assert.equal(await walk('ArrowUp', 'ArrowUp', 'ArrowUp'), 'first');
    assert.equal(await walk('ArrowDown'), 'second');
    assert.equal(await walk('ArrowDown', 'ArrowDown', 'ArrowDown'), 'draft');
  });

  check('Shift+Enter starts a line instead of sending', async (page) => {
    await page.locator('#message').pressSequentially('one');
    await page.press('#message', 'Shift+Enter');
    await page.locator('#message').pressSequentially('two');
    await page.press('#message', 'Enter');
    await eventually(page, '.received', /You have entered: one\s+two/);
  });

  check('bytes go out as hex, come back unchanged, and are shown beside their characters', async (page) => {
    await choose(page, 'Hex');
    await say(page, '0x48,0x69 00:ff 21');
    for (const direction of ['sent', 'received']) {
      const shown = await entries(page, direction).innerText();
      assert.match(shown, /0000: 48 69 00 ff 21 +Hi\.\.!/);
      assert.match(shown, /5 B/);
    }
    assert.equal(await page.locator('.roundtrip').count(), 1);
  });

  check('hex that is none is refused with its reason, and kept to be mended', async (page) => {
    await choose(page, 'Hex');
    for (const [typed, reason] of [['48 6g', 'Not hexadecimal: 6g'], ['48 6', 'odd number'], [' ', 'cannot be empty']]) {
      await page.fill('#message', typed);
      await page.press('#message', 'Enter');
      await eventually(page, '#problem', reason);
      assert.equal(await page.inputValue('#message'), typed);
    }
    assert.equal(await entries(page, 'sent').count(), 0);
  });

  check('a file goes out as one binary message', async (page) => {
    await choose(page, 'File');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await eventually(page, '#problem', 'Choose a file first.');
    await page.setInputFiles('#file', { name: 'empty', mimeType: 'text/plain', buffer: Buffer.alloc(0) });
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await eventually(page, '#problem', 'A message cannot be empty.');
    await page.setInputFiles('#file', { name: 'bytes', mimeType: 'image/png', buffer: Buffer.from('0001fe7a', 'hex') });
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await eventually(page, '.received', /00 01 fe 7a +\.\.\.z/);
  });

  check('a long message is folded, and unfolds', async (page) => {
    await say(page, 'x'.repeat(200_000));
    const reply = page.locator('.received .body');
    assert.ok((await reply.innerText()).length < 1000);
    const fold = reply.getByRole('button', { name: 'Show all 200,018 B' });
    assert.equal(await fold.getAttribute('aria-expanded'), 'false');
    await fold.click();
    assert.match(await reply.innerText(), /x{80000}[^]*100,018 more/, 'enough to read, not enough to freeze');
    await reply.getByRole('button', { name: 'Fold' }).click();
    assert.ok((await reply.innerText()).length < 1000);
  });

  check('the log is copied as text, and cleared', async (page) => {
    await say(page, 'keep me');
    await choose(page, 'Hex');
    await say(page, 'c0 de');
    await page.getByRole('button', { name: 'Copy' }).click();
    await eventually(page, '#copy', 'Copied');
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(copied, /^\d{4}-\S+Z\treceived\t25 B\t\d+\.\d ms\tYou have entered: keep me$/m);
    assert.match(copied, /\treceived\t2 B\t\d+\.\d ms\tc0 de$/m);
    await page.getByRole('button', { name: 'Clear' }).click();
    await eventually(page, '#counts', '0 sent, 0 received');
    assert.equal(await page.locator('.entry').count(), 0);
    assert.equal(await text(page, '#times'), '');
  });

  check('the log follows its end unless the reader scrolled up', async (page) => {
    const itIsAtItsEnd = () => page.waitForFunction(() => {
      const log = document.querySelector('#log');
      return log.scrollHeight - log.clientHeight - log.scrollTop < 2;
    });
    for (let line = 0; line < 6; line += 1) await say(page, `${line}\n.\n.\n.\n.`);
    await itIsAtItsEnd();
    await page.evaluate(() => { document.querySelector('#log').scrollTop = 10; });
    await page.locator('#newest').waitFor();
    await say(page, 'later');
    assert.equal(await page.evaluate(() => document.querySelector('#log').scrollTop), 10);
    await page.locator('#newest').click();
    await page.locator('#newest').waitFor({ state: 'hidden' });
    await say(page, 'at the end again');
    await itIsAtItsEnd();
  });

  check('the keyboard alone does everything', async (page) => {
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim() || document.activeElement.value);
    await page.keyboard.type('by keys');
    await page.keyboard.press('Enter');
    await eventually(page, '.received', 'by keys');
    await page.keyboard.press('Tab');
    assert.equal(await focused(), 'Send');
    const backwards = [];
    while (backwards.length < 25 && backwards.at(-1) !== 'address') {
      await page.keyboard.press('Shift+Tab');
      backwards.push(await focused());
    }
    assert.deepEqual(backwards, ['message', ...WORDS.toReversed(), 'text', 'log', 'clear', 'copy', 'reconnect', 'quit', 'Connect', 'subprotocols', 'address']);
    await page.focus('#quit');
    await page.keyboard.press('Enter');
    await state(page, 'closed');
    assert.equal(await focused(), 'quit', 'the focus stays where it was');
    await page.keyboard.press('Shift+Tab');
    await page.keyboard.press('Space');
    await state(page, 'open');
    await page.keyboard.press('Escape');
    assert.equal(await focused(), 'message', 'Escape leads back to the message');
    await page.keyboard.press('Shift+Tab');
    for (let tab = 0; tab < 8; tab += 1) await page.keyboard.press('Shift+Tab');
    assert.equal(await focused(), 'text');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Escape');
    await page.keyboard.type('4a');
    await page.keyboard.press('Enter');
    await eventually(page, '.received', /4a +J/);
  });

  check('Quit closes cleanly and says so; Connect opens again', async (page) => {
    await page.locator('#quit').click();
    await state(page, 'closed');
    assert.equal(await text(page, '#detail'), '1000 Normal Closure, clean, no reason given');
    assert.equal(await text(page, '#outlook'), '');
    await page.fill('#message', 'too late');
    await page.press('#message', 'Enter');
    await eventually(page, '#problem', 'Not connected: press Connect first.');
    assert.equal(await page.inputValue('#message'), 'too late', 'what was typed is not lost');
    await page.getByRole('button', { name: 'Connect' }).click();
    await state(page, 'open');
  });

  check('a wrong address or subprotocol is explained at its field, and the connection kept', async (page) => {
    const cases = [
      ['#address', '', 'An address starts with ws:// or wss://'],
      ['#address', '127.0.0.1:1222', 'An address starts with ws:// or wss://'],
      ['#address', 'ws://[::1', 'Not a valid address: ws://[::1'],
      ['#address', 'ws://127.0.0.1:99999/', 'Not a valid address'],
      ['#address', 'ws://127.0.0.1/#part', 'no fragment'],
      ['#subprotocols', 'chat ch(at', 'Not a valid subprotocol: ch(at'],
      ['#subprotocols', 'chat, chat', 'The subprotocol chat is given twice.'],
    ];
    for (const [field, typed, reason] of cases) {
      const before = await page.inputValue(field);
      await page.fill(field, typed);
      await page.press(field, 'Enter');
      await page.locator('#outlook', { hasText: reason }).waitFor();
      assert.equal(await page.getAttribute(field, 'aria-invalid'), 'true');
      await page.fill(field, before);
    }
    await state(page, 'open');
  });

  check('the subprotocol that was agreed is shown', async (page) => {
    await page.fill('#subprotocols', 'chat, superchat');
    await page.press('#subprotocols', 'Enter');
    await eventually(page, '#detail', 'with the subprotocol chat');
    await say(page, 'hello');
  });
}

describe('the way a connection ends', () => {
  const FAILED = /^WebSocket connection to '.*' failed/; // the browser's own line, which no page can prevent

  async function withServer(flags, body) {
    const own = await Server.start({ flags });
    try {
      await body(own);
    } finally {
      await own.stop('SIGKILL');
    }
  }

  async function callAt(page, address) {
    await page.fill('#address', address);
    await page.press('#address', 'Enter');
  }

  testPage('a refused handshake is explained as far as a browser knows', { expected: FAILED }, async (page) => {
    await state(page, 'open');
    const port = await closedPort();
    await callAt(page, `ws://127.0.0.1:${port}/`);
    await eventually(page, '.event', 'Refused: the opening handshake failed');
    const said = await entries(page, 'event').last().innerText();
    assert.match(said, new RegExp(`nothing listens at 127\\.0\\.0\\.1:${port}`));
    assert.match(said, new RegExp(`this page's origin, http://127\\.0\\.0\\.1:${server.port}`));
    assert.equal(await page.locator('.event a').getAttribute('href'), `http://127.0.0.1:${port}/`);
    assert.equal(await text(page, '#detail'), '1006 Abnormal Closure, not clean, no reason given');
    await assertAccessible(page, 'after a refusal');
  });

  testPage('a subprotocol that the server does not know is named among the causes', { expected: FAILED }, async (page) => {
    await withServer(['--subprotocol', 'chat'], async (own) => {
      await state(page, 'open');
      await page.fill('#subprotocols', 'other');
      await callAt(page, own.socket);
      await eventually(page, '.event', 'it agreed to none of the subprotocols');
    });
  });

  testPage('a server that stops is told by its code', {}, async (page) => {
    await withServer([], async (own) => {
      await callAt(page, own.socket);
      await eventually(page, '#detail', own.socket);
      await state(page, 'open');
      await own.stop();
      await state(page, 'closed');
      assert.match(await text(page, '#detail'), /^1001 Going Away, clean/);
    });
  });

  testPage('a message over the limit is told by its code', {}, async (page) => {
    await withServer(['--max-message-size', '1KiB'], async (own) => {
      await callAt(page, own.socket);
      await eventually(page, '#detail', own.socket);
      await state(page, 'open');
      await page.fill('#message', 'x'.repeat(2000));
      await page.press('#message', 'Enter');
      await state(page, 'closed');
      assert.match(await text(page, '#detail'), /^1009 Message Too Big/);
    });
  });

  testPage('a killed server is called again, ever later, until it is back', { expected: FAILED }, async (page) => {
    const own = await Server.start();
    await callAt(page, own.socket);
    await eventually(page, '#detail', own.socket);
    await state(page, 'open');
    await page.check('#reconnect');
    await own.stop('SIGKILL');
    await eventually(page, '.event', 'Closed: 1006 Abnormal Closure, not clean');
    await eventually(page, '#outlook', /Trying again in \d s, attempt 1/);
    await eventually(page, '.event', 'attempt 3');
    const waits = (await page.locator('.event .body').allInnerTexts()).flatMap((line) => /Reconnecting in ([\d.]+) s/.exec(line)?.[1] ?? []).map(Number);
    assert.ok(waits.length >= 3 && waits.every((wait, index) => index === 0 || wait > waits[index - 1]), `the waits grow: ${waits}`);
    const again = await Server.start({ port: own.port });
    try {
      await state(page, 'open');
      await say(page, 'back');
      assert.equal(await text(page, '#outlook'), '');
    } finally {
      await again.stop('SIGKILL');
    }
  });

  testPage('after Quit nothing reconnects, however long one waits', { prepare: (page) => page.clock.install() }, async (page) => {
    await state(page, 'open');
    await page.check('#reconnect');
    await page.locator('#quit').click();
    await state(page, 'closed');
    await page.clock.runFor(120_000);
    await state(page, 'closed');
    const calls = (await page.locator('.event .body').allInnerTexts()).filter((line) => line.startsWith('Connecting'));
    assert.equal(calls.length, 1);
    assert.equal(await text(page, '#outlook'), '');
  });

  testPage('Quit ends the waiting for the next attempt, and so does the option', { expected: FAILED }, async (page) => {
    await page.check('#reconnect');
    await callAt(page, `ws://127.0.0.1:${await closedPort()}/`);
    await eventually(page, '#outlook', /attempt 2/);
    await page.locator('#quit').click();
    assert.equal(await text(page, '#outlook'), '');
    await eventually(page, '.event', 'Quit: no further attempt');
    await page.locator('#connection .primary').click();
    await eventually(page, '#outlook', /attempt 1/);
    await page.uncheck('#reconnect');
    assert.equal(await text(page, '#outlook'), '');
  });

  // wsecho never does these, so the browser's WebSocket is led to a stand-in inside the test.
  const standIn = (handler) => ({ prepare: (page) => page.routeWebSocket(/./, handler) });

  testPage('a message that answers nothing gets no false round trip', standIn((ws) => {
    ws.send('welcome');
    ws.onMessage((message) => {
      if (message === 'silence') return;
      ws.send('by the way');
      ws.send(`> ${message}`);
    });
  }), async (page) => {
    await eventually(page, '.received', 'welcome');
    await page.fill('#message', 'silence');
    await page.press('#message', 'Enter');
    await page.fill('#message', 'talk');
    await page.press('#message', 'Enter');
    await eventually(page, '.received', '> talk');
    const timed = await page.locator('.received:has(.roundtrip) .body').allInnerTexts();
    assert.deepEqual(timed, ['> talk']);
  });

  for (const [code, reason, shown] of [
    [1000, '', '1000 Normal Closure, clean, no reason given'],
    [1011, 'disk full', '1011 Internal Error, clean, reason: disk full'],
    [3003, HOSTILE, `3003 Forbidden, clean, reason: ${HOSTILE}`],
    [3500, '', '3500 for libraries and frameworks, clean, no reason given'],
    [4321, 'x'.repeat(123), `4321 private use, clean, reason: ${'x'.repeat(123)}`],
  ]) {
    testPage(`close code ${code} is shown by its name`, standIn((ws) => ws.close({ code, reason })), async (page) => {
      await state(page, 'closed');
      assert.equal(await page.locator('#detail').textContent(), shown);
    });
  }
});

describe('under load', () => {
  testPage('a screen reader hears what happens, but is not flooded', {}, async (page) => {
    await eventually(page, '#announcer', 'Open without a subprotocol');
    await page.evaluate(() => {
      window.heard = [];
      new MutationObserver(() => window.heard.push(document.querySelector('#announcer').textContent))
        .observe(document.querySelector('#announcer'), { childList: true });
      for (let index = 0; index < 200; index += 1) {
        document.querySelector('#message').value = `message ${index}`;
        document.querySelector('#composer').requestSubmit();
      }
    });
    await page.waitForFunction(() => window.heard.at(-1)?.includes('message 199'));
    const heard = await page.evaluate(() => window.heard);
    assert.ok(heard.length <= 3, `200 replies, ${heard.length} announcements`);
    assert.match(heard.at(-1), /events, the last: Received You have entered: message 199/);
    assert.equal(await page.getAttribute('#announcer', 'role'), 'status');
  });

  testPage('10,000 messages leave it as quick as the first did', {}, async (page) => {
    await state(page, 'open');
    const session = await page.context().newCDPSession(page);
    // Processor time, not the clock's: the verdict must not depend on what else the machine does.
    await session.send('Performance.enable', { timeDomain: 'threadTicks' });
    const spent = async () => (await session.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'TaskDuration').value;

    const sendUntil = (total) => page.evaluate((end) => new Promise((resolve) => {
      const wanted = `${end.toLocaleString('en')} sent, ${end.toLocaleString('en')} received`;
      let sent = end - 1000;
      const frame = () => {
        for (const until = Math.min(end, sent + 100); sent < until; sent += 1) {
          document.querySelector('#words').children[sent % 8].click();
        }
        if (document.querySelector('#counts').textContent === wanted) resolve();
        else requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    }), total);

    const costs = [];
    for (let total = 1000; total <= 10_000; total += 1000) {
      const start = await spent();
      await sendUntil(total);
      costs.push(await spent() - start);
    }
    const [first, last] = [Math.max(costs[0], costs[1]), Math.min(costs[8], costs[9])];
    assert.ok(last < 2 * first, `seconds for each thousand: ${costs.map((cost) => cost.toFixed(2))}`);
    assert.ok(last < 3, `a message and its reply cost ${last.toFixed(2)} ms`);
    assert.ok(await page.locator('.entry').count() <= 1000, 'the document stays small');
    assert.match(await page.locator('#older').textContent(), /The newest 1,000 of 20,002 entries are shown; Copy takes 20,000\./);
    const start = await spent();
    await page.fill('#message', 'still quick');
    await page.press('#message', 'Enter');
    await eventually(page, '.received', 'still quick');
    assert.ok(await spent() - start < 0.25, `the next message cost ${await spent() - start} s`);
  });
});

describe('the file itself', () => {
  test('it has one style and one script, and nothing that its policy forbids', async () => {
    const source = await readFile(PAGE, 'utf8');
    assert.equal(source.match(/<style/g).length, 1);
    assert.equal(source.match(/<script/g).length, 1);
    assert.doesNotMatch(source, / style=| on[a-z]+="|javascript:/i);
    assert.doesNotMatch(source, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b/);
    assert.doesNotMatch(source, /<link(?![^>]*href="data:)|@import|url\(|<img|<iframe/);
  });

  test('the server under test holds this very page', { skip }, async () => {
    const served = await (await fetch(server.page)).text();
    assert.ok(served === await readFile(PAGE, 'utf8'), 'the page inside the binary is another one: build it again');
  });

  testPage('the server sends it with a policy that admits its own style and script only', {}, async (page) => {
    await state(page, 'open');
    const response = await page.reload();
    const policy = response.headers()['content-security-policy'];
    for (const part of [/default-src 'none'/, /script-src 'sha256-[^' ]+'(;|$)/, /style-src 'sha256-[^' ]+'(;|$)/, /connect-src ws: wss:/, /form-action 'none'/]) assert.match(policy, part);
    assert.equal(await page.evaluate(() => getComputedStyle(document.body).display), 'flex', 'the style is admitted');
    await state(page, 'open');
  });
});

test('a picture for the README', { skip: skip || !process.env.SCREENSHOT }, async () => {
  const page = await newPage(browser, { width: 1000, height: 720, deviceScaleFactor: 1.25 });
  await open(page, urlOf('file')); // shows the default address
  await state(page, 'open');
  await say(page, 'hello');
  await choose(page, 'Hex');
  await say(page, '77 73 65 63 68 6f 00 ff');
  await choose(page, 'Text');
  await say(page, '<b>text, never HTML ✓</b>');
  await page.screenshot({ path: process.env.SCREENSHOT });
  await page.context().close();
});
