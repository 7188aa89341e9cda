// A WebSocket from npm talks to wsecho: text, binary, 1 MiB and close, and ws also fragments and a ping.
// undici's WebSocket is Node's own. It agrees on compression, and compresses nothing.
//
// usage: node echo.mjs ws|undici URL

import assert from 'node:assert/strict';
import { once } from 'node:events';

const PREFIX = 'You have entered: ';

setTimeout(() => {
  throw new Error('not done in time');
}, 60_000).unref();

const [name, url] = process.argv.slice(2);
const { WebSocket } = await import(name);
const ws = new WebSocket(url);
ws.binaryType = 'arraybuffer';
await new Promise((resolve) => { ws.onopen = resolve; });
assert.match(ws.extensions, /permessage-deflate/);

async function replyTo(say) {
  const reply = new Promise((resolve) => { ws.onmessage = resolve; });
  say();
  return (await reply).data;
}

for (const text of ['hi', '', 'Grüße, 日本, 🚀', 'x'.repeat(200_000), '0123456789abcdef'.repeat(65_536)]) {
  assert.equal(await replyTo(() => ws.send(text)), PREFIX + text);
}

for (const data of [Buffer.alloc(0), Buffer.from([0, 127, 128, 255]), Buffer.alloc(1 << 20, 7)]) {
  assert.deepEqual(Buffer.from(await replyTo(() => ws.send(data))), data);
}

if (name === 'ws') {
  const inFragments = await replyTo(() => {
    ws.send('a message ', { fin: false });
    ws.send('in three ', { fin: false });
    ws.send('fragments', { fin: true });
  });
  assert.equal(inFragments, `${PREFIX}a message in three fragments`);

  const pong = once(ws, 'pong');
  ws.ping('are you there?');
  assert.equal((await pong)[0].toString(), 'are you there?');
}

const closed = new Promise((resolve) => { ws.onclose = resolve; });
ws.close(4000, 'done');
const { code, reason, wasClean } = await closed;
assert.deepEqual([code, reason, wasClean], [4000, '', true]);
console.log('ok');
