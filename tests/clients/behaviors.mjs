// What npm's ws reports of each behavior on demand.
//
// usage: node behaviors.mjs URL < QUERIES
//
// For each query, a line each, it prints the seconds that it took, a tab, and what it saw.

import { readFileSync } from 'node:fs';
import { WebSocket } from 'ws';

const PREFIX = 'You have entered: ';
const QUIET = 1500;

const shown = (text) => (text.startsWith('{') ? 'JSON' : text.trimEnd().replace(PREFIX, '…'));

function observe(url) {
  return new Promise((resolve) => {
    const started = performance.now();
    const seen = [];
    let last = 0;
    let quiet;
    const ws = new WebSocket(url);
    const end = (what) => {
      clearTimeout(quiet);
      resolve([last / 1000, [...seen, what].join(' ')]);
      ws.terminate();
    };
    const note = (what) => {
      last = performance.now() - started;
      if (what) seen.push(what);
      clearTimeout(quiet);
      quiet = setTimeout(() => {
        ws.once('pong', () => end('open, pong'));
        ws.ping();
        quiet = setTimeout(() => end('open, no pong'), QUIET);
      }, QUIET);
    };
    ws.on('open', () => {
      note();
      for (const text of 'abc') ws.send(text, () => {});
    });
    ws.on('message', (data) => note(shown(data.toString())));
    ws.on('error', (error) => note(error.code ?? error.message));
    ws.on('close', (code, reason) => {
      note();
      end(`close ${code}${reason.length > 0 ? ` ${reason}` : ''}`);
    });
  });
}

const queries = readFileSync(0, 'utf8').split('\n').filter(Boolean);
for (const [took, seen] of await Promise.all(queries.map((query) => observe(`${process.argv[2]}?${query}`)))) {
  console.log(`${took.toFixed(3)}\t${seen}`);
}
process.exit();
