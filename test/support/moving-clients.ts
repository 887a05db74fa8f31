import { setTimeout as delay } from 'node:timers/promises';
import { io } from 'socket.io-client';
import { openClient } from './clients.ts';
import { LEGACY, postMcp } from './mcp.ts';
import { closeAfter } from './open-resources.ts';

/** Period of the requests of an MCP client over HTTP. */
const MCP_REQUEST_EVERY_MS = 200;
/** Timeout for the loss of a connection, which ends with the test. */
const FOREVER_MS = 3_600_000;

/** One time without a connection, in ms of `performance.now()`. */
export interface Absence {
  readonly lostAt: number;
  readonly backAt: number;
  /** Delay that the node requested; undefined if the client was not notified. */
  readonly retryAfterMs: number | undefined;
}

export interface MovingClient {
  /** The client has its welcome, or for MCP over HTTP its last answer was a result. */
  readonly connected: boolean;
  readonly absences: readonly Absence[];
}

export interface MovingClientOptions {
  readonly url: string;
  readonly token: string;
  /** Socket.IO only: period at which the client sends a message; it sends none by default. */
  readonly sendsEveryMs?: number;
}

/** Clients that reconnect as the documentation of their transport asks for, per transport; each runs until the test ends. */
export const MOVING_CLIENTS: Readonly<Record<string, (options: MovingClientOptions) => MovingClient>> = {
  'raw WebSocket': (options) => rawClient(options, '/ws/secure'),
  'MCP over WebSocket': (options) => rawClient(options, '/ws/mcp'),
  'Socket.IO over WebSocket': (options) => socketIoClient(options, 'websocket'),
  'Socket.IO over long polling': (options) => socketIoClient(options, 'polling'),
  'MCP over HTTP': httpMcpClient,
};

class Presence implements MovingClient {
  readonly absences: Absence[] = [];
  connected = false;
  #lostAt: number | undefined;
  retryAfterMs: number | undefined;

  lost(): void {
    this.connected = false;
    this.#lostAt ??= performance.now();
  }

  back(): void {
    this.connected = true;
    if (this.#lostAt === undefined) return;
    const { retryAfterMs } = this;
    this.absences.push({ lostAt: this.#lostAt, backAt: performance.now(), retryAfterMs });
    this.#lostAt = undefined;
    this.retryAfterMs = undefined;
  }
}

/** Returns a signal that aborts at the end of the test. */
function untilEndOfTest(): AbortSignal {
  const controller = new AbortController();
  closeAfter('test', () => controller.abort());
  return controller.signal;
}

/** Waits for `retry_after_ms`, or for the `Retry-After` of a refusal. */
function rawClient({ url, token }: MovingClientOptions, path: string): MovingClient {
  const presence = new Presence();
  const signal = untilEndOfTest();
  const live = async () => {
    while (!signal.aborted) {
      // Closed by the signal: at the end of a test its clients close before the signal aborts, and would reconnect.
      const client = await openClient({ url, path, token, lifetime: 'file' });
      signal.addEventListener('abort', () => void client.close(), { once: true });
      if (signal.aborted) return void client.close();
      if (client.refusal) {
        await delay(Number(client.refusal.headers?.['retry-after'] ?? 1) * 1_000);
        continue;
      }
      await client.welcome();
      presence.back();
      const draining = client.waitFor('server_draining', { timeoutMs: FOREVER_MS });
      const waitMs = await draining.then(
        ({ fields }) => Number(fields.retry_after_ms),
        () => undefined,
      );
      await client.closed;
      if (signal.aborted) return;
      presence.lost();
      presence.retryAfterMs = waitMs;
      await delay(waitMs ?? 0);
    }
  };
  live().catch(() => undefined);
  return presence;
}

/** The client of socket.io-client with its own delays: it does not read `retry_after_ms`. */
function socketIoClient(
  { url, token, sendsEveryMs }: MovingClientOptions,
  transport: 'websocket' | 'polling',
): MovingClient {
  const presence = new Presence();
  const socket = io(url, { auth: { token }, transports: [transport], withCredentials: true, forceNew: true });
  closeAfter('test', () => void socket.disconnect());
  socket.on('connection_established', () => presence.back());
  socket.on('server_draining', ({ retry_after_ms }: { retry_after_ms: number }) => {
    presence.retryAfterMs = retry_after_ms;
  });
  socket.on('disconnect', () => presence.lost());
  if (sendsEveryMs === undefined) return presence;
  const timer = setInterval(() => socket.connected && socket.emit('ping', {}), sendsEveryMs);
  closeAfter('test', () => clearInterval(timer));
  return presence;
}

/** Sends requests on its node's cookie, and waits for the `Retry-After` of a refusal. */
function httpMcpClient({ url, token }: MovingClientOptions): MovingClient {
  const presence = new Presence();
  const signal = untilEndOfTest();
  let cookie: string | undefined;
  const live = async () => {
    while (!signal.aborted) {
      const ping = { jsonrpc: '2.0', id: 1, method: 'ping' };
      const sent = postMcp(ping, { url, token, headers: { 'mcp-protocol-version': LEGACY, cookie } });
      const answer = await sent.catch(() => undefined);
      cookie = answer?.headers.get('set-cookie')?.split(';')[0] ?? cookie;
      const waitMs = Number(answer?.headers.get('retry-after') ?? 0) * 1_000;
      if (answer?.status === 200) presence.back();
      else {
        presence.lost();
        presence.retryAfterMs ??= waitMs;
      }
      await delay(waitMs || MCP_REQUEST_EVERY_MS);
    }
  };
  live().catch(() => undefined);
  return presence;
}
