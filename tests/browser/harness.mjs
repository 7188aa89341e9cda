// Support for the tests: the real server, a stand-in for what it never does, and questions to a page.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

export const PAGE = here('../../static/client.html');
export const WSECHO = process.env.WSECHO ?? build();
const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SOON = 15_000; // milliseconds for what happens at once; machines can be busy

/** Builds the program, unless it is up to date, and returns its path. */
function build() {
  const cargo = ['build', '--release', '--locked', '--message-format=json-render-diagnostics'];
  const messages = execFileSync('cargo', cargo, { cwd: here('../..'), encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  return messages.trim().split('\n').map((line) => JSON.parse(line).executable).find(Boolean);
}

export class Server {
  /** Starts wsecho and resolves once it has logged its address. */
  static async start({ port = 0, flags = [] } = {}) {
    assert.ok(existsSync(WSECHO), `no server at ${WSECHO}`);
    const child = spawn(WSECHO, ['--addr', `127.0.0.1:${port}`, ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
    const said = [];
    const lines = createInterface({ input: child.stderr });
    const listening = new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        said.push(line);
        const address = /(wss?):\/\/127\.0\.0\.1:(\d+)\//.exec(line);
        if (address) resolve({ scheme: address[1], port: Number(address[2]) });
      });
      lines.on('close', () => reject(new Error(`the server ended before it listened: ${said.join('\n')}`)));
    });
    return new Server(child, said, await listening);
  }

  constructor(child, said, { scheme, port }) {
    this.child = child;
    this.said = said; // the lines of its log so far
    this.port = port;
    this.socket = `${scheme}://127.0.0.1:${port}/`;
    this.page = this.socket.replace('ws', 'http');
  }

  async stop(signal = 'SIGTERM') {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const closed = once(this.child, 'close'); // with its log read to the end
    this.child.kill(signal);
    await closed;
  }
}

/** Passes `body` a server with these flags. */
export async function withServer(flags, body) {
  const server = await Server.start({ flags });
  try {
    await body(server);
  } finally {
    await server.stop('SIGKILL');
  }
}

/** A server that does what wsecho never does: `handle` gets each of its WebSockets, `answer` its other requests. */
export async function standIn(handle, { answer, ...options } = {}) {
  const http = createServer(answer ?? ((request, response) => response.writeHead(426).end()));
  const sockets = new WebSocketServer({ server: http, ...options });
  sockets.on('connection', handle);
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  return {
    socket: `ws://127.0.0.1:${http.address().port}/`,
    stop() {
      for (const client of sockets.clients) client.terminate();
      http.close();
    },
  };
}

/** A port at which nothing listens. */
export async function closedPort() {
  const listener = net.createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  return port;
}

/** Waits until `ask` is true in the page, or in the one that it is left for. */
export async function until(page, what, ask, ...values) {
  const unlessLeft = (error) => assert.match(error.message, /context was destroyed|navigat/);
  for (const end = performance.now() + SOON; ;) {
    if (await page.evaluate(ask, ...values).catch(unlessLeft)) return;
    if (performance.now() > end) {
      const seen = await page.evaluate(() => [document.querySelector('#state')?.textContent, document.querySelector('#log')?.innerText.slice(-1500)].join('\n'));
      assert.fail(`never came: ${what}. The page says:\n${seen}`);
    }
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

export const state = (page, name) => until(page, `state ${name}`, (wanted) => document.querySelector('#state')?.textContent === wanted, name);
export const text = (page, selector) => page.evaluate((wanted) => document.querySelector(wanted).textContent.trim(), selector);
export const texts = (page, selector) => page.evaluate((wanted) => [...document.querySelectorAll(wanted)].map((element) => element.textContent.trim()), selector);
export const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
export const isInvalid = (page, selector) => page.evaluate((wanted) => document.querySelector(wanted).getAttribute('aria-invalid') === 'true', selector);
export const value = (page, selector) => page.evaluate((wanted) => document.querySelector(wanted).value, selector);

/** Waits until one of the elements has this text, or text that matches this pattern. */
export function eventually(page, selector, pattern) {
  const source = pattern instanceof RegExp ? pattern.source : pattern.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
  return until(page, `${selector}: ${pattern}`, (wanted, like) => [...document.querySelectorAll(wanted)].some((element) => new RegExp(like).test(element.textContent)), selector, source);
}

/** Sets the text of a field, as typing does. */
export function fill(page, selector, content) {
  return page.evaluate((wanted, typed) => {
    const field = document.querySelector(wanted);
    field.focus();
    field.value = typed;
    field.dispatchEvent(new Event('input', { bubbles: true }));
  }, selector, content);
}

export async function enter(page, selector, content) {
  await fill(page, selector, content);
  await page.press('Enter');
}

/** Sends by the keyboard and waits for the reply to be logged. */
export async function say(page, message) {
  const replies = await page.evaluate(() => counts.received);
  await enter(page, '#message', message);
  await until(page, `the reply to ${message.slice(0, 40)}`, (before) => counts.received > before, replies);
  await listed(page);
}

/** Waits until all entries went through the filter and into the document, and their round trips are drawn. */
export async function listed(page) {
  await until(page, 'all entries are listed', () => listed === kept.length && !listPending && timesPending === null);
  await page.evaluate(() => new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); }));
}

/** Sends so many words by the page's own function, the one of each number, and waits for the replies. */
export async function sendWords(page, count, word) {
  await page.evaluate((many, text) => { for (let number = 0; number < many; number += 1) sendWord(text.replace('#', number)); }, count, word);
  await replied(page, count);
}

/** Waits until the page has received so many messages, and lists them. */
export async function replied(page, count) {
  await until(page, `${count} replies`, (many) => counts.received === many, count);
  await listed(page);
}

/** From now on `window.saved` has what the page saves, instead of the browser's downloads. */
export const keepSaved = (page) => page.evaluate(() => {
  URL.createObjectURL = (blob) => { window.blob = blob; return 'about:blank#'; };
  HTMLAnchorElement.prototype.click = async function click() { window.saved = { name: this.download, text: await window.blob.text(), bytes: [...new Uint8Array(await window.blob.arrayBuffer())] }; };
});

export const choose = (page, kind) => page.evaluate((wanted) => document.querySelector(`[name=kind][value=${wanted}]`).click(), kind);
export const check = (page, selector) => page.evaluate((wanted) => document.querySelector(wanted).click(), selector);

export async function assertAccessible(page, when) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(`${AXE}; undefined`);
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { rules: { 'target-size': { enabled: true }, 'color-contrast-enhanced': { enabled: false } } });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`);
  });
  assert.deepEqual(found, [], `axe-core, ${when}`);
}
