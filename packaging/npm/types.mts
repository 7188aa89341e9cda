// Compiled by packaging/release: what TypeScript knows of the package.
import { program, serve, type Server } from 'wsecho';

await using server: Server = await serve('--prefix', '');
const addresses: string[] = [server.url, server.httpUrl, program()];
const line: string = await server.waitFor('listening on', 1000);
export { addresses, line };
