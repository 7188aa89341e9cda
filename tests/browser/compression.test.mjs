// Browsers compress by default: their messages come back, compressed, too.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { whySkipped, withBrowser } from './browsers.mjs';
import { withServer } from './harness.mjs';

const MODES = {
  'no-context-takeover': 'permessage-deflate; server_no_context_takeover; client_no_context_takeover',
  'context-takeover': 'permessage-deflate',
};
const RUN = 200; // small messages

/** Runs in the page: sends every kind of message at once, and returns the replies that differ. */
function converse(address, run) {
  const random = new Uint8Array(1 << 20);
  for (let at = 0; at < random.length; at += 65536) crypto.getRandomValues(random.subarray(at, at + 65536));
  const sent = [
    'é, 日, 😀', '', new Uint8Array(0), Uint8Array.of(0, 255), 'sixteen letters '.repeat(65536), random, new Uint8Array(1 << 20),
    ...Array.from({ length: run }, (_, number) => JSON.stringify({ number, text: 'small '.repeat(9) })),
  ];
  const isSame = (one, other) => (typeof one === 'string' ? one === other : other instanceof ArrayBuffer && one.length === other.byteLength && new Uint8Array(other).every((byte, at) => byte === one[at]));
  return new Promise((resolve) => {
    const socket = new WebSocket(address);
    socket.binaryType = 'arraybuffer';
    const wrong = [];
    let replies = 0;
    socket.onopen = () => sent.forEach((message) => socket.send(message));
    socket.onmessage = ({ data }) => {
      if (!isSame(sent[replies], data)) wrong.push(replies);
      replies += 1;
      if (replies === sent.length) socket.close(4000);
    };
    socket.onclose = ({ code, wasClean }) => resolve({ code, wasClean, replies, wrong, sent: sent.length, extensions: socket.extensions });
  });
}

for (const name of ['Chromium', 'Firefox']) {
  describe(name, { skip: whySkipped(name) }, () => {
    test('is answered compressed in both modes', () => withBrowser(name, {}, async (browser) => {
      for (const [mode, agreed] of Object.entries(MODES)) {
        await withServer(['-v', '--prefix', '', '--compression', mode], async (server) => {
          const page = await browser.newPage();
          await page.goto(server.page);
          const { sent, extensions, ...seen } = await page.evaluate(converse, `${server.socket}converse`, RUN);
          assert.deepEqual(seen, { code: 4000, wasClean: true, replies: sent, wrong: [] }, mode);
          assert.match(extensions, /^permessage-deflate(;|$)/); // Firefox shows no parameters
          await server.stop(); // its log is complete then
          const [, client] = server.said.map((line) => /(client \d+) connected: .*, path "\/converse", (.*)/.exec(line)).find((found) => found?.[2] === agreed);
          const count = (pattern) => server.said.filter((line) => line.includes(`${client}: `) && pattern.test(line)).length;
          assert.equal(count(/Text of 1048576 bytes, \d{1,4} compressed/), 1, mode);
          assert.equal(count(/Binary of 1048576 bytes, \d{1,4} compressed/), 1, mode);
          // Both compress the small ones. Firefox leaves out messages that don't get shorter.
          assert.equal(count(/Text of \d\d bytes, \d\d? compressed, "\{/), RUN, mode);
        });
      }
    }));
  });
}
