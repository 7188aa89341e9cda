/// <reference lib="esnext.disposable" />

/** A running wsecho. `await using server = await serve()` stops it at the end of the block. */
export interface Server extends AsyncDisposable {
  /** Its address, such as `ws://127.0.0.1:49152`. Append a path: `${server.url}/do?close=4000`. */
  readonly url: string;
  /** The same address for plain requests, such as `http://127.0.0.1:49152`. */
  readonly httpUrl: string;
  /** The lines of its log so far. */
  readonly log: readonly string[];
  /** Waits for a line of the log that contains `text`, 5000 milliseconds by default, and returns the first one. */
  waitFor(text: string, milliseconds?: number): Promise<string>;
  /** Sends each client Close 1001 and waits for the server's end. The log is complete then. */
  stop(): Promise<void>;
}

/** Runs wsecho with these flags on a free port of 127.0.0.1. Rejects with the log's last lines if it does not start. */
export function serve(...flags: string[]): Promise<Server>;

/** The path of the binary. Throws if there is none for this platform. */
export function program(): string;
