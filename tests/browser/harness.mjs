// What the tests stand on: the real server, a real browser, and a page in one of its settings.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

export const PAGE = here('../../static/client.html');
export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
export const noChromium = !existsSync(CHROMIUM);

const WSECHO = process.env.WSECHO ?? here('../../target/release/wsecho');
const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const QUIET = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

export class Server {
  /** Starts wsecho and resolves once it has said where it listens. */
  static async start({ port = 0, flags = [] } = {}) {
    assert.ok(existsSync(WSECHO), `no server at ${WSECHO}: run "cargo build --release", or set WSECHO`);
    const child = spawn(WSECHO, ['--addr', `127.0.0.1:${port}`, ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
    const said = [];
    const lines = createInterface({ input: child.stderr });
    const listening = new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        said.push(line);
        const address = /ws:\/\/127\.0\.0\.1:(\d+)\//.exec(line);
        if (address) resolve(Number(address[1]));
      });
      lines.on('close', () => reject(new Error(`the server ended before it listened: ${said.join('\n')}`)));
    });
    return new Server(child, await listening);
  }

  constructor(child, port) {
    this.child = child;
    this.port = port;
    this.page = `http://127.0.0.1:${port}/`;
    this.socket = `ws://127.0.0.1:${port}/`;
  }

  async stop(signal = 'SIGTERM') {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exit = once(this.child, 'exit');
    this.child.kill(signal);
    await exit;
  }
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

/** A page from a file always calls 127.0.0.1:1222: the browser is led from there to `port`. */
export function launch(port) {
  const led = `--host-resolver-rules=MAP 127.0.0.1:1222 127.0.0.1:${port}`;
  return chromium.launch({ executablePath: CHROMIUM, args: [...QUIET, led] });
}

/** A page in a context of its own; `page.said` collects whatever its console shows. */
export async function newPage(browser, { width = 1600, height = 900, scheme = 'light', prepare = null, ...options } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    permissions: ['clipboard-read', 'clipboard-write'],
    ...options,
  });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  page.on('console', (message) => page.said.push(message.text()));
  page.on('pageerror', (error) => page.said.push(String(error)));
  page.on('dialog', (dialog) => page.said.push(`dialog: ${dialog.message()}`));
  page.on('request', (request) => page.requested.push(request.url()));
  if (prepare) await prepare(page);
  return page;
}

export async function open(page, url) {
  page.said = [];
  page.requested = [];
  await page.goto(url);
}

export const state = (page, name) => page.locator(`#state.${name}`, { hasText: name }).waitFor();
export const entries = (page, kind) => page.locator(`.entry.${kind}`);
export const text = (page, selector) => page.locator(selector).innerText();

/** Sends by the keyboard and waits for the reply to be logged. */
export async function say(page, message) {
  const replies = await entries(page, 'received').count();
  await page.fill('#message', message);
  await page.press('#message', 'Enter');
  await entries(page, 'received').nth(replies).waitFor();
}

export async function eventually(page, selector, pattern) {
  await page.locator(selector).filter({ hasText: pattern }).first().waitFor();
}

export async function choose(page, kind) {
  await page.getByRole('radio', { name: kind }).check({ force: true });
}

export async function assertAccessible(page, when) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, {
    rules: { 'target-size': { enabled: true }, 'color-contrast-enhanced': { enabled: false } },
  }));
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`);
  assert.deepEqual(found, [], `axe-core, ${when}`);
}
