// Chromium reports each behavior on demand as docs/behaviors.md says.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { whySkipped, withBrowser } from './browsers.mjs';
import { withServer } from './harness.mjs';

const skip = whySkipped('Chromium');

const guide = await readFile(new URL('../../docs/behaviors.md', import.meta.url), 'utf8');
const rows = guide.split('\n')
  .filter((line) => line.startsWith('| `/do?'))
  .map((line) => line.split('|').map((cell) => cell.trim().replace(/^`|`$/g, '')))
  .map(([, address, earliest, , , chromium]) => ({ address, earliest: Number.parseFloat(earliest), chromium }));

/** Runs in the page. Sends each of `messages` once the WebSocket is open. */
function observe(address, messages) {
  const quiet = 1500;
  return new Promise((resolve) => {
    const started = performance.now();
    const seen = [];
    let last = 0;
    let timer;
    const socket = new WebSocket(`ws://${location.host}${address}`);
    const end = (what) => {
      clearTimeout(timer);
      resolve({ took: last / 1000, seen: [...seen, what].join(' ') });
    };
    const note = (what) => {
      last = performance.now() - started;
      if (what) seen.push(what);
      clearTimeout(timer);
      timer = setTimeout(() => end('open'), quiet);
    };
    socket.onopen = () => {
      note();
      for (const text of messages) socket.send(text);
    };
    socket.onmessage = ({ data }) => {
      note(data.startsWith('{') ? 'JSON' : data.trimEnd().replace('You have entered: ', '…'));
    };
    socket.onerror = () => note('error');
    socket.onclose = ({ code, reason, wasClean }) => {
      note();
      end(`close ${code}${reason ? ` ${reason}` : ''} ${wasClean ? 'clean' : 'not clean'}`);
    };
  });
}

test('Chromium reports each behavior as the guide says', { skip }, () => withServer([], (server) => withBrowser('Chromium', {}, async (browser) => {
  assert.ok(rows.length > 25, 'the table is found');
  const page = await browser.newPage();
  await page.goto(server.page);
  const observed = await Promise.all(rows.map(({ address, chromium }) => {
    // Chromium calls a close unclean if a message was sent too late, and here the server closes at once.
    const messages = chromium.startsWith('close 4') ? '' : 'abc';
    return page.evaluate(observe, address, messages);
  }));
  if (process.env.SHOW) observed.forEach(({ seen }, row) => console.log(rows[row].address, '\t', seen));
  observed.forEach(({ took, seen }, row) => {
    const { address, earliest, chromium } = rows[row];
    assert.equal(seen, chromium, address);
    assert.ok(took >= earliest, `${address} took ${took} s`);
  });
})));
