#!/usr/bin/env node
'use strict';

const { spawn } = require('node:child_process');
const { program } = require('./index.js');

let path;
try {
  path = program();
} catch (error) {
  console.error(`wsecho: ${error.message}`);
  process.exit(1);
}
const child = spawn(path, process.argv.slice(2), { stdio: 'inherit' });
// Ctrl-C reaches both processes; wsecho counts two signals within half a second as one.
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
// npm signals only its shell, which ends without this process: it has to notice that itself.
const shell = process.ppid;
if (process.env.npm_command) setInterval(() => process.ppid === shell || child.kill(), 100);
child.on('exit', (code, signal) => {
  if (signal === null) process.exit(code);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
});
