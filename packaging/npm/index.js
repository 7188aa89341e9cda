'use strict';

const { spawn } = require('node:child_process');
const { EventEmitter, once } = require('node:events');
const { createInterface } = require('node:readline');

// The guard stops the server when its standard input ends, which also happens when this process is killed.
const GUARD = '"$0" "$@" & exec 2>&-; read -r _; kill $!; wait $!';

/** The path of the binary, which is in a package of its own for each platform. */
exports.program = () => {
  const name = `wsecho-${process.platform}-${process.arch}`;
  try {
    return require.resolve(`${name}/bin/wsecho`);
  } catch {
    throw new Error(`${name} is not installed: npm omitted optional dependencies, or wsecho has no binary for this platform`);
  }
};

exports.serve = async (...flags) => {
  const command = [exports.program(), '--addr', '127.0.0.1:0', ...flags];
  // Only the flags configure the server.
  const variables = Object.entries(process.env).filter(([name]) => !/^(WSECHO_|RUST_LOG)/.test(name));
  const guard = spawn('/bin/sh', ['-c', GUARD, ...command], {
    env: Object.fromEntries(variables),
    stdio: ['pipe', 'ignore', 'pipe'],
    detached: true, // Ctrl-C ends the test, which then stops the server.
  });
  const closed = once(guard, 'close');
  guard.stdin.on('error', () => {}); // The guard may have ended.

  const log = [];
  const growth = new EventEmitter().setMaxListeners(0);
  let hasEnded = false;
  createInterface({ input: guard.stderr })
    .on('line', (line) => { log.push(line); growth.emit('line'); })
    .on('close', () => { hasEnded = true; growth.emit('line'); });

  const waitFor = async (text, milliseconds = 5000) => {
    const signal = AbortSignal.timeout(milliseconds);
    for (;;) {
      const found = log.find((line) => line.includes(text));
      if (found !== undefined) return found;
      if (hasEnded || signal.aborted) throw new Error([`wsecho did not log "${text}":`, ...log.slice(-20)].join('\n'));
      await once(growth, 'line', { signal }).catch(() => {});
    }
  };
  const stop = async () => {
    guard.stdin.end('\n');
    await closed;
  };

  try {
    const url = /listening on (\w+:\/\/[^/]+)/.exec(await waitFor('listening on ', 10_000))[1];
    return { url, httpUrl: url.replace('ws', 'http'), log, waitFor, stop, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
};
