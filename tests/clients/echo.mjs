// npm's ws talks to wsecho: text, binary, 1 MiB, fragments, ping and close.
//
// usage: node echo.mjs URL

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { WebSocket } from 'ws';

const PREFIX = 'You have entered: ';

setTimeout(() => {
  throw new Error('not done in time');
}, 60_000).unref();

const ws = new WebSocket(process.argv[2]);
await once(ws, 'open');
assert.match(ws.extensions, /permessage-deflate/);

async function replyTo(say) {
  const reply = once(ws, 'message');
  say();
  const [data, isBinary] = await reply;
  return isBinary ? data : data.toString();
}

for (const text of ['hi', '', 'Grüße, 日本, 🚀', 'x'.repeat(200_000), '0123456789abcdef'.repeat(65_536)]) {
  assert.equal(await replyTo(() => ws.send(text)), PREFIX + text);
}

for (const data of [Buffer.alloc(0), Buffer.from([0, 127, 128, 255]), Buffer.alloc(1 << 20, 7)]) {
  assert.deepEqual(await replyTo(() => ws.send(data)), data);
}

const inFragments = await replyTo(() => {
  ws.send('a message ', { fin: false });
  ws.send('in three ', { fin: false });
  ws.send('fragments', { fin: true });
});
assert.equal(inFragments, PREFIX + 'a message in three fragments');

const pong = once(ws, 'pong');
ws.ping('are you there?');
assert.equal((await pong)[0].toString(), 'are you there?');

const closed = once(ws, 'close');
ws.close(4000, 'done');
const [code, reason] = await closed;
assert.deepEqual([code, reason.toString()], [4000, '']);
console.log('ok');
