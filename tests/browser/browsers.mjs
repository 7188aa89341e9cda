// The browsers, with the same few operations each, so that one suite drives all of them.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { writeFile } from 'node:fs/promises';
import puppeteer from 'puppeteer-core';

const PROGRAMS = {
  Chromium: process.env.CHROMIUM ?? '/usr/bin/chromium',
  Firefox: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
  WebKit: process.env.WEBKIT_DRIVER ?? '/usr/bin/WebKitWebDriver',
};
const XVFB = '/usr/bin/Xvfb';
const QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/** Why the tests in this browser are skipped, or `false`. Every run of a pipeline must test the page. */
export function whySkipped(name) {
  const missing = [PROGRAMS[name], ...(name === 'WebKit' ? [XVFB] : [])].find((program) => !existsSync(program));
  if (!missing) return false;
  if (process.env.CI === 'true') throw new Error(`no ${missing} for ${name}, and CI=true forbids to skip`);
  const why = `SKIPPED: no ${missing} for ${name}`;
  console.log(`# ${why}`);
  return why;
}

/** Starts a browser. `scheme` is "light" or "dark", `forcedColors` is "none" or "active". */
export function launch(name, { scheme = 'light', forcedColors = 'none' } = {}) {
  return name === 'WebKit' ? WebKit.launch() : Puppet.launch(name, scheme, forcedColors);
}

/** Passes `body` a browser of its own. */
export async function withBrowser(name, options, body) {
  const browser = await launch(name, options);
  try {
    await body(browser);
  } finally {
    await browser.close();
  }
}

/** Passes `body` a page of its own. */
export async function withPage(browser, size, body) {
  const page = await browser.newPage(size);
  try {
    await body(page);
  } finally {
    await page.close();
  }
}

/** Chromium by its own protocol and Firefox by WebDriver BiDi. */
class Puppet {
  static async launch(name, scheme, forcedColors) {
    const isFirefox = name === 'Firefox';
    const browser = await puppeteer.launch({
      browser: isFirefox ? 'firefox' : 'chrome',
      executablePath: PROGRAMS[name],
      args: isFirefox ? [] : QUIET,
      acceptInsecureCerts: true,
      defaultViewport: null,
      extraPrefsFirefox: {
        'layout.css.prefers-color-scheme.content-override': scheme === 'dark' ? 0 : 1,
        'browser.display.document_color_use': forcedColors === 'active' ? 2 : 0,
        'dom.events.testing.asyncClipboard': true,
        'browser.download.folderList': 2,
      },
    });
    return new Puppet(browser, { name, scheme, forcedColors });
  }

  constructor(browser, settings) {
    Object.assign(this, settings);
    this.browser = browser;
  }

  /** A page in a context of its own. `page.said` collects the lines of its console. */
  async newPage({ width = 1280, height = 800 } = {}) {
    const context = await this.browser.createBrowserContext();
    const page = await context.newPage();
    await page.setViewport({ width, height });
    if (this.name === 'Chromium') {
      const session = await page.createCDPSession();
      await session.send('Emulation.setEmulatedMedia', {
        features: [{ name: 'prefers-color-scheme', value: this.scheme }, { name: 'forced-colors', value: this.forcedColors }],
      });
      await session.send('Browser.setPermission', { permission: { name: 'clipboard-read' }, setting: 'granted', browserContextId: context.id }).catch(() => {});
    }
    const tab = new PuppetPage(page, context);
    page.on('console', (message) => tab.said.push(message.text()));
    page.on('pageerror', (error) => tab.said.push(String(error)));
    page.on('dialog', (dialog) => tab.said.push(`dialog: ${dialog.message()}`));
    page.on('request', (request) => tab.requested.push(request.url()));
    return tab;
  }

  close() {
    return this.browser.close();
  }
}

class PuppetPage {
  said = [];
  requested = [];

  constructor(page, context) {
    this.page = page;
    this.context = context;
  }

  before(action) { return this.page.evaluateOnNewDocument(action); }
  goto(url) { return this.page.goto(url); }
  reload() { return this.page.reload(); }
  evaluate(action, ...values) { return this.page.evaluate(action, ...values); }
  type(text) { return this.page.keyboard.type(text); }
  resize(width, height) { return this.page.setViewport({ width, height }); }
  screenshot(path) { return this.page.screenshot({ path }); }
  close() { return this.context.close(); }

  /** A real click in the middle of the element. */
  click(selector) { return this.page.click(selector); }

  /** Presses a key, such as "Enter" or "Shift+Tab". */
  async press(keys) {
    const [key, ...held] = keys.split('+').reverse();
    for (const modifier of held) await this.page.keyboard.down(modifier);
    await this.page.keyboard.press(key);
    for (const modifier of held) await this.page.keyboard.up(modifier);
  }

  /**
   * Does something, and resolves to the milliseconds of its longest task: by the clock, as in long-task
   * entries, and of processor time, which does not depend on the machine's other work.
   */
  async longestTask(action) {
    const thread = await MainThread.watch(this.page.browser());
    await this.page.tracing.start({ categories: ['toplevel'] });
    await action();
    const { traceEvents } = JSON.parse(Buffer.from(await this.page.tracing.stop()).toString());
    thread.stop();
    const tasks = traceEvents.filter(({ name, ph, pid, tid }) => ph === 'X' && name.endsWith('RunTask') && pid === thread.id && tid === thread.id);
    const processor = tasks.map(({ ts, dur }) => Math.min(dur, thread.spent(ts, ts + dur)));
    return { tasks: tasks.length, clock: Math.max(...tasks.map(({ dur }) => dur)) / 1000, processor: Math.max(...processor) / 1000 };
  }

  /**
   * Does something up to `rounds` times, until one round has more than `tasks` tasks, each below `limit`
   * milliseconds of processor time. It repeats since other programs make a task longer, never shorter, and
   * since Chromium may begin to trace late.
   */
  async assertSmooth(action, { tasks, limit, rounds }) {
    let longest;
    const isSmooth = () => longest?.tasks > tasks && longest.processor < limit;
    for (let round = 0; round < rounds && !isSmooth(); round += 1) {
      longest = await this.longestTask(action);
      console.log(`# the longest of ${longest.tasks} tasks took ${longest.clock.toFixed(0)} ms, ${longest.processor.toFixed(0)} ms of them the processor`);
    }
    assert.ok(isSmooth(), `the longest of ${longest.tasks} tasks took ${longest.processor} ms of processor time`);
  }

  async chooseFile(selector, path) {
    const field = await this.page.$(selector);
    await field.uploadFile(path);
  }
}

/**
 * The processor time of the busiest renderer's main thread, read from the kernel every millisecond, since
 * not every Chromium writes it into its trace events. The kernel updates it at each tick, so it is known
 * to a few milliseconds. All times are in microseconds of CLOCK_MONOTONIC, as in the trace.
 */
class MainThread {
  static async watch(browser) {
    const session = await browser.target().createCDPSession();
    const { processInfo } = await session.send('SystemInfo.getProcessInfo');
    await session.detach();
    const renderers = processInfo.filter(({ type }) => type === 'renderer');
    return new MainThread(renderers.reduce((busiest, other) => (other.cpuTime > busiest.cpuTime ? other : busiest)).id);
  }

  constructor(id) {
    this.id = id; // of the process, too
    this.readings = [];
    this.timer = setInterval(() => this.read(), 1);
    this.read();
  }

  read() {
    const [spent] = readFileSync(`/proc/${this.id}/task/${this.id}/schedstat`, 'utf8').split(' ');
    this.readings.push({ at: Number(process.hrtime.bigint()) / 1000, spent: Number(spent) / 1000 });
  }

  stop() {
    clearInterval(this.timer);
    this.read();
  }

  /** The time spent between the readings that enclose a span. All of the span, if none do. */
  spent(start, end) {
    const before = this.readings.findLast(({ at }) => at <= start);
    const after = this.readings.find(({ at }) => at >= end);
    return before && after ? after.spent - before.spent : end - start;
  }
}

/** WebKitGTK's MiniBrowser under Xvfb, by the classic WebDriver protocol. */
class WebKit {
  static KEYS = { Enter: '\uE007', Tab: '\uE004', Escape: '\uE00C', ArrowUp: '\uE013', ArrowDown: '\uE015', Shift: '\uE008' };

  static async launch() {
    const xvfb = spawn(XVFB, ['-displayfd', '3', '-screen', '0', '2560x1440x24'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
    const [display] = await once(createInterface({ input: xvfb.stdio[3] }), 'line');
    const port = 20000 + Math.floor(Math.random() * 20000);
    const driver = spawn(PROGRAMS.WebKit, [`--port=${port}`], {
      stdio: 'ignore', env: { ...process.env, DISPLAY: `:${display}`, WEBKIT_DISABLE_COMPOSITING_MODE: '1' },
    });
    const browser = new WebKit(xvfb, driver, `http://127.0.0.1:${port}`);
    for (let tries = 0; ; tries += 1) {
      try {
        const { sessionId } = await browser.call('POST', '/session', { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
        browser.base += `/session/${sessionId}`;
        return browser;
      } catch (error) {
        if (tries === 100 || !/fetch failed/.test(error.message)) throw error;
        await new Promise((resolve) => { setTimeout(resolve, 100); });
      }
    }
  }

  constructor(xvfb, driver, base) {
    this.name = 'WebKit';
    this.xvfb = xvfb;
    this.driver = driver;
    this.base = base;
    this.said = [];
    this.requested = [];
  }

  async call(method, path, body) {
    const response = await fetch(this.base + path, { method, body: body && JSON.stringify(body) });
    const { value } = await response.json();
    if (value?.error) throw new Error(`WebDriver ${path}: ${value.error}: ${value.message}`);
    return value;
  }

  // One session has one page.
  async newPage({ width = 1280, height = 800 } = {}) {
    await this.resize(width, height);
    return { __proto__: this, close: () => this.goto('about:blank') };
  }

  goto(url) { return this.call('POST', '/url', { url }); }
  reload() { return this.call('POST', '/refresh', {}); }
  evaluate(action, ...values) {
    const script = `const done = arguments[arguments.length - 1]; Promise.resolve((${action})(...[...arguments].slice(0, -1))).then(done)`;
    return this.call('POST', '/execute/async', { script, args: values });
  }
  resize(width, height) { return this.call('POST', '/window/rect', { width, height }); }
  async screenshot(path) { await writeFile(path, Buffer.from(await this.call('GET', '/screenshot'), 'base64')); }

  async click(selector) {
    const element = await this.call('POST', '/element', { using: 'css selector', value: selector });
    await this.call('POST', `/element/${Object.values(element)[0]}/click`, {});
  }

  async chooseFile(selector, path) {
    const element = await this.call('POST', '/element', { using: 'css selector', value: selector });
    await this.call('POST', `/element/${Object.values(element)[0]}/value`, { text: path });
  }

  type(text) { return this.perform([...text].flatMap((value) => [{ type: 'keyDown', value }, { type: 'keyUp', value }])); }
  press(keys) {
    const values = keys.split('+').map((key) => WebKit.KEYS[key] ?? key);
    return this.perform([...values.map((value) => ({ type: 'keyDown', value })), ...values.reverse().map((value) => ({ type: 'keyUp', value }))]);
  }
  perform(actions) { return this.call('POST', '/actions', { actions: [{ type: 'key', id: 'keys', actions }] }); }

  async close() {
    await this.call('DELETE', '').catch(() => {});
    for (const program of [this.driver, this.xvfb]) {
      program.kill();
      if (program.exitCode === null && program.signalCode === null) await once(program, 'exit');
    }
  }
}
