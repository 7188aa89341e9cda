// An echo server on npm's ws, which is the one that tests/clients installs.
// usage: echo-ws.mjs PORT context-takeover|no-context-takeover LEVEL
import { createRequire } from 'node:module';

const { WebSocketServer } = createRequire(new URL('../../tests/clients/', import.meta.url))('ws');
const [port, mode, level] = process.argv.slice(2);
const stateless = mode === 'no-context-takeover';

new WebSocketServer({
  host: '127.0.0.1',
  port: Number(port),
  perMessageDeflate: {
    serverNoContextTakeover: stateless,
    clientNoContextTakeover: stateless,
    // Its default would send a message of 1023 bytes plain.
    threshold: 0,
    zlibDeflateOptions: { level: Number(level) },
  },
}).on('connection', (client) => {
  client.on('message', (data, isBinary) => client.send(data, { binary: isBinary }));
});
