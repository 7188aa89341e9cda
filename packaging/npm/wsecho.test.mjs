// Tests of the installed package. packaging/release runs them.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { serve } from 'wsecho';

test('it listens and stops', async () => {
  const server = await serve('--behaviors', 'off');
  assert.match(server.url, /^ws:\/\/127\.0\.0\.1:\d+$/);
  assert.equal(server.httpUrl, server.url.replace('ws', 'http'));
  assert.equal(await (await fetch(`${server.httpUrl}/healthz`)).text(), 'ok\n');
  await server.stop();
  await server.stop();
  assert.match(server.log.at(-1), / stopped/);
  assert.ok(!await isListening(server.url));
});

test('a start that fails rejects with the reason', async () => {
  await assert.rejects(serve('--colour'), /unexpected argument '--colour'/);
  await assert.rejects(serve('--addr', '192.0.2.1:0'), /does not have that address/);
});

test('only flags configure it', async () => {
  Object.assign(process.env, { WSECHO_LOG_FILE: '/no/such/folder/log', RUST_LOG: 'off' });
  const server = await serve();
  delete process.env.WSECHO_LOG_FILE;
  delete process.env.RUST_LOG;
  await server[Symbol.asyncDispose]();
});

test('a line that is not logged is waited for and rejects with the log', async (t) => {
  const server = await serve();
  t.after(() => server.stop());
  await assert.rejects(server.waitFor('nothing', 100), /did not log "nothing":\n.*listening on/);
});

test('it is loaded by require, too', async () => {
  assert.equal(createRequire(import.meta.url)('wsecho').serve, serve);
});

test('it ends with a process that is killed', async () => {
  const code = "require('wsecho').serve().then((server) => console.log(server.url))";
  const owner = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [url] = await once(createInterface({ input: owner.stdout }), 'line');
  assert.ok(await isListening(url));
  owner.kill('SIGKILL');
  for (const end = performance.now() + 10_000; await isListening(url);) assert.ok(performance.now() < end);
});

async function isListening(url) {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
