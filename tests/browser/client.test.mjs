// The console: all of it in Chromium and Firefox, and in WebKit how a connection begins and ends.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { launch, whySkipped, withBrowser, withPage } from './browsers.mjs';
import {
  PAGE, Server, WSECHO, assertAccessible, check, choose, closedPort, enter, eventually, fill, focused, isInvalid, keepSaved, listed, replied, say, sendWords, standIn, state, text, texts, until, value, withServer,
} from './harness.mjs';

const WORDS = ['hello', 'hi', 'name', 'age', 'date', 'time', 'thanks', 'bye'];
const HOSTILE = '<img src=x onerror=alert(1)>';
const TEN_LINES = Array.from({ length: 10 }, (_, line) => `line ${line}`).join('\n');
// Lines that the browsers log. No page can prevent them.
const FAILED = /WebSocket connection to|can’t establish a connection|connection to .* was interrupted|Failed to load resource|Cross-Origin|CORS|Fetch API cannot load/;
const hasTls = execFileSync(WSECHO, ['--help'], { encoding: 'utf8' }).includes('--tls-cert');

let server;
let folder;
let tls; // the flags for TLS
before(async () => {
  server = await Server.start();
  folder = await mkdtemp(join(tmpdir(), 'wsecho-browser-'));
  if (!hasTls) return;
  const [certificate, key] = ['cert.pem', 'key.pem'].map((file) => join(folder, file));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'], { stdio: 'ignore' });
  tls = ['--tls-cert', certificate, '--tls-key', key];
});
after(async () => {
  await server?.stop();
  if (folder) await rm(folder, { recursive: true });
});

for (const name of (process.env.BROWSERS ?? 'Chromium,Firefox,WebKit').split(',')) {
  const skip = whySkipped(name);
  describe(name, { skip }, () => {
    let browser;
    before(async () => { browser = await launch(name); });
    after(() => browser?.close());

    /** A test with a page of its own; nothing but `expected` may appear in its console. */
    const testPage = (title, body, { expected = null, url = () => server.page, size, wait = 'open' } = {}) => test(title, () => withPage(browser, size, async (page) => {
      await page.goto(url());
      if (wait) await state(page, wait);
      await body(page);
      assert.deepEqual(page.said.filter((line) => !expected?.test(line)), [], 'the console stays empty');
    }));

    describe('how a connection begins and ends', () => closing(testPage, name));
    describe('frames', () => frames(testPage, name));
    if (name === 'WebKit') return;
    describe('what it does', () => features(testPage, name));
    describe('in older browsers', () => older(() => browser));
    describe('under load', () => load(testPage, name));
    for (const scheme of ['light', 'dark']) describe(`its looks, ${scheme}`, () => looks(name, scheme));
    describe('its looks, forced colors', () => forcedColors(name));
  });
}

async function withStandIn(handle, body, options) {
  const own = await standIn(handle, options);
  try {
    await body(own);
  } finally {
    own.stop();
  }
}

/** Opens a connection to another address by hand. */
async function call(page, address) {
  await enter(page, '#address', address);
  await eventually(page, '#detail', address);
  await state(page, 'open');
}

/** The text of all entries of one kind, once they are in the document. */
async function bodies(page, kind) {
  await listed(page);
  return texts(page, `.${kind} .body`);
}
const events = (page) => bodies(page, 'event');

/** Scrolls the log as a reader does, and waits until the way back is offered. */
async function scrollUp(page, top) {
  await page.evaluate((pixels) => { document.querySelector('#log').scrollTop = pixels; }, top);
  await until(page, 'the way back is offered', () => document.querySelector('#newest').classList.contains('offered'));
}

// ── How a connection begins and ends ────────────────────────────────────────────────────────────

function closing(testPage, name) {
  testPage('a refusal is explained once, its likeliest cause first, with a link, and never folded', async (page) => {
    const port = await closedPort();
    await check(page, '#reconnect');
    await enter(page, '#address', `ws://127.0.0.1:${port}/`);
    await eventually(page, '.event', 'Attempt 2 was refused too');
    const explained = (await events(page)).filter((line) => line.startsWith('Refused'));
    assert.equal(explained.length, 1, 'it is said once');
    assert.equal(explained[0], `Refused: nothing listens at 127.0.0.1:${port}, or the browser blocks this address. Browsers don't tell pages which. See what answers at http://127.0.0.1:${port}/`);
    assert.equal(await page.evaluate(() => document.querySelector('.event a').href), `http://127.0.0.1:${port}/`);
    assert.equal(await page.evaluate(() => document.querySelectorAll('.event button').length), 0, 'no event is folded');
  }, { expected: FAILED });

  testPage('a server that answers is not said to be absent: its refusal has other causes', async (page) => {
    await withServer(['--origin', 'https://good.example', '--subprotocol', 'chat'], async (own) => {
      await enter(page, '#address', `${own.socket}do?close=4000`);
      await eventually(page, '.event', `Refused: the server answered with an HTTP error: 403 if it does not allow this page's origin, http://127.0.0.1:${server.port}, 404 if it has no WebSocket there, 503 if it is full, or it expects TLS (wss://).`);
      await fill(page, '#subprotocols', 'other');
      await enter(page, '#address', own.socket);
      await eventually(page, '.event', 'Refused: the server agreed to none of the subprotocols, or the server answered');
    });
  }, { expected: FAILED });

  testPage('what /do says of a query stands where the refusal is', async (page) => {
    await enter(page, '#address', `${server.socket}do?close=1006`);
    await eventually(page, '.event', 'Refused: close is 1000–1003, 1007–1014, 3000–4999, none, fin, rst or hang; 1006 is never sent');
    await enter(page, '#address', `${server.socket}do?status=503`);
    await eventually(page, '.event', 'Refused: the server was asked for this. The handshake is refused with 503 Service Unavailable.');
  }, { expected: FAILED });

  testPage('ws:// where TLS is expected, and wss:// where it is not, are named as the cause', async (page) => {
    await enter(page, '#address', server.socket.replace('ws:', 'wss:'));
    await eventually(page, '.event', `Refused: 127.0.0.1:${server.port} expects no TLS: try ws:// instead of wss://.`);
    if (!hasTls) return;
    await withServer(tls, async (own) => {
      await enter(page, '#address', own.socket.replace('wss:', 'ws:'));
      await eventually(page, '.event', `Refused: 127.0.0.1:${own.port} expects TLS: try wss:// instead of ws://.`);
    });
  }, { expected: FAILED });

  testPage('an address that the browser blocks ends the attempt, and Reconnect tries again', async (page) => {
    await enter(page, '#address', 'ws://127.0.0.1:1/');
    await until(page, 'the end of the attempt', () => document.querySelector('#state').textContent === 'failed' || document.querySelector('#settings-problem').textContent !== '');
    if (await text(page, '#settings-problem')) return; // Firefox may refuse it at once
    assert.equal(await text(page, '#toggle'), 'Connect');
    await check(page, '#reconnect');
    await eventually(page, '.event', 'Attempt 2 was refused too');
    await page.click('#toggle');
    await state(page, 'closed');
  }, { expected: FAILED });

  testPage('a wrong address typed while an attempt waits keeps its complaint, and ends the attempts', async (page) => {
    await check(page, '#reconnect');
    await enter(page, '#address', `ws://127.0.0.1:${await closedPort()}/`);
    await eventually(page, '#outlook', /Trying again in \d+ s, attempt [23]/);
    await enter(page, '#address', 'ws://[::1');
    await eventually(page, '#settings-problem', 'Not a valid address: ws://[::1');
    const before = await page.evaluate(() => kept.length);
    await page.evaluate(() => new Promise((resolve) => { setTimeout(resolve, 4000); })); // until the countdown and the next attempt would have shown
    assert.match(await text(page, '#settings-problem'), /Not a valid address/);
    assert.ok(await isInvalid(page, '#address'));
    assert.equal(await page.evaluate(() => kept.length), before, 'the old address is not called again');
    assert.equal(await text(page, '#state'), 'closed');
  }, { expected: FAILED });

  testPage('"not connected" is taken back by the connection', async (page) => {
    await page.click('#toggle');
    await state(page, 'closed');
    await enter(page, '#message', 'too early');
    await eventually(page, '#problem', 'Not connected: press Connect first.');
    assert.ok(await isInvalid(page, '#message'));
    assert.equal(await value(page, '#message'), 'too early', 'what was typed is not lost');
    await page.click('#toggle');
    await state(page, 'open');
    await until(page, 'no complaint', () => document.querySelector('#problem').textContent === '');
    assert.ok(!await isInvalid(page, '#message'));
  });

  testPage('a message before the opening is told to wait, until it is open', async (page) => {
    await enter(page, '#address', `${server.socket}do?delay=2s`);
    await state(page, 'connecting');
    await enter(page, '#message', 'too early');
    await eventually(page, '#problem', /^Not connected yet\.$/);
    await state(page, 'open');
    await until(page, 'no complaint', () => document.querySelector('#problem').textContent === '');
  });

  testPage('a mark of direction in a reason turns nothing behind it', (page) => withStandIn((socket) => socket.close(4000, '\u202egnp.exe'), async (own) => {
    await check(page, '#reconnect');
    await enter(page, '#address', own.socket);
    await eventually(page, '#outlook', 'Trying again');
    const [first, last] = await page.evaluate(() => [0, 5].map((index) => {
      const letter = document.createRange();
      letter.setStart(document.querySelector('#outlook').firstChild, index);
      letter.setEnd(document.querySelector('#outlook').firstChild, index + 1);
      return letter.getBoundingClientRect().left;
    }));
    assert.ok(first < last, `the first letter is at ${first}, the sixth at ${last}`);
  }));

  testPage('one button connects and quits, and connects to an address that was changed', async (page) => {
    assert.equal(await text(page, '#toggle'), 'Quit');
    await page.click('#toggle');
    await state(page, 'closed');
    assert.equal(await text(page, '#detail'), '1000 Normal Closure, clean, no reason given.');
    assert.equal(await page.evaluate(() => document.querySelector('#state').className), 'closed', 'calm, since it was meant');
    assert.equal(await text(page, '#toggle'), 'Connect');
    await page.click('#toggle');
    await state(page, 'open');
    const isOffered = (selector) => page.evaluate((wanted) => document.querySelector(wanted).checkVisibility(), selector);
    assert.ok(!await isOffered('#change'));
    await fill(page, '#address', `${server.socket}other`);
    assert.ok(await isOffered('#change'));
    await page.click('#change');
    await eventually(page, '#detail', `${server.socket}other, `);
    await eventually(page, '.event', `Left ${server.socket}`);
    assert.ok(!await isOffered('#change'));
    await fill(page, '#address', 'ws://[::1');
    assert.equal(await text(page, '#toggle'), 'Quit', 'a live connection can be ended whatever is typed');
    await page.click('#toggle');
    await state(page, 'closed');
    assert.equal(await text(page, '#detail'), '1000 Normal Closure, clean, no reason given.');
  });

  testPage('Quit closes with the code and the reason that were asked for', async (page) => {
    let ended;
    const ending = new Promise((resolve) => { ended = resolve; });
    await withStandIn((socket) => socket.on('close', (code, reason) => ended([code, String(reason)])), async (own) => {
      await call(page, own.socket);
      for (const [field, wrong, complaint] of [
        ['#code', '1001', 'A page may close with 1000 or 3000 to 4999, not with 1001.'], ['#code', '4.2e3', 'not with 4.2e3'],
        ['#reason', 'é'.repeat(62), 'at most 123 bytes of UTF-8, and this one has 124'],
      ]) {
        await fill(page, field, wrong);
        await page.click('#toggle');
        await eventually(page, '#settings-problem', complaint);
        assert.ok(await isInvalid(page, field));
        await fill(page, field, '');
      }
      await fill(page, '#code', '4001');
      await fill(page, '#reason', 'gone for tea');
      await page.click('#toggle');
      await state(page, 'closed');
      assert.deepEqual(await ending, [4001, 'gone for tea']);
      await eventually(page, '.event', 'Quit: sent 4001 private use, reason: gone for tea');
    });
  });

  testPage('a server that stops is told by its code, calmly', async (page) => {
    await withServer([], async (own) => {
      await call(page, own.socket);
      await own.stop();
      await state(page, 'closed');
      assert.match(await text(page, '#detail'), /^1001 Going Away, /);
    });
  });

  testPage('a message over the limit is told by its code, and the limit by its number', async (page) => {
    await withServer(['--max-message-size', '1KiB'], async (own) => {
      await call(page, own.socket);
      await enter(page, '#message', 'x'.repeat(2000));
      await state(page, 'failed');
      assert.match(await text(page, '#detail'), /^1009 Message Too Big, (not )?clean, reason: .*limit of 1024/);
    });
  });

  for (const [code, reason, shown, ends] of [
    [1000, '', '1000 Normal Closure, clean, no reason given.', 'closed'],
    [1011, 'disk full', '1011 Internal Error, clean, reason: disk full.', 'failed'],
    ...(name === 'WebKit' ? [] : [[1012, '', '1012 Service Restart, clean, no reason given.', 'closed']]), // WebKit calls it an error
    [3003, HOSTILE, `3003 Forbidden, clean, reason: ${HOSTILE}.`, 'closed'],
    [3500, '', '3500 for libraries and frameworks, clean, no reason given.', 'closed'],
    [4321, 'x'.repeat(123), `4321 private use, clean, reason: ${'x'.repeat(123)}.`, 'closed'],
  ]) {
    testPage(`close code ${code} is shown by its name`, (page) => withStandIn((socket) => socket.close(code, reason), async (own) => {
      await enter(page, '#address', own.socket);
      await state(page, ends);
      assert.equal(await text(page, '#detail'), shown);
    }));
  }

  testPage('a killed server is called again, ever later, until it is back', async (page) => {
    const own = await Server.start();
    await call(page, own.socket);
    await check(page, '#reconnect');
    await own.stop('SIGKILL');
    await eventually(page, '.event', 'Closed: 1006 Abnormal Closure, not clean, no reason given');
    await eventually(page, '#situation', /no reason given\. Trying again in \d s, attempt 1\./);
    await state(page, 'waiting');
    await eventually(page, '.event', 'attempt 3');
    const waits = (await events(page)).flatMap((line) => /Reconnecting in ([\d.]+) s/.exec(line)?.[1] ?? []).map(Number);
    assert.ok(waits.length >= 3 && waits.every((wait, index) => index === 0 || wait > waits[index - 1]), `the waits grow: ${waits}`);
    const again = await Server.start({ port: own.port });
    try {
      await state(page, 'open');
      await say(page, 'back');
      assert.equal(await text(page, '#outlook'), '');
    } finally {
      await again.stop('SIGKILL');
    }
  }, { expected: FAILED });

  testPage('after Quit nothing reconnects, however long one waits', async (page) => {
    await check(page, '#reconnect');
    await page.evaluate(() => {
      const real = setTimeout;
      window.setTimeout = (action, delay = 0) => real(action, delay / 1000); // so the longest wait is 40 ms
      document.querySelector('#toggle').click();
      return new Promise((resolve) => { real(resolve, 1000); }).then(() => { window.setTimeout = real; });
    });
    assert.equal(await text(page, '#state'), 'closed');
    assert.equal((await events(page)).filter((line) => line.startsWith('Connecting')).length, 1);
  });

  testPage('Quit ends the waiting for the next attempt, and so does the option', async (page) => {
    await check(page, '#reconnect');
    await enter(page, '#address', `ws://127.0.0.1:${await closedPort()}/`);
    await eventually(page, '#outlook', /attempt 2/);
    await page.click('#toggle');
    assert.equal(await text(page, '#outlook'), '');
    assert.equal(await text(page, '#state'), 'closed');
    await eventually(page, '.event', 'Quit: no further attempt');
    await page.click('#toggle');
    await eventually(page, '#outlook', /attempt 1/);
    await check(page, '#reconnect');
    assert.equal(await text(page, '#outlook'), '');
  }, { expected: FAILED });
}

// ── What it does ────────────────────────────────────────────────────────────────────────────────

function features(testPage, name) {
  /** Opens the latest entry of a direction, and resolves to what its view shows. */
  async function openLast(page, direction, view) {
    await page.evaluate((wanted, named) => {
      const item = [...document.querySelectorAll(`.${wanted}`)].at(-1);
      if (!item.entry.open) item.querySelector('.mark').click();
      if (named) [...item.querySelectorAll('[data-view]')].find((button) => button.textContent === named).click();
    }, direction, view);
    return page.evaluate((wanted) => [...document.querySelectorAll(`.${wanted}`)].at(-1).querySelector('.view').innerText, direction);
  }

  testPage('it connects on load, to where the page came from, with the cursor in the input', async (page) => {
    assert.equal(await value(page, '#address'), server.socket);
    assert.equal(await focused(page), 'message');
    await page.type('typed at once');
    await page.press('Enter');
    await eventually(page, '.received', 'You have entered: typed at once');
    assert.deepEqual(page.requested.filter((url) => !/^(data|wss?):/.test(url) && url !== server.page), [], 'it loads nothing but itself');
  });

  testPage('from a file it calls the usual address, and works', async (page) => {
    assert.equal(await value(page, '#address'), 'ws://127.0.0.1:1222/');
    await call(page, server.socket);
    await say(page, 'from a file');
    await page.reload();
    await state(page, 'open');
    assert.equal(await value(page, '#address'), server.socket, 'reloading keeps the settings');
  }, { url: () => pathToFileURL(PAGE).href, wait: null, expected: FAILED });

  test('from https it calls wss', { skip: hasTls ? false : 'SKIPPED: this wsecho has no --tls-cert' }, async () => {
    await withServer(tls, (own) => withBrowser(name, {}, async (browser) => {
      const page = await browser.newPage();
      await page.goto(own.page);
      await state(page, 'open');
      assert.equal(await value(page, '#address'), own.socket);
      assert.match(own.socket, /^wss:/);
      await say(page, 'encrypted');
    }));
  });

  testPage('what was agreed is shown', async (page) => {
    await fill(page, '#subprotocols', 'chat, superchat');
    await enter(page, '#address', server.socket);
    await eventually(page, '#detail', /^ws:\S+, subprotocol chat, (no extension|permessage-deflate.*), open after \d+\.\d ms\.$/);
    const extensions = await page.evaluate(() => connection.socket.extensions);
    assert.ok((await events(page)).at(-1).endsWith(`subprotocol chat, ${extensions}`), 'the log has the parameters too');
    assert.match(extensions, /^permessage-deflate/);
    await say(page, 'é');
    assert.equal(await text(page, '#counts'), '1 sent, 2 B; 1 received, 20 B');
  });

  testPage('the settings are in the URL: it is bookmarked, shared, and survives a reload', async (page) => {
    await check(page, '#reconnect');
    await fill(page, '#subprotocols', 'chat');
    await call(page, `${server.socket}room?id=1`);
    const url = await page.evaluate(() => location.href);
    assert.equal(url, `${server.page}#${new URLSearchParams({ address: `${server.socket}room?id=1`, subprotocols: 'chat', reconnect: 'on' })}`);
    await page.reload();
    await eventually(page, '#detail', `${server.socket}room?id=1, subprotocol chat`);
    assert.ok(await page.evaluate(() => document.querySelector('#reconnect').checked));
    await page.evaluate(() => { location.hash = ''; });
    await eventually(page, '#detail', `${server.socket}, no subprotocol`);
    assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0, 'nothing is stored');
  });

  testPage('the history and whether Settings is folded outlive a reload', async (page) => {
    await say(page, 'first');
    await say(page, 'second');
    await page.click('#fold');
    const saved = (folded) => until(page, 'the state is saved', (wanted) => history.state?.folded === wanted && history.state.past.text.length === 2, folded);
    await saved(true);
    await page.reload();
    await state(page, 'open');
    assert.ok(await page.evaluate(() => document.querySelector('#settings').hidden));
    await page.evaluate(() => document.querySelector('#message').focus());
    await page.press('ArrowUp');
    await page.press('ArrowUp');
    assert.equal(await value(page, '#message'), 'first');
    await page.click('#fold');
    await saved(false);
    await page.reload();
    await state(page, 'open');
    assert.ok(!await page.evaluate(() => document.querySelector('#settings').hidden));
  });

  testPage('what is plainly meant as an address is taken as that, the rest explained at its field', async (page) => {
    for (const [typed, meant] of [
      [`127.0.0.1:${server.port}`, server.socket], [String(server.port), server.socket], [`:${server.port}`, server.socket], [`http://127.0.0.1:${server.port}/a`, `${server.socket}a`], ['/b?c', `${server.socket}b?c`],
    ]) {
      await enter(page, '#address', typed);
      await eventually(page, '#detail', `${meant},`);
      assert.equal(await value(page, '#address'), meant);
    }
    for (const [field, typed, reason] of [
      ['#address', '', 'An address is needed'], ['#address', 'ftp://127.0.0.1/', 'not ftp://'], ['#address', 'ws://127.0.0.1:99999/', 'Not a valid address'], ['#address', '99999', 'Not a valid address: 99999'],
      ['#address', 'ws://127.0.0.1/#part', 'no fragment'], ['#subprotocols', 'chat ch(at', 'Not a valid subprotocol: ch(at'], ['#subprotocols', 'chat, chat', 'The subprotocol chat is given twice.'],
    ]) {
      const before = await value(page, field);
      await enter(page, field, typed);
      await eventually(page, '#settings-problem', reason);
      assert.ok(await isInvalid(page, field));
      assert.equal(await focused(page), field.slice(1));
      await fill(page, field, before);
      assert.equal(await text(page, '#settings-problem'), '', 'typing takes the complaint away');
    }
    assert.equal(await text(page, '#state'), 'open');
  });

  testPage('the form for behaviors writes the address, and shows what the server says of it', async (page) => {
    await page.click('#behavior summary');
    await page.evaluate(() => [...document.querySelectorAll('#presets button')].find((button) => button.textContent === 'lost after 3').click());
    assert.equal(await value(page, '#address'), `${server.socket}do?close=rst&after=3`);
    await fill(page, '#behavior-close', '4000');
    await fill(page, '#behavior-reason', 'bye & thanks');
    assert.equal(await value(page, '#address'), `${server.socket}do?close=4000&reason=bye%20%26%20thanks&after=3`);
    const answer = await fetch(`${server.page}do?close=4000&reason=bye%20%26%20thanks&after=3`);
    assert.equal(answer.status, 200);
    await eventually(page, '#sentence', (await answer.text()).trim());
    await fill(page, '#behavior-close', '1006');
    await eventually(page, '#sentence', /1006 is never sent/);
    await fill(page, '#address', `${server.socket}do?status=503&dump`);
    assert.equal(await value(page, '#behavior-status'), '503', 'an address fills the form');
    assert.ok(await page.evaluate(() => document.querySelector('#behavior-dump').checked));
    assert.equal(await value(page, '#behavior-close'), '');
    for (const host of ['127.0.0.1', 'localhost']) {
      await fill(page, '#address', `${host}:${server.port}/do?close=4001`);
      assert.equal(await value(page, '#behavior-close'), '4001', 'with a scheme or without');
      await eventually(page, '#sentence', 'Right after the handshake the server closes with 4001.');
      await fill(page, '#behavior-close', '4002');
      assert.equal(await value(page, '#address'), `ws://${host}:${server.port}/do?close=4002`);
    }
    await fill(page, '#address', server.socket);
    for (const preset of await texts(page, '#presets button')) {
      await page.evaluate((wanted) => [...document.querySelectorAll('#presets button')].find((button) => button.textContent === wanted).click(), preset);
      assert.equal((await fetch((await value(page, '#address')).replace('ws', 'http'))).status, 200, preset);
    }
    await page.evaluate(() => document.querySelector('#presets button').click());
    await page.click('#change');
    await eventually(page, '#detail', /^4000 private use/);
  }, { expected: FAILED });

  testPage('the form offers what the table of parameters has, and loses nothing that an address says', async (page) => {
    await page.evaluate(() => { document.querySelector('#behavior').open = document.querySelector('#rest').open = true; });
    const table = await (await fetch(`${server.page}do`)).text();
    const names = [...table.matchAll(/^(\w+): (.*)$/gm)].slice(1).map(([, name, effect]) => [name, effect]);
    assert.ok(names.length > 15, 'the table is found');
    for (const [name, effect] of names) assert.equal(await text(page, `#behavior-${name}-help`), effect);
    assert.equal((await texts(page, '#usual label[for]')).length, 5, 'the five most used come first');
    const choices = (selector) => page.evaluate((wanted) => [...document.querySelectorAll(wanted)].map(({ value: word }) => word), selector);
    assert.deepEqual(await choices('#behavior-close-words option'), ['none', 'fin', 'rst', 'hang']);
    assert.equal(await page.evaluate(() => document.querySelector('#behavior-close').list.id), 'behavior-close-words');
    assert.deepEqual(await choices('#behavior-pong option'), ['', 'off']);
    assert.equal((await choices('#behavior-bad option')).length, 10);
    assert.equal(await page.evaluate(() => document.querySelectorAll('#behavior [placeholder]').length), 0, 'nothing can be taken for a value');
    const pick = (selector, word) => page.evaluate((wanted, chosen) => {
      const field = document.querySelector(wanted);
      if (field.type === 'checkbox') field.checked = chosen;
      else field.value = chosen;
      field.dispatchEvent(new Event('input', { bubbles: true }));
    }, selector, word);
    await pick('#behavior-bad', 'rsv');
    await pick('#behavior-dump', true);
    assert.equal(await value(page, '#address'), `${server.socket}do?dump&bad=rsv`);
    await pick('#behavior-dump', false);
    await pick('#behavior-bad', '');
    assert.equal(await value(page, '#address'), server.socket);
    await pick('#behavior-prefix-empty', true);
    await pick('#behavior-latency', '1s');
    assert.equal(await value(page, '#address'), `${server.socket}do?prefix=&latency=1s`, 'an empty prefix is said');
    await pick('#behavior-prefix', '> ');
    assert.ok(!await page.evaluate(() => document.querySelector('#behavior-prefix-empty').checked));
    for (const query of ['prefix=&after=1', 'bad=nothing&after=1', 'after=1&later=x%26y&new=']) {
      await fill(page, '#address', `${server.socket}do?${query}`);
      await pick('#behavior-after', '2');
      assert.deepEqual(new Set((await value(page, '#address')).split('?')[1].split('&')), new Set(query.replace('after=1', 'after=2').split('&')), query);
    }
  });

  testPage('without behaviors, or at another server, the page stays usable', async (page) => {
    await withServer(['--behaviors', 'off'], async (own) => {
      await page.goto(own.page);
      await state(page, 'open');
      await page.click('#cases');
      await eventually(page, '#settings-problem', `No cases: 127.0.0.1:${own.port} has no /cases. It is another server, or runs with --behaviors off.`);
      await say(page, 'still here');
    });
    await page.goto(server.page);
    await state(page, 'open');
    await page.evaluate(() => { document.querySelector('#behavior').open = true; });
    await withServer(['--behaviors', 'off'], async (own) => {
      await fill(page, '#address', `${own.socket}do?close=4000`);
      await eventually(page, '#sentence', 'Perhaps this server has no behaviors.');
      await call(page, `${own.socket}do?close=4000`);
      await say(page, 'a plain echo');
    });
    await withStandIn((socket) => socket.on('message', (data) => socket.send(String(data))), async (own) => {
      await call(page, `${own.socket}do?close=4000`);
      await say(page, 'a foreign echo');
    });
  }, { expected: FAILED });

  testPage('the filter finds text and regular expressions, and loses nothing', async (page) => {
    await sendWords(page, 500, 'message #');
    await choose(page, 'hex');
    await say(page, '4f 4b 00 ff');
    await listed(page);
    const shown = async () => { await listed(page); return text(page, '#matches'); };
    const total = await page.evaluate(() => kept.length.toLocaleString('en'));
    for (const [typed, matches] of [
      ['', ''], ['MESSAGE 49', `22 of ${total}`], ['/message 49$/', `2 of ${total}`], ['/MESSAGE 4.9/i', `20 of ${total}`],
      ['ok', `2 of ${total}`], ['4f 4b 00', `2 of ${total}`], ['message (', `0 of ${total}`], ['', ''],
    ]) {
      await fill(page, '#filter', typed);
      assert.equal(await shown(), matches, typed);
    }
    await fill(page, '#filter', 'nothing like it');
    await eventually(page, '#nothing', 'Nothing matches nothing like it');
    await until(page, 'it is said in the log', () => document.querySelector('#nothing').checkVisibility());
    await fill(page, '#filter', '/(/');
    await eventually(page, '#nothing', /^Not a regular expression: /);
    await page.evaluate(() => addEvent('an entry that comes meanwhile'));
    await listed(page);
    assert.match(await text(page, '#nothing'), /^Not a regular expression: /, 'the complaint stays');
    assert.ok(await isInvalid(page, '#filter'));
    await fill(page, '#filter', '/message 4(.)$/');
    await listed(page);
    await until(page, 'matches are marked', () => {
      const marks = [...document.querySelectorAll('.sent mark')].map((mark) => mark.textContent);
      return marks.length === 10 && marks.every((mark, index) => mark === `message 4${index}`);
    });
    assert.ok(!await page.evaluate(() => document.querySelector('#nothing').checkVisibility()));
    await fill(page, '#filter', '/(/');
    await page.evaluate(() => { kept.pop(); relist(); });
    await fill(page, '#filter', 'message 7');
    await check(page, '[value=received]');
    assert.equal(await shown(), `11 of ${total}`);
    assert.deepEqual(new Set(await page.evaluate(() => [...document.querySelectorAll('.entry')].map((item) => item.className))), new Set(['entry sent']));
    await choose(page, 'text');
    await page.evaluate(() => sendWord('message 7000'));
    await until(page, 'an entry that comes meanwhile', () => matching === 12);
    await check(page, '[value=received]');
    await fill(page, '#filter', '');
    await check(page, '[value=binary]');
    await check(page, '[value=event]');
    await listed(page);
    assert.equal(await page.evaluate(() => matching), await page.evaluate(() => counts.sent + counts.received - 2));
    await check(page, '[value=binary]');
    await check(page, '[value=event]');
    await listed(page);
    const all = await page.evaluate(() => chunks.flatMap(({ entries }) => entries).every((entry, index) => entry === kept[index]) && matching === kept.length);
    assert.ok(all, 'every entry is there again, in its order');
  });

  testPage('JSON is indented, by its own tokens and as text; raw and hex are a key away', async (page) => {
    const message = `{"big":12345678901234567890,"twice":1,"twice":2,"html":"${HOSTILE}","deep":{"a":{"b":{"c":null}}},"list":[1,2.50]}`;
    await say(page, message);
    const json = await openLast(page, 'received');
    assert.match(json, /You have entered: ?\s+\{\s+"big": 12345678901234567890,\s+"twice": 1,\s+"twice": 2,\s+"html": "<img src=x onerror=alert\(1\)>",/);
    assert.match(json, /"list": \[\s+1,\s+2\.50\s+\]/);
    assert.ok(!json.includes('null'), 'the depth is folded');
    await until(page, 'it is unfolded', () => {
      document.querySelectorAll('.view details').forEach((fold) => { fold.open = true; });
      return document.querySelector('.received .view').innerText.includes('"c": null');
    });
    assert.equal(await page.evaluate(() => document.querySelectorAll('img').length), 0);
    assert.equal(await openLast(page, 'received', 'Text'), `You have entered: ${message}`);
    assert.match(await openLast(page, 'received', 'Hex'), /^000000 {2}59 6f 75 .* You have enter/);
    for (const broken of ['{"a":', '[1,]', '{]', 'null', `${'['.repeat(50_000)}${']'.repeat(50_000)}`]) {
      await say(page, broken);
      assert.equal((await openLast(page, 'sent')).slice(0, 100), broken.slice(0, 100), 'what is not JSON is text');
    }
  });

  testPage('JSON is formatted in the composer by its own tokens, or shown where it breaks', async (page) => {
    const isOffered = () => page.evaluate(() => document.querySelector('#format').checkVisibility());
    await fill(page, '#message', 'no JSON');
    assert.ok(!await isOffered());
    await fill(page, '#message', ' {"big":12345678901234567890,"twice":1,"twice":[], "list":[1.50,{"a":null}]}\n');
    assert.ok(await isOffered());
    await page.click('#format');
    assert.equal(await value(page, '#message'), '{\n  "big": 12345678901234567890,\n  "twice": 1,\n  "twice": [],\n  "list": [\n    1.50,\n    {\n      "a": null\n    }\n  ]\n}');
    assert.equal(await focused(page), 'message');
    for (const [broken, where, mark] of [
      ['{"a": 1,\n "b" 2}', 'JSON breaks at line 2, column 6: a colon expected, found 2', '2'], ['[1, 2', 'line 1, column 6: , or ] expected, found the end', ''],
      ['[1,]', 'column 4: a value expected, found ]', ']'], ['{a: 1}', 'column 2: a name in double quotes expected, found a: 1}', 'a'],
      ['["x]', 'column 2: a value expected, found a string that does not end or has a wrong escape', '"'], ['[1] x', 'column 5: the end expected, found x', 'x'],
      ['[TRUE]', 'a value expected, found TRUE]', 'T'], ['[01]', ', or ] expected, found 1', '1'], ['{"a":1]', ', or } expected, found ]', ']'],
    ]) {
      await fill(page, '#message', broken);
      await eventually(page, '#hint', where);
      await page.click('#format');
      await eventually(page, '#problem', where);
      assert.equal(await value(page, '#message'), broken);
      assert.equal(await page.evaluate(() => getSelection().toString() || document.querySelector('#message').value.slice(document.querySelector('#message').selectionStart, document.querySelector('#message').selectionEnd)), mark, broken);
    }
    await fill(page, '#message', '[]');
    assert.equal(await text(page, '#hints #hint'), '');
    await page.press('Enter');
    await page.evaluate(() => { send({ data: '{"a":' }); send({ data: `[${'1,'.repeat(140000)}1]` }); });
    await replied(page, 3);
    await page.evaluate(() => document.querySelectorAll('.sent .mark').forEach((mark) => mark.click()));
    assert.deepEqual(await texts(page, '.sent .strip .muted'), ['JSON breaks at line 1, column 6: a value expected, found the end', 'JSON above 256.0 KiB is shown as text.']);
  });

  testPage('what JSON.parse accepts is JSON here, and nothing else is', async (page) => {
    const wrong = await page.evaluate(() => {
      const pieces = ['{', '}', '[', ']', ',', ':', '"a"', '"\\u00e9"', '"\\x"', '1', '-0.5e+3', '01', 'true', 'nul', ' ', '\n', '\u00a0', '"', '\t'];
      const random = (bound) => Math.floor(Math.random() * bound);
      const found = [];
      for (let round = 0; round < 100_000; round += 1) {
        // Half of them are JSON with one piece changed.
        const start = '{"a":[1,{"b":null},-2.5e1],"":{}}'.match(/"[^"]*"|[\d.e-]+|null|./g);
        if (round % 2) start.splice(random(start.length), random(2), pieces[random(pieces.length)]);
        const source = round % 2 ? start.join('') : `[${Array.from({ length: random(6) }, () => pieces[random(pieces.length)]).join('')}]`;
        let isValid = true;
        try { JSON.parse(source); } catch { isValid = false; }
        const parsed = looksLikeJson(source) ? parseJson(source) : {};
        if (looksLikeJson(source) && isValid !== ('value' in parsed)) found.push(source);
        if (parsed.value && JSON.stringify(JSON.parse(formatJson(parsed.value))) !== JSON.stringify(JSON.parse(source))) found.push(source);
      }
      return found.slice(0, 5);
    });
    assert.deepEqual(wrong, []);
  });

  testPage('a message of 1 MiB is read to its end, and its size is told as people say it', async (page) => {
    await page.evaluate(() => send({ data: `${'x'.repeat(1048575)}!` }));
    await replied(page, 1);
    assert.equal(await page.evaluate(() => document.querySelector('.sent .size').firstChild.data), '1.0 MiB');
    assert.equal(await page.evaluate(() => document.querySelector('.sent .size').title), '1,048,576 bytes');
    assert.equal(await text(page, '.sent .size .unseen'), ', 1,048,576 bytes');
    assert.equal(await page.evaluate(() => document.querySelector('#counts').title), '1,048,576 bytes sent, 1,048,594 received');
    await openLast(page, 'sent');
    assert.equal(await text(page, '.sent .view button'), 'Show 20,000 more of 1,048,576 characters', 'the button says what it does');
    await page.evaluate(() => {
      const more = document.querySelector('.sent .view button');
      while (!more.hidden) more.click();
    });
    const whole = await page.evaluate(() => { const view = document.querySelector('.sent .view'); view.querySelector('button').remove(); return [view.textContent.length, view.textContent.at(-1)]; });
    assert.deepEqual(whole, [1048576, '!']);
    assert.deepEqual(await page.evaluate(() => [1023, 1024, 1048524, 1048525, 1048576].map(size)), ['1023 B', '1.0 KiB', '1023.9 KiB', '1.0 MiB', '1.0 MiB']);
  });

  testPage('no cut goes through a character, and half a one is logged as it is sent', async (page) => {
    await page.evaluate(() => send({ data: `a${'😀'.repeat(15000)}` }));
    await replied(page, 1);
    await openLast(page, 'sent');
    const pieces = await page.evaluate(() => {
      document.querySelector('.sent .view button').click();
      return ['.sent .body', '.sent .view > div:nth-child(1)', '.sent .view > div:nth-child(2)'].map((part) => document.querySelector(part).textContent);
    });
    for (const piece of pieces) assert.ok(piece.isWellFormed());
    assert.equal(pieces[1] + pieces[2], `a${'😀'.repeat(15000)}`);
    await say(page, 'half \ud83d');
    assert.deepEqual(await page.evaluate(() => [kept.at(-2).data, kept.at(-1).prefix]), ['half \ufffd', 18]);
  });

  testPage('an entry opens by its mark whatever text is selected', async (page) => {
    await say(page, 'select me');
    await page.evaluate(() => { getSelection().selectAllChildren(document.querySelector('.sent .body')); document.querySelector('.received .mark').focus(); });
    await page.press('Enter');
    assert.equal(await page.evaluate(() => document.querySelectorAll('.received .detail').length), 1);
    await page.evaluate(() => { getSelection().selectAllChildren(document.querySelector('.sent .body')); document.querySelector('.sent .row').click(); });
    assert.equal(await page.evaluate(() => document.querySelectorAll('.sent .detail').length), 0, 'a click that ends a selection opens nothing');
  });

  testPage('the log shows direction, time, size and round trip, as clock or as distance', async (page) => {
    for (const message of ['a', 'é', 'c\nd']) await say(page, message);
    const row = async (direction) => (await texts(page, `.${direction} .row`))[1];
    assert.match(await row('sent'), /↑ sent\d\d:\d\d:\d\d\.\d{3}é2 B/);
    assert.match(await row('received'), /↓ received.*You have entered: é20 B\d+\.\d ms/);
    assert.equal((await bodies(page, 'sent')).at(-1), 'c↵d', 'an entry is one line');
    await page.click('#delta');
    assert.match(await row('received'), /↓ received\+\d+\.\d{3} s/);
  });

  testPage('the round trips are drawn, with their percentiles', async (page) => {
    await sendWords(page, 205, 'hi');
    const times = await page.evaluate(() => roundTrips);
    const sorted = times.toSorted((a, b) => a - b);
    const [latest, median, p95, p99] = [times.at(-1), sorted[102], sorted[194], sorted[202]].map((time) => time.toFixed(1));
    assert.equal(await text(page, '#times'), `Round trip ${latest} ms, median ${median}, p95 ${p95}, p99 ${p99}`);
    assert.match(await page.evaluate(() => document.querySelector('#drawing').getAttribute('aria-label')), /^The last 200 round trips, the longest [\d.]+ ms; the latest of 205 [\d.]+ ms, median/);
    assert.equal(await page.evaluate(() => document.querySelector('#drawing path').getAttribute('d').match(/M/g).length), 200);
  });

  testPage('an entry is copied, sent again, and edited, by the keyboard alone', async (page) => {
    for (const message of ['first', 'second', 'third']) await say(page, message);
    await page.evaluate(() => document.querySelector('#log').focus());
    await page.press('ArrowUp');
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), '↓ received You have entered: third');
    for (const key of ['ArrowUp', 'ArrowUp', 'ArrowUp']) await page.press(key);
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), '↑ sent second');
    await page.press('s');
    await until(page, 'it is sent again', () => counts.received === 4);
    await listed(page);
    assert.equal((await bodies(page, 'sent')).at(-1), 'second');
    await page.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-expanded')), 'true');
    await page.press('Tab');
    assert.equal(await focused(page), 'Text');
    for (let tabs = 0; tabs < 4; tabs += 1) await page.press('Tab');
    assert.equal(await focused(page), 'Send again');
    await page.press('Enter');
    await until(page, 'it is sent a third time', () => counts.received === 5);
    await page.press('Tab');
    await page.press('Enter');
    assert.equal(await focused(page), 'message');
    assert.equal(await value(page, '#message'), 'second');
    await choose(page, 'hex');
    await say(page, 'c0 de');
    await page.evaluate(() => [...document.querySelectorAll('.sent .mark')].at(-1).focus());
    await page.press('e');
    assert.equal(await value(page, '#message'), 'c0 de');
    assert.equal(await page.evaluate(() => document.querySelector('[name=kind]:checked').value), 'hex');
    await page.evaluate(() => document.querySelector('.received .mark').focus());
    await page.press('c');
    await eventually(page, '#announcer', 'Copied the message');
  });

  testPage('a timer sends as often as asked, shows its rate, and stops', async (page) => {
    await page.click('#repeating');
    await fill(page, '#every', '20');
    await fill(page, '#times-to-send', '10');
    await fill(page, '#message', 'tick');
    await page.click('#start');
    await until(page, 'ten replies', () => counts.received === 10);
    await eventually(page, '#rate', /^10 sent, [\d.]+ a second$/);
    assert.ok(parseFloat((await text(page, '#rate')).split(', ')[1]) <= 51, `not faster than asked: ${await text(page, '#rate')}`);
    await until(page, 'the end', () => document.querySelector('#start').textContent === 'Start');
    await fill(page, '#times-to-send', '');
    await page.click('#start');
    await until(page, 'it goes on', () => counts.received > 15);
    await page.click('#start');
    const sent = await page.evaluate(() => counts.sent);
    await page.evaluate(() => new Promise((resolve) => { setTimeout(resolve, 200); }));
    assert.equal(await page.evaluate(() => counts.sent), sent, 'stopped');
    const path = join(folder, 'ticks.bin');
    await writeFile(path, 'tick');
    await choose(page, 'file');
    await page.chooseFile('#file', path);
    await page.evaluate(() => { for (let presses = 0; presses < 2; presses += 1) document.querySelector('#start').click(); });
    await until(page, 'the file is sent', (before) => counts.sent > before + 2, sent);
    await page.click('#start');
    await page.evaluate(() => new Promise((resolve) => { setTimeout(resolve, 200); })); // a second timer would complain in the console
    assert.equal(await text(page, '#start'), 'Start');
    await choose(page, 'text');
    await fill(page, '#times-to-send', '3');
    await fill(page, '#message', '{{n}} at {{now}}, {{n}}');
    await page.click('#start');
    await until(page, 'the end', () => document.querySelector('#start').textContent === 'Start');
    await listed(page);
    (await page.evaluate(() => kept.filter(({ kind: entryKind }) => entryKind === 'sent').slice(-3).map(({ data }) => data))).forEach((data, index) => {
      assert.match(data, new RegExp(`^${index + 1} at \\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z, ${index + 1}$`));
    });
    await fill(page, '#times-to-send', '');
    await page.click('#start');
    await page.click('#toggle');
    await state(page, 'closed');
    assert.equal(await text(page, '#start'), 'Start', 'the end of the connection stops it');
    assert.equal(await text(page, '#problem'), '');
    for (const wrong of ['0', '1.5', 'x']) {
      await fill(page, '#every', wrong);
      await page.click('#start');
      await eventually(page, '#problem', 'Every needs a whole number from 1 to 3,600,000.');
      assert.ok(await isInvalid(page, '#every'));
    }
    await page.click('#repeating');
    assert.equal(await text(page, '#problem'), '', 'the complaint goes with its field');
    assert.ok(!await isInvalid(page, '#every'));
  });

  testPage('the log is copied as JSON Lines, which no message can forge, and saved as such', async (page) => {
    const forged = 'x\n2026-01-01T00:00:00.000Z\treceived\t5 B\t\tforged\n{"kind":"received","data":"forged"}';
    await say(page, forged);
    await choose(page, 'hex');
    await say(page, 'c0 de');
    await keepSaved(page);
    await page.click('#save');
    await until(page, 'it is saved', () => 'saved' in window);
    const { name: savedAs, text: saved } = await page.evaluate(() => window.saved);
    assert.match(savedAs, /^wsecho-\d{4}-\d\d-\d\dT[\d-]+\.jsonl$/);
    const lines = saved.trimEnd().split('\n').map((line) => JSON.parse(line));
    assert.equal(lines.length, await page.evaluate(() => kept.length), 'a line for each entry, and none more');
    assert.deepEqual(lines.map(({ kind }) => kind), ['event', 'event', 'sent', 'received', 'sent', 'received']);
    assert.equal(lines[2].data, forged);
    assert.deepEqual([lines[3].data, lines[3].type, typeof lines[3].roundTripMs], [`You have entered: ${forged}`, 'text', 'number']);
    assert.deepEqual([lines[5].hex, lines[5].type, lines[5].bytes], ['c0 de', 'binary', 2]);
    await page.click('#copy');
    await eventually(page, '#copy', 'Copied');
    await choose(page, 'text');
    await page.evaluate(() => document.querySelector('#message').focus());
    await page.press('Control+v');
    assert.equal(await value(page, '#message'), saved);
    await fill(page, '#filter', 'c0 de');
    await listed(page);
    await page.click('#save');
    await until(page, 'what the filter shows is saved', () => window.saved.text.split('\n').length === 3);
    await page.click('#clear');
    await fill(page, '#filter', '');
    await listed(page);
    assert.equal(await text(page, '#counts'), '0 sent, 0 B; 0 received, 0 B');
    assert.equal(await page.evaluate(() => document.querySelectorAll('.entry').length), 0);
    assert.equal(await text(page, '#times'), '');
  });

  testPage('the tutorial\'s words are one click each, and gone where they make no sense', async (page) => {
    for (const word of WORDS) await page.evaluate((wanted) => [...document.querySelectorAll('#words button')].find((button) => button.textContent === wanted).click(), word);
    await replied(page, WORDS.length);
    assert.deepEqual(await bodies(page, 'received'), WORDS.map((word) => `You have entered: ${word}`));
    assert.equal(await focused(page), 'message', 'the next one can be typed');
    assert.equal(await page.evaluate(() => document.querySelectorAll('#words button')[5].title), 'Sends the text "time", which is echoed like any other');
    const offered = () => page.evaluate(() => document.querySelector('#words').checkVisibility());
    assert.ok(await offered());
    for (const kind of ['hex', 'file']) {
      await choose(page, kind);
      assert.ok(!await offered(), kind);
    }
  });

  testPage('an empty message is sent, since the protocol has them', async (page) => {
    await page.click('#composer .primary');
    await replied(page, 1);
    assert.deepEqual([await bodies(page, 'sent'), await bodies(page, 'received')], [['(empty)'], ['You have entered:']]);
    await choose(page, 'hex');
    await say(page, '');
    assert.equal((await bodies(page, 'received')).at(-1), '(empty binary message)');
    assert.equal(await page.evaluate(() => kept.at(-1).data.length), 0);
    assert.equal(await page.evaluate(() => roundTrips.length), 2);
  });

  testPage('a file goes out as one binary message, under its name', async (page) => {
    await choose(page, 'file');
    await page.click('#composer .primary');
    await eventually(page, '#problem', 'Choose a file first.');
    const path = join(folder, 'four-bytes.png');
    await writeFile(path, Buffer.from('0001fe7a', 'hex'));
    await page.chooseFile('#file', path);
    await page.click('#composer .primary');
    await replied(page, 1);
    assert.equal((await bodies(page, 'sent'))[0], 'four-bytes.png: 00 01 fe 7a  ...z');
    assert.equal((await bodies(page, 'received'))[0], '00 01 fe 7a  ...z');
  });

  testPage('bytes go out as hex, come back unchanged; what is not hex is kept to be mended', async (page) => {
    await choose(page, 'hex');
    await say(page, '0x48,0x69 00:ff 21');
    assert.match(await openLast(page, 'received'), /^000000 {2}48 69 00 ff 21 +Hi\.\.!$/);
    assert.equal(await openLast(page, 'received', 'Base64'), 'SGkA/yE=');
    assert.equal(await openLast(page, 'received', 'UTF-8'), 'Hi\0\ufffd!');
    await keepSaved(page);
    await page.evaluate(() => [...document.querySelectorAll('.received .strip button')].find(({ textContent }) => textContent === 'Save').click());
    await until(page, 'it is saved', () => window.saved?.name === 'message.bin' && hex(window.saved.bytes) === '48 69 00 ff 21');
    for (const [typed, reason] of [['48 6g', 'Not hexadecimal: 6g'], ['48 dea', '"dea" has an odd number of digits; a byte needs two.']]) {
      await enter(page, '#message', typed);
      await eventually(page, '#problem', reason);
      assert.equal(await value(page, '#message'), typed);
    }
    assert.equal(await page.evaluate(() => counts.sent), 1);
  });

  testPage('up and down walk the history and come back to the draft; Shift+Enter starts a line', async (page) => {
    for (const message of ['first', 'second']) await say(page, message);
    await page.type('two');
    await page.press('Shift+Enter');
    await page.type('lines');
    await page.press('Enter');
    await until(page, 'the reply', () => counts.received === 3);
    await fill(page, '#message', 'draft');
    const walk = async (...keys) => {
      for (const key of keys) await page.press(key);
      return value(page, '#message');
    };
    assert.equal(await walk('ArrowUp'), 'two\nlines');
    assert.equal(await walk('ArrowUp', 'ArrowUp'), 'second', 'inside a text, the arrows first move between its lines');
    assert.equal(await walk('ArrowUp', 'ArrowUp', 'ArrowUp'), 'first');
    assert.equal(await walk('ArrowDown'), 'second');
    assert.equal(await walk('ArrowDown', 'ArrowDown', 'ArrowDown'), 'draft');
    assert.equal(await walk('Shift+ArrowUp'), 'draft', 'with Shift they select');
  });

  testPage('a message that answers nothing gets no false round trip', (page) => withStandIn((socket) => {
    socket.send('welcome');
    socket.on('message', (data) => {
      if (String(data) === 'silence') return;
      socket.send('by the way');
      socket.send(`> ${data}`);
    });
  }, async (own) => {
    await call(page, own.socket);
    await enter(page, '#message', 'silence');
    await enter(page, '#message', 'talk');
    await eventually(page, '.received', '> talk');
    const timed = await page.evaluate(() => kept.filter(({ roundTrip }) => roundTrip !== undefined).map(({ data }) => data));
    assert.deepEqual(timed, ['> talk']);
  }));

  testPage('the log follows its end unless the reader scrolled up, and covers nothing', async (page) => {
    const isAtItsEnd = () => until(page, 'the end of the log', () => { const log = document.querySelector('#log'); return log.scrollHeight - log.clientHeight - log.scrollTop < 2; });
    await sendWords(page, 40, 'hello');
    await isAtItsEnd();
    await scrollUp(page, 10);
    await page.evaluate(() => addEvent('later'));
    await listed(page);
    assert.equal(await page.evaluate(() => document.querySelector('#log').scrollTop), 10);
    assert.equal(await text(page, '#newest'), '1 new ↓');
    const covered = await page.evaluate(() => {
      const button = document.querySelector('#newest').getBoundingClientRect();
      return ['#log', '#times', '#counts', '#drawing'].filter((selector) => {
        const other = document.querySelector(selector).getBoundingClientRect();
        return other.left < button.right && other.right > button.left && other.top < button.bottom && other.bottom > button.top;
      });
    });
    assert.deepEqual(covered, []);
    await page.click('#newest');
    await isAtItsEnd();
    await say(page, 'at the end again');
    await isAtItsEnd();
    await scrollUp(page, 10);
    await say(page, 'in sight');
    await isAtItsEnd();
  });

  testPage('the keyboard alone reaches everything, in the order in which it is seen', async (page) => {
    await page.type('by keys');
    await page.press('Enter');
    await eventually(page, '.received', 'by keys');
    const backwards = [];
    while (backwards.length < 40 && backwards.at(-1) !== 'toggle') {
      await page.press('Shift+Tab');
      backwards.push(await focused(page));
    }
    // Firefox also stops at what scrolls sideways.
    const stops = backwards.map((stop) => (stop === '' ? 'radio or box' : stop)).filter((stop, index, all) => stop !== all[index - 1]);
    for (const stop of ['bye', 'hello', 'log', 'clear', 'save', 'copy', 'delta', 'filter', 'reconnect', 'subprotocols', 'address', 'fold', 'toggle']) assert.ok(stops.includes(stop), `${stop} is among ${stops}`);
    await page.press('Enter');
    await state(page, 'closed');
    assert.equal(await focused(page), 'toggle', 'the focus stays where it was');
    await page.press('Enter');
    await state(page, 'open');
    await page.press('Escape');
    assert.equal(await focused(page), 'message', 'Escape leads back to the message');
  });

  testPage('a screen reader hears what happens, but is not flooded', async (page) => {
    await until(page, 'silence', () => !speaking);
    await page.evaluate(() => {
      window.heard = [];
      new MutationObserver(() => window.heard.push(document.querySelector('#announcer').textContent)).observe(document.querySelector('#announcer'), { childList: true });
      for (let index = 0; index < 200; index += 1) sendWord(`message ${index}`);
    });
    await until(page, 'the last is announced', () => window.heard.at(-1)?.includes('message 199'));
    const heard = await page.evaluate(() => window.heard);
    assert.ok(heard.length <= 4, `200 replies, ${heard.length} announcements`);
    assert.match(heard.at(-1), /events, the last: Received You have entered: message 199/);
    await fill(page, '#filter', 'message 19');
    await until(page, 'what the filter found is announced', () => window.heard.at(-1).endsWith('22 of 402'));
    assert.equal(await page.evaluate(() => document.querySelector('#matches').closest('[role], [aria-live]')), null, 'a count that changes with each message is no live region');
  });

  testPage('it prints every entry, and nothing to press', async (page) => {
    await sendWords(page, 300, 'message #');
    await page.evaluate(() => window.dispatchEvent(new Event('beforeprint')));
    assert.equal(await page.evaluate(() => document.querySelectorAll('.entry').length), await page.evaluate(() => kept.length));
    const rules = await page.evaluate(() => [...document.styleSheets[0].cssRules].filter((rule) => rule.media?.mediaText === 'print').flatMap(({ cssRules }) => [...cssRules].map(({ selectorText }) => selectorText)));
    assert.ok(rules.some((selectors) => selectors.includes('#composer')), 'there is a style for paper');
  });
}

// ── Frames ──────────────────────────────────────────────────────────────────────────────────────

// Of a message in two frames, compressed, with a ping before its reply; then the server closes.
const trace = (message) => ({
  wsecho: 'trace',
  frames: [
    { from: 'client', at: 0.0031, fin: false, rsv: 4, opcode: 1, name: 'text', mask: '37fa213d', length: 3, header: '418337fa213d', inflated: message.length, bytes: '4a4c4a' },
    { from: 'client', at: 0.0032, fin: true, rsv: 0, opcode: 0, name: 'continuation', mask: '01020304', length: 300, header: '80fe012c01020304', bytes: '00'.repeat(32) },
    { from: 'server', at: 0.0034, fin: true, rsv: 4, opcode: 1, name: 'text', mask: null, length: 70000, header: 'c17f0000000000011170', bytes: '00'.repeat(32) },
    { from: 'server', at: 0.0033, fin: true, rsv: 0, opcode: 9, name: 'ping', mask: null, length: 2, header: '8902', bytes: '6869' },
    { from: 'server', at: 0.0035, fin: true, rsv: 0, opcode: 8, name: 'close', mask: null, length: 5, header: '8805', bytes: '0fa0627965' },
  ],
});

/** Answers like /do?trace, with one trace for each message. */
const withTraces = (body) => withStandIn((socket, request) => {
  const isTraced = request.url === '/do?trace';
  socket.on('message', (data) => {
    socket.send(String(data) === 'forged' ? JSON.stringify(trace('forged')) : String(data));
    if (isTraced) socket.send(JSON.stringify(trace(String(data))));
  });
}, body, { answer: (request, response) => {
  response.writeHead(request.url === '/do?trace' ? 200 : 404, { 'Content-Type': 'text/plain; charset=utf-8', 'Access-Control-Allow-Origin': '*' });
  response.end('Each message is followed by a trace of its frames.\n');
} });

function frames(testPage, name) {
  testPage('a switch connects through /do?trace, and each entry has its frames', (page) => withTraces(async (own) => {
    await call(page, own.socket);
    await page.click('#frames');
    await eventually(page, '#detail', `${own.socket}do?trace, `);
    assert.equal(await value(page, '#address'), own.socket, 'the address stays what it was');
    assert.match(await page.evaluate(() => location.hash), /frames=on/);
    await enter(page, '#message', 'hello');
    await eventually(page, '.received .frames', 'text');
    assert.deepEqual(await texts(page, '.sent .frames summary'), ['2 frames: text 3 B, continuation 300 B; deflated 5 → 303 B; masked 37fa213d, 01020304']);
    assert.deepEqual(await texts(page, '.received .frames summary'), ['1 frame: text 68.4 KiB; deflated 5 → 68.4 KiB']);
    assert.deepEqual(await bodies(page, 'received'), ['hello'], 'a trace is no entry');
    assert.deepEqual((await events(page)).slice(-2), ['↓ The server sent a ping frame of 2 B', '↓ The server sent a close frame: 4000 private use, reason: bye']);
    assert.equal(await text(page, '#counts'), '1 sent, 5 B; 1 received, 5 B');

    await page.evaluate(() => document.querySelector('.sent .frames summary').click());
    const cells = (row) => page.evaluate((selector) => [...document.querySelectorAll(selector)].map((cell) => `${cell.colSpan} ${cell.innerText.trim().replace(/\s+/g, ' ')}`), row);
    await until(page, 'the frames are drawn', () => document.querySelectorAll('.sent .frames table').length === 2);
    assert.deepEqual(await cells('.sent figure:nth-of-type(1) td'), [
      '1 FIN 0', '1 RSV1 1', '1 RSV2 0', '1 RSV3 0', '4 opcode: text 0001', '1 MASK 1', '7 payload length: 3 0000011', '16 masking key 37fa', '16 masking key, continued 213d', '16 payload: 3 B',
    ]);
    assert.deepEqual(await cells('.sent figure:nth-of-type(2) td'), [
      '1 FIN 1', '1 RSV1 0', '1 RSV2 0', '1 RSV3 0', '4 opcode: continuation 0000', '1 MASK 1', '7 payload length: 126 1111110', '16 extended payload length: 300 012c', '32 masking key 01020304', '32 payload: 300 B',
    ]);
    assert.equal(await text(page, '.sent figure:nth-of-type(1) .bytes'), 'header    41 83 37 fa 21 3d\nmasked    7d b6 6b\nunmasked  4a 4c 4a  JLJ');
    await page.evaluate(() => document.querySelector('.received .frames summary').click());
    await until(page, 'the frame is drawn', () => document.querySelectorAll('.received .frames table').length === 1);
    assert.deepEqual((await cells('.received figure td')).slice(5), [
      '1 MASK 0', '7 payload length: 127 1111111', '16 extended payload length: 70,000 0000', '32 extended payload length: 70,000, continued 00000001', '16 extended payload length: 70,000, continued 1170', '16 payload: 70,000 B',
    ]);
    await say(page, 'again');
    assert.ok(await page.evaluate(() => document.querySelector('.sent .frames').open), 'what is open stays open');
    if (name !== 'WebKit') await assertAccessible(page, 'with frames that are drawn');
    const lines = await page.evaluate(() => toJsonLine(kept.find(({ kind: entryKind }) => entryKind === 'sent')));
    assert.equal(JSON.parse(lines).frames.length, 2, 'a copy has them too');

    await page.click('#frames');
    await eventually(page, '#detail', `${own.socket}, `);
    await say(page, 'untraced');
    assert.ok(await page.evaluate(() => !kept.slice(-2).some(({ frames }) => frames)));
  }));

  testPage('the real server tells the frames of every message, of pings and of its close', async (page) => {
    await page.click('#frames');
    await eventually(page, '#detail', `${server.socket}do?trace, `);
    const messages = ['', 'hello', 'é'.repeat(300), '{"a":1}', 'x'.repeat(70_000), 'hello'];
    for (const message of messages) await say(page, message);
    await page.evaluate(() => send({ data: new Uint8Array(200) }));
    await until(page, 'all have frames', (sent) => kept.filter(({ frames }) => frames).length === 2 * sent, messages.length + 1);
    const told = await page.evaluate(() => kept.filter(({ kind: entryKind }) => entryKind !== 'event').map(({ kind: entryKind, frames, bytes }) => [
      entryKind, frames[0].from, frames[0].rsv === 4 || frames.reduce((sum, { length }) => sum + length, 0) === bytes, frames.at(-1).fin, Boolean(frames[0].mask),
    ].join(' ')));
    assert.deepEqual(told, messages.concat('').flatMap(() => ['sent client true true true', 'received server true true false']));
    await until(page, 'they are shown', (sent) => document.querySelectorAll('.frames').length === 2 * sent, messages.length + 1);

    await enter(page, '#address', `${server.socket}do?fragment=3&ping=300ms&close=4001&reason=bye&after=2`);
    await eventually(page, '#detail', 'after=2&trace');
    await eventually(page, '.event', '↑ The browser sent a pong frame');
    const [ping, pong] = (await events(page)).slice(-2);
    assert.deepEqual([ping, pong], ['↓ The server sent a ping frame', '↑ The browser sent a pong frame']);
    await say(page, 'one');
    await eventually(page, '.received .frames', /^\d+ frames: text 3 B, continuation 3 B, /);
    await enter(page, '#message', 'two');
    await eventually(page, '.event', '↓ The server sent a close frame: 4001 private use, reason: bye');
    await state(page, 'closed');
  });

  testPage('a message that looks like a trace is a message', (page) => withTraces(async (own) => {
    await call(page, own.socket);
    await say(page, 'forged');
    assert.equal((await texts(page, '.received')).length, 1, 'without the switch');
    await page.click('#frames');
    await eventually(page, '#detail', 'do?trace, ');
    await say(page, JSON.stringify(trace('forged')));
    assert.equal((await texts(page, '.received')).length, 2, 'as the echo of what was sent');
  }));

  testPage('while the server is asked for frames, Quit ends the attempt, and Reconnect does not replace it', async (page) => {
    await page.evaluate(() => { window.fetch = () => new Promise((resolve) => { window.answer = () => resolve(new Response('frames', { headers: { 'Content-Type': 'text/plain' } })); }); });
    await page.click('#frames');
    await page.click('#toggle');
    await state(page, 'closed');
    await page.evaluate(async () => {
      answer();
      const later = ask(''); // answered after the first
      answer();
      await later;
      await new Promise((resolve) => { setTimeout(resolve); });
    });
    assert.equal(await text(page, '#state'), 'closed');

    await page.evaluate(() => { document.querySelector('#frames').checked = false; });
    await check(page, '#reconnect');
    await call(page, `${server.socket}do?close=1011&after=1`);
    await page.click('#frames');
    await page.evaluate(async () => {
      sendWord('hi');
      while (document.querySelector('#state').className !== 'waiting') await new Promise((resolve) => { setTimeout(resolve); });
      answer();
    });
    await state(page, 'open');
    assert.ok(await page.evaluate(() => retry === null), 'no attempt waits');
  });

  testPage('an address that is refused gets its own explanation, and the switch stays on', async (page) => {
    await page.click('#frames');
    await eventually(page, '#detail', `${server.socket}do?trace, `);
    await enter(page, '#address', server.socket.replace('ws:', 'wss:'));
    await eventually(page, '.event', `Refused: 127.0.0.1:${server.port} expects no TLS: try ws:// instead of wss://.`);
    if (hasTls) {
      await withServer(tls, async (own) => {
        await enter(page, '#address', own.socket.replace('wss:', 'ws:'));
        await eventually(page, '.event', `Refused: 127.0.0.1:${own.port} expects TLS: try wss:// instead of ws://.`);
      });
    }
    await enter(page, '#address', `ws://127.0.0.1:${await closedPort()}/`);
    await eventually(page, '.event', 'Refused: nothing listens');
    await enter(page, '#address', server.socket);
    await eventually(page, '#detail', `${server.socket}do?trace, `);
    assert.deepEqual((await events(page)).filter((line) => line.startsWith('No frames')), []);
  }, { expected: FAILED });

  testPage('where the server has no traces, the switch says why, and all else works', async (page) => {
    await withServer(['--behaviors', 'off'], async (own) => {
      await call(page, own.socket);
      await page.click('#frames');
      await eventually(page, '#settings-problem', `No frames: 127.0.0.1:${own.port} has no /do?trace. It is another server, or runs with --behaviors off.`);
      assert.ok(!await page.evaluate(() => document.querySelector('#frames').checked));
      await state(page, 'open');
      await say(page, 'all the same');
    });
    await withStandIn((socket) => socket.on('message', (data) => socket.send(String(data))), async (own) => {
      await call(page, own.socket);
      await page.click('#frames');
      await eventually(page, '#settings-problem', 'It is another server, or runs with --behaviors off.');
      await state(page, 'open');
      await say(page, 'a foreign echo');
    });
  }, { expected: FAILED });
}

// ── Older browsers ──────────────────────────────────────────────────────────────────────────────

/** Runs before the page: removes APIs newer than Safari 15.4, Firefox 102 or Chrome 100. */
function age() {
  const newer = [
    [URL, 'parse', 'canParse'], [URLSearchParams.prototype, 'size'], [String.prototype, 'isWellFormed', 'toWellFormed'],
    [Array.prototype, 'findLast', 'findLastIndex', 'toReversed', 'toSorted', 'toSpliced', 'with'], [Object.getPrototypeOf(Uint8Array).prototype, 'findLast', 'findLastIndex', 'toReversed', 'toSorted', 'with'],
    [Uint8Array, 'fromBase64', 'fromHex'], [Uint8Array.prototype, 'toBase64', 'toHex'], [Array, 'fromAsync'], [Object, 'groupBy'], [Map, 'groupBy'], [RegExp, 'escape'],
    [Promise, 'withResolvers', 'try'], [Set.prototype, 'union', 'intersection', 'difference', 'isSubsetOf', 'isSupersetOf', 'isDisjointFrom', 'symmetricDifference'],
    [AbortSignal, 'timeout', 'any'], [Response, 'json'], [Response.prototype, 'bytes'], [Blob.prototype, 'bytes'],
    [Element.prototype, 'checkVisibility', 'setHTML', 'setHTMLUnsafe', 'moveBefore'], [HTMLElement.prototype, 'showPopover', 'hidePopover', 'togglePopover'], [Document.prototype, 'startViewTransition', 'caretPositionFromPoint'],
    [window, 'Highlight', 'Iterator', 'navigation', 'scheduler', 'CloseWatcher', 'EditContext', 'cookieStore', 'structuredClone', 'requestIdleCallback'],
  ];
  for (const [object, ...names] of newer) for (const name of names) delete object[name];
  window.aged = newer.flatMap(([object, ...names]) => names.filter((name) => object[name] !== undefined));
}

function older(getBrowser) {
  test('it needs nothing newer than Safari 15.4, Firefox 102 and Chrome 100', () => withPage(getBrowser(), {}, async (page) => {
    await page.before(age);
    await page.goto(server.page);
    await state(page, 'open');
    assert.deepEqual(await page.evaluate(() => window.aged), [], 'the newer functions are gone');
    assert.equal(await page.evaluate(() => document.querySelector('#unsupported')), null);
    await say(page, 'half \ud83d');
    assert.equal(await page.evaluate(() => kept.at(-2).data), 'half \ufffd');
    await say(page, '{"a":[1,2]}');
    await page.evaluate(() => [...document.querySelectorAll('.mark')].forEach((mark) => mark.click()));
    await page.evaluate(() => document.querySelector('#log').focus());
    await page.press('ArrowUp');
    await page.press('c');
    await eventually(page, '#announcer', 'Copied');
    await fill(page, '#filter', '/a|b/');
    await listed(page);
    await page.click('#copy');
    await page.click('#delta');
    await page.evaluate(() => { document.querySelector('#behavior').open = true; });
    await fill(page, '#behavior-close', '4000');
    await page.click('#change');
    await state(page, 'closed');
    await enter(page, '#address', `ws://127.0.0.1:${await closedPort()}/`);
    await eventually(page, '.event', 'Refused: nothing listens');
    assert.deepEqual(page.said.filter((line) => !FAILED.test(line)), []);
  }));

  test('in a browser that is too old one sentence says what it needs', () => withPage(getBrowser(), {}, async (page) => {
    await page.before(() => { delete Array.prototype.at; });
    await page.goto(server.page);
    assert.equal(await text(page, '#unsupported'), 'This page needs JavaScript and Safari 15.4, Firefox 102, Chrome 100 or later.');
    assert.ok(await page.evaluate(() => document.querySelector('#unsupported').checkVisibility()));
  }));
}

// ── Under load ──────────────────────────────────────────────────────────────────────────────────

function load(testPage, name) {
  testPage('50,000 messages and 1,000 a second: no task over 50 ms, and the filter loses none', async (page) => {
    await page.evaluate(async () => {
      while (counts.sent < 24000) {
        for (let index = 0; index < 200; index += 1) sendWord(`message ${counts.sent}`);
        await new Promise((resolve) => { requestAnimationFrame(resolve); });
      }
    });
    await replied(page, 24000);

    const work = () => page.evaluate(async () => {
      const pause = (time) => new Promise((resolve) => { setTimeout(resolve, time); });
      const search = (words) => { const field = document.querySelector('#filter'); field.value = words; field.dispatchEvent(new Event('input')); };
      document.querySelector('#every').value = 1;
      document.querySelector('#message').value = 'a thousand a second';
      document.querySelector('#start').click();
      await pause(1000);
      search('message 1234');
      await pause(700);
      search('');
      await pause(700);
      for (let step = 0; step < 20; step += 1) {
        document.querySelector('#log').scrollTop = document.querySelector('#log').scrollHeight * (step / 20);
        await pause(30);
      }
      document.querySelector('#newest').click();
      await pause(500);
      document.querySelector('#start').click();
    });
    if (name === 'Chromium') {
      await page.assertSmooth(work, { tasks: 100, limit: 50, rounds: 3 });
    } else {
      await work();
    }
    await until(page, 'all replies', () => counts.received === counts.sent);
    await until(page, '50,000 messages', () => counts.sent + counts.received > 50000);
    assert.ok(parseFloat((await text(page, '#rate')).split(', ')[1]) > 500, `the rate: ${await text(page, '#rate')}`);
    await listed(page);
    assert.ok(await page.evaluate(() => document.querySelectorAll('.entry').length) < 1000, 'the document stays small');
    await fill(page, '#filter', '/message \\d+$/');
    await listed(page);
    assert.equal(await page.evaluate(() => matching), 48000);
    await fill(page, '#filter', '');
    await listed(page);
    assert.ok(await page.evaluate(() => matching === kept.length && chunks.reduce((sum, { entries }) => sum + entries.length, 0) === kept.length), 'all are there again');
    await say(page, 'still quick');
  }, { size: { width: 1280, height: 800 } });
}

// ── Looks ───────────────────────────────────────────────────────────────────────────────────────

async function conversation(page) {
  await say(page, HOSTILE);
  await say(page, `{"unbroken":"${'unbroken'.repeat(100)}","list":[1,{"deep":true}]}`);
  for (let times = 0; times < 3; times += 1) await say(page, '1\n2\n3\n4\n5');
  await choose(page, 'hex');
  await say(page, '00'.repeat(1000));
  await page.evaluate(() => [...document.querySelectorAll('.received .mark')].forEach((mark, index) => { if (index === 1 || index === 5) mark.click(); }));
}

const unfold = (page, open) => page.evaluate((wanted) => {
  for (const details of document.querySelectorAll('#closing, #behavior, #rest')) details.open = wanted;
  if (document.querySelector('#repeat').hidden === wanted) document.querySelector('#repeating').click();
  if (wanted) fold(page.fold, false);
}, open);

/** The selectors of elements that are partly outside the window, or covered. */
const outOfSight = (page, ...selectors) => page.evaluate((wanted) => wanted.filter((selector) => [...document.querySelectorAll(selector)].some((element) => {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  const hit = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  return left < 0 || top < 0 || right > innerWidth + 0.5 || bottom > innerHeight + 0.5 || !(element.contains(hit) || hit?.contains(element));
})), selectors);

function looks(name, scheme) {
  let browser;
  before(async () => { browser = await launch(name, { scheme }); });
  after(() => browser?.close());

  for (const width of [320, 1280, 2560]) {
    test(`${width} px wide: it fits, nothing moves, axe-core finds nothing`, () => withPage(browser, { width, height: width === 320 ? 640 : 800 }, async (page) => {
      await page.goto(server.page);
      await state(page, 'open');
      await page.evaluate(() => document.fonts.ready);
      if (scheme === 'dark') assert.ok(await page.evaluate(() => matchMedia('(prefers-color-scheme: dark)').matches));
      const places = () => page.evaluate(() => ['#state', '#toggle', '#log', '#copy', '#message', '#words', '#composer'].map((selector) => {
        const { x, y, width: wide, height } = document.querySelector(selector).getBoundingClientRect();
        return [selector, ...[x, y + window.scrollY, wide, height].map(Math.round)].join(' ');
      }));
      const atFirst = await places();
      await say(page, 'hello');
      assert.deepEqual(await places(), atFirst, 'after a message');
      await page.click('#toggle');
      await state(page, 'closed');
      assert.deepEqual(await places(), atFirst, 'when closed');
      await enter(page, '#message', 'x');
      await eventually(page, '#problem', 'Not connected');
      assert.deepEqual(await places(), atFirst, 'with a problem');
      await page.click('#toggle');
      await state(page, 'open');
      await conversation(page);
      const fits = async (when) => assert.deepEqual(await page.evaluate(() => ['html', '#settings', '#log'].filter((selector) => {
        const element = document.querySelector(selector);
        return element.scrollWidth > element.clientWidth;
      })), [], `nothing scrolls sideways ${when}`);
      await fits('with a conversation');
      await assertAccessible(page, 'with entries, two of them open');
      if (process.env.PICTURES) await page.screenshot(join(process.env.PICTURES, `${name}-${scheme}-${width}-conversation.png`));
      await unfold(page, true);
      await enter(page, '#subprotocols', 'a b a');
      await eventually(page, '#settings-problem', 'twice');
      await fits('with everything unfolded');
      const [complaint, usual] = await page.evaluate(() => ['#settings-problem', '#detail'].map((selector) => getComputedStyle(document.querySelector(selector)).color));
      assert.notEqual(complaint, usual, 'a complaint is red');
      await scrollUp(page, 0);
      await assertAccessible(page, 'with everything unfolded and a wrong subprotocol');
      if (process.env.PICTURES) await page.screenshot(join(process.env.PICTURES, `${name}-${scheme}-${width}-unfolded.png`));
      await fill(page, '#subprotocols', '');
      await enter(page, '#address', `ws://127.0.0.1:${await closedPort()}/`);
      await eventually(page, '.event', 'Refused: nothing listens');
      await assertAccessible(page, 'after a refusal');
      await unfold(page, false);
      await page.evaluate(() => document.querySelector('#newest').click());
      if (process.env.PICTURES) await page.screenshot(join(process.env.PICTURES, `${name}-${scheme}-${width}-refusal.png`));
    }));
  }

  if (scheme === 'dark') return;
  for (const [width, height] of [[320, 640], [375, 667], [667, 375], [768, 1024], [1366, 768], [1440, 900]]) {
    test(`${width} × ${height}: what is pressed is in sight, and so is what was sent, whatever is open`, () => withPage(browser, { width, height }, async (page) => {
      await page.goto(server.page);
      await state(page, 'open');
      assert.deepEqual(await outOfSight(page, '#toggle', '#fold', '#message', '#composer .primary', '#words button', '#repeating', '.bar button', '.bar .check'), []);
      await conversation(page);
      await choose(page, 'text');
      await page.evaluate(() => [...document.querySelectorAll('.received .mark')].at(-1).scrollIntoView({ block: 'center' }));
      assert.deepEqual(await outOfSight(page, '.received:last-child .strip button'), [], 'the buttons of an entry');
      await scrollUp(page, 0);
      await page.evaluate(() => addEvent('comes while the reader is elsewhere'));
      await eventually(page, '#newest', /^1 new ↓$/);
      await unfold(page, true);
      await enter(page, '#message', 'in sight');
      await eventually(page, '.received', 'You have entered: in sight');
      await listed(page);
      assert.deepEqual(await outOfSight(page, '.received:last-child .row', '#message', '#composer .primary'), [], 'with everything unfolded');
      assert.equal(await text(page, '#newest'), 'Newest ↓');
      if (width === 1366) {
        const lines = await page.evaluate(() => document.querySelector('#log').clientHeight / [...document.querySelectorAll('.sent .row')].at(-1).parentElement.offsetHeight);
        assert.ok(lines >= 8, `${lines} lines beside the form for behaviors`);
      }
      await unfold(page, false);
      await page.evaluate(() => fold(page.fold, true));
      await fill(page, '#message', TEN_LINES);
      assert.deepEqual(await outOfSight(page, '.bar button', '#log', '#message', '#composer .primary', '#repeating'), [], 'with ten lines to send');
      await page.resize(width, height - 40);
      await until(page, 'the composer in sight in a lower window', (high) => innerHeight === high && document.querySelector('#composer').getBoundingClientRect().bottom < high, height - 40);
      await page.evaluate(() => fold(page.fold, false));
      assert.deepEqual(await outOfSight(page, '#message', '#composer .primary', '#repeating'), [], 'with ten lines and the settings');
    }));
  }

  test('nothing scrolls sideways at a zoom of 400 %', () => withPage(browser, { width: 320, height: 256 }, async (page) => {
    await page.goto(server.page);
    await state(page, 'open');
    for (const folded of [true, false]) {
      await page.evaluate((wanted) => fold(page.fold, wanted), folded);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `settings folded: ${folded}`);
    }
  }));

  test('the log keeps its height whatever is to be sent, and gives it to a long message', () => withPage(browser, {}, async (page) => {
    await page.goto(server.page);
    await state(page, 'open');
    const height = () => page.evaluate(() => document.querySelector('#log').clientHeight);
    const usual = await height();
    for (const kind of ['hex', 'file', 'text']) {
      await choose(page, kind);
      assert.equal(await height(), usual, kind);
    }
    await fill(page, '#message', TEN_LINES);
    assert.ok(await page.evaluate(() => { const { scrollHeight, clientHeight } = document.querySelector('#message'); return scrollHeight <= clientHeight; }), 'ten lines are seen');
    assert.ok(await height() < usual);
    await page.press('Enter');
    await eventually(page, '.sent', 'line 0↵line 1');
    assert.equal(await height(), usual);
  }));

  test('the log is dense, and an empty one says what to try', () => withPage(browser, {}, async (page) => {
    await page.goto(server.page);
    await state(page, 'open');
    assert.match(await text(page, '#hint-log'), /press Send, or click a word/);
    await sendWords(page, 20, 'hello');
    assert.ok(await page.evaluate(() => document.querySelector('#hint-log').hidden));
    const rows = await page.evaluate(() => document.querySelector('#log').clientHeight / [...document.querySelectorAll('.sent')].at(-1).offsetHeight);
    assert.ok(rows >= 16, `${rows} rows, and only 11 once`);
    const colors = await page.evaluate(() => ['.event .body', '.sent .body'].map((selector) => getComputedStyle(document.querySelector(selector)).color));
    assert.notEqual(colors[0], colors[1], 'events are quieter than messages');
    assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
    await page.click('#fold');
    assert.ok(await page.evaluate(() => document.querySelector('#settings').hidden));
    assert.equal(await page.evaluate(() => document.querySelector('#fold').getAttribute('aria-expanded')), 'false');
  }));
}

function forcedColors(name) {
  test('the state keeps its dot, the chosen kind its color, and each kind of row its bar', () => withBrowser(name, { forcedColors: 'active' }, async (browser) => {
    const page = await browser.newPage();
    await page.goto(server.page);
    await state(page, 'open');
    assert.ok(await page.evaluate(() => matchMedia('(forced-colors: active)').matches), 'colors are forced');
    await say(page, 'hello');
    const dot = await page.evaluate(() => { const { borderTopWidth, borderTopStyle } = getComputedStyle(document.querySelector('#state'), '::before'); return `${borderTopStyle} ${parseFloat(borderTopWidth) > 3}`; });
    assert.equal(dot, 'solid true');
    const [chosen, other] = await page.evaluate(() => ['text', 'hex'].map((kind) => getComputedStyle(document.querySelector(`[value=${kind}][type=radio] + span`)).backgroundColor));
    assert.notEqual(chosen, other);
    const bars = await page.evaluate(() => ['event', 'sent', 'received'].map((kind) => getComputedStyle(document.querySelector(`.${kind}`)).borderLeftStyle));
    assert.equal(new Set(bars).size, 3, `${bars}`);
    if (process.env.PICTURES) await page.screenshot(join(process.env.PICTURES, `${name}-forced-colors.png`));
  }));
}

// ── The file itself ─────────────────────────────────────────────────────────────────────────────

describe('the file itself', () => {
  test('it has nothing that its policy forbids', async () => {
    const source = await readFile(PAGE, 'utf8');
    assert.doesNotMatch(source, / style=| on[a-z]+="|javascript:/i);
    assert.doesNotMatch(source, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|localStorage|sessionStorage|cookie/);
    assert.doesNotMatch(source, /<link(?![^>]*href="data:)|@import|url\(|<img|<iframe/);
  });

  test('the server under test holds this very page', async () => {
    const served = await (await fetch(server.page)).text();
    assert.ok(served === await readFile(PAGE, 'utf8'), 'the page inside the binary is another one: build it again');
  });
});

test('a picture for the README', { skip: !process.env.SCREENSHOT }, async () => {
  const usual = await Server.start({ port: 1222 });
  const browser = await launch('Chromium');
  try {
    const page = await browser.newPage({ width: 1000, height: 740 });
    await page.goto(usual.page);
    await state(page, 'open');
    await say(page, 'hello');
    await say(page, '{"id": 7, "tags": ["json", "text"], "ok": true}');
    await choose(page, 'hex');
    await say(page, '77 73 65 63 68 6f 00 ff');
    await choose(page, 'text');
    await page.evaluate(() => document.querySelectorAll('.received .mark')[1].click());
    await eventually(page, '#times', 'median');
    await page.screenshot(process.env.SCREENSHOT);
  } finally {
    await browser.close();
    await usual.stop();
  }
});
