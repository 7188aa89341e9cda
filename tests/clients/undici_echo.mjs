// undici's WebSocket, which is Node's own, talks to wsecho: text, binary, 1 MiB and close.
// It agrees on compression, and compresses nothing.
//
// usage: node undici_echo.mjs URL

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { WebSocket } from 'undici';

const PREFIX = 'You have entered: ';

setTimeout(() => {
  throw new Error('not done in time');
}, 60_000).unref();

const ws = new WebSocket(process.argv[2]);
ws.binaryType = 'arraybuffer';
await once(ws, 'open');
assert.match(ws.extensions, /permessage-deflate/);

async function replyTo(data) {
  const reply = once(ws, 'message');
  ws.send(data);
  return (await reply)[0].data;
}

for (const text of ['hi', '', 'Grüße, 日本, 🚀', 'x'.repeat(200_000), '0123456789abcdef'.repeat(65_536)]) {
  assert.equal(await replyTo(text), PREFIX + text);
}

for (const data of [Buffer.alloc(0), Buffer.from([0, 127, 128, 255]), Buffer.alloc(1 << 20, 7)]) {
  assert.deepEqual(Buffer.from(await replyTo(data)), data);
}

const closed = once(ws, 'close');
ws.close(4000, 'done');
const [{ code, reason, wasClean }] = await closed;
assert.deepEqual([code, reason, wasClean], [4000, '', true]);
console.log('ok');
