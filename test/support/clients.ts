import type { IncomingHttpHeaders } from 'node:http';
import { io, type Socket } from 'socket.io-client';
import { WebSocket } from 'ws';
import { BufferedEvents, type EventMatcher, type ReceivedEvent, type WaitOptions } from './buffered-events.ts';
import { closeAfter, type Lifetime } from './open-resources.ts';
import { stack } from './stack.ts';
import { decodeFrame, encodeFrame, type WireFormat } from './wire-format.ts';

export type { ReceivedEvent } from './buffered-events.ts';

export const TRANSPORTS = ['ws', 'socketio'] as const;
export type TransportName = (typeof TRANSPORTS)[number];

const OPEN_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 3_000;

export interface ClientOptions {
  readonly transport?: TransportName;
  /** An http URL; the first gateway of the shared stack by default. */
  readonly url?: string;
  /** Raw WebSocket only; `/ws/secure` by default. The path determines the dialect. */
  readonly path?: string;
  /** Presented in the form of the transport: the Authorization header, or Socket.IO's `auth.token`. */
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly protocols?: readonly string[];
  readonly query?: Readonly<Record<string, string>>;
  /** Socket.IO only: further fields of `auth`. */
  readonly auth?: Readonly<Record<string, unknown>>;
  /** Socket.IO only: e.g. `['polling', 'websocket']`. */
  readonly socketIoTransports?: readonly ('polling' | 'websocket')[];
  /** Socket.IO only: delay of a reconnect after a loss, ms; no reconnect by default. */
  readonly reconnectAfterMs?: number;
  /** The encoding of sent messages, if it differs from that of the path. */
  readonly format?: WireFormat;
  /** Until the end of the test by default; `file` for a client opened in `beforeAll`. */
  readonly lifetime?: Lifetime;
}

/** Why a connection failed: the HTTP response to the upgrade, or the data of Socket.IO's `connect_error`. */
export interface Refusal {
  readonly message: string;
  readonly status?: number;
  readonly headers?: IncomingHttpHeaders;
  readonly body?: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

export interface Closed {
  /** The WebSocket close code; undefined if Socket.IO ended the connection with a packet. */
  readonly code: number | undefined;
  readonly reason: string;
}

/** The transport-specific part of a client. */
interface Wire {
  send(type: string, fields: Record<string, unknown>): void;
  sendRaw(data: string | Buffer): void;
  /** Sends, and resolves with the reply that the protocol ties to the message. */
  call(type: string, fields: Record<string, unknown>, timeoutMs: number): Promise<unknown>;
  close(): void;
  terminate(): void;
}

/** A client over raw WebSocket or Socket.IO: opening → open → closed, or opening → refused. */
export class TestClient {
  /** Resolves when the connection has ended completely, also for refused ones. */
  readonly closed: Promise<Closed>;
  /** Set if the connection was refused; such a client never was open. */
  refusal: Refusal | undefined;
  /** The subprotocol that the server selected; empty without one. */
  protocol = '';
  readonly #events = new BufferedEvents();
  readonly #opened: Promise<void>;
  readonly #wire: Wire;
  #resolveOpened: () => void = () => {};
  #resolveClosed: (closed: Closed) => void = () => {};

  constructor(connect: (client: TestClient) => Wire) {
    this.#opened = new Promise((resolve) => {
      this.#resolveOpened = resolve;
    });
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#wire = connect(this);
  }

  get events(): readonly ReceivedEvent[] {
    return this.#events.all;
  }

  /** Returns the current position in `events`, for the option `from` of `waitFor`. */
  mark(): number {
    return this.#events.all.length;
  }

  /** Resolves with the fields of the welcome. */
  async welcome(): Promise<ReceivedEvent['fields']> {
    return (await this.waitFor('connection_established')).fields;
  }

  /** Resolves with the first event of that type or that matches, buffered or future. */
  waitFor(matcher: EventMatcher, options?: WaitOptions): Promise<ReceivedEvent> {
    return this.#events.waitFor(matcher, options);
  }

  send(type: string, fields: Record<string, unknown> = {}): void {
    this.#wire.send(type, fields);
  }

  /** Sends these bytes as one frame; raw WebSocket only. */
  sendRaw(data: string | Buffer): void {
    this.#wire.sendRaw(data);
  }

  /** Sends with an acknowledgement (Socket.IO) or an id (JSON-RPC) and resolves with the reply. */
  call(type: string, fields: Record<string, unknown> = {}, timeoutMs = 5_000): Promise<unknown> {
    return this.#wire.call(type, fields, timeoutMs);
  }

  /** Closes with a close handshake, and resolves when the connection has ended. */
  async close(): Promise<void> {
    this.#wire.close();
    const timer = setTimeout(() => this.#wire.terminate(), CLOSE_TIMEOUT_MS);
    await this.closed;
    clearTimeout(timer);
  }

  /** Drops the connection without a close handshake, like a lost network. */
  terminate(): void {
    this.#wire.terminate();
  }

  /** Resolves when the connection is open or refused. */
  async settled(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`neither open nor refused after ${OPEN_TIMEOUT_MS} ms`)),
        OPEN_TIMEOUT_MS,
      );
    });
    await Promise.race([this.#opened, late]).finally(() => clearTimeout(timer));
  }

  onOpen(protocol: string): void {
    this.protocol = protocol;
    this.#resolveOpened();
  }

  onEvent(event: Omit<ReceivedEvent, 'at'>): void {
    this.#events.push({ ...event, at: performance.now() });
  }

  onRefused(refusal: Refusal): void {
    this.refusal ??= refusal;
    this.#events.end(
      `the connection was refused: ${refusal.message} ${refusal.body ?? JSON.stringify(refusal.data ?? {})}`,
    );
    this.#resolveOpened();
  }

  onClosed(closed: Closed): void {
    this.#events.end(`the connection was closed with ${closed.code} ${closed.reason}`);
    this.#resolveClosed(closed);
  }
}

/** Opens a connection; resolves when it is open, and also when it was refused (see `refusal`). */
export async function openClient(options: ClientOptions = {}): Promise<TestClient> {
  const { transport = 'ws', lifetime = 'test' } = options;
  const client = new TestClient((self) => (transport === 'ws' ? webSocketWire : socketIoWire)(self, options));
  closeAfter(lifetime, () => client.close());
  await client.settled();
  return client;
}

function firstGateway(): string {
  const [gateway] = stack().gateways;
  if (!gateway) throw new Error('the stack has no gateway');
  return gateway.url;
}

function formatOf(path: string): WireFormat {
  if (path === '/ws') return 'flat';
  return path.startsWith('/ws/mcp') ? 'jsonrpc' : 'envelope';
}

function webSocketWire(client: TestClient, options: ClientOptions): Wire {
  const { path = '/ws/secure', token, headers = {}, protocols = [], query } = options;
  const url = new URL(path, (options.url ?? firstGateway()).replace(/^http/, 'ws'));
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
  const format = options.format ?? formatOf(url.pathname);
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const socket = new WebSocket(url, [...protocols], { headers: { ...authorization, ...headers } });
  let isOpen = false;
  let lastId = 0;
  socket.on('open', () => {
    isOpen = true;
    client.onOpen(socket.protocol);
  });
  socket.on('message', (data, isBinary) => {
    client.onEvent(isBinary ? { type: 'binary', fields: { data } } : decodeFrame(data.toString()));
  });
  socket.on('unexpected-response', (request, response) => {
    let body = '';
    response.setEncoding('utf8').on('data', (text: string) => {
      body += text;
    });
    response.on('end', () => {
      const { statusCode: status, headers: answered } = response;
      client.onRefused({ message: `HTTP ${status}`, status, headers: answered, body });
      request.destroy();
      client.onClosed({ code: undefined, reason: `HTTP ${status}` });
    });
  });
  // For an open connection that breaks, 'close' follows.
  socket.on('error', (error) => {
    if (!isOpen) client.onRefused({ message: error.message });
  });
  socket.on('close', (code, reason) => client.onClosed({ code, reason: reason.toString() }));
  const send = (type: string, fields: Record<string, unknown>, id?: number) =>
    socket.send(encodeFrame(format, type, fields, id));
  return {
    send,
    sendRaw: (data) => socket.send(data),
    async call(type, fields, timeoutMs) {
      if (format !== 'jsonrpc') throw new Error('only JSON-RPC and Socket.IO tie an answer to a message');
      lastId += 1;
      const id = lastId;
      send(type, fields, id);
      return client.waitFor((event) => event.rpcId === id, { timeoutMs, label: `the answer to ${type}` });
    },
    close: () => socket.close(),
    terminate: () => socket.terminate(),
  };
}

function socketIoWire(client: TestClient, options: ClientOptions): Wire {
  const { token, auth, headers, query, protocols, socketIoTransports = ['websocket'] } = options;
  const socket: Socket = io(options.url ?? firstGateway(), {
    auth: { ...(token === undefined ? {} : { token }), ...auth },
    transports: [...socketIoTransports],
    reconnection: options.reconnectAfterMs !== undefined,
    reconnectionDelay: options.reconnectAfterMs ?? 0,
    randomizationFactor: 0,
    forceNew: true,
    ...(headers ? { extraHeaders: { ...headers } } : {}),
    ...(query ? { query: { ...query } } : {}),
    ...(protocols ? { protocols: [...protocols] } : {}),
  });
  let isEngineOpen = false;
  socket.io.on('open', () => {
    isEngineOpen = true;
    socket.io.engine.on('close', (reason, details) => {
      // Deferred: the socket reports its more precise reason only after its engine has closed.
      setImmediate(() => client.onClosed({ code: closeCodeOf(details), reason: lastReason ?? reason }));
    });
  });
  let lastReason: string | undefined;
  socket.on('disconnect', (reason) => {
    lastReason = reason;
  });
  socket.on('connect', () => client.onOpen(''));
  socket.onAny((type: string, fields: unknown) => client.onEvent({ type, fields: asFields(fields) }));
  socket.on('connect_error', (error) => {
    client.onRefused(socketIoRefusal(error));
    if (!isEngineOpen) client.onClosed({ code: undefined, reason: error.message });
  });
  return {
    send: (type, fields) => void socket.emit(type, fields),
    sendRaw: () => {
      throw new Error('Socket.IO has frames of its own; use a raw socket');
    },
    call: (type, fields, timeoutMs) => socket.timeout(timeoutMs).emitWithAck(type, fields),
    close: () => void socket.disconnect(),
    terminate: () => void socket.io.engine.close(),
  };
}

function closeCodeOf(details: unknown): number | undefined {
  const { code } = asFields(asFields(details).context);
  return typeof code === 'number' ? code : undefined;
}

/** Engine errors carry the HTTP response, if any, in a form per transport; server errors carry `data`. */
function socketIoRefusal(error: Error): Refusal {
  const { data, description, context } = error as { data?: unknown; description?: unknown; context?: unknown };
  const text = asFields(description).message;
  const status = typeof description === 'number' ? description : Number(/response: (\d{3})/.exec(String(text))?.[1]);
  const body = asFields(context).responseText;
  return {
    message: error.message,
    ...(data === undefined ? {} : { data: asFields(data) }),
    ...(Number.isInteger(status) && status >= 100 ? { status } : {}),
    ...(typeof body === 'string' ? { body } : {}),
  };
}

function asFields(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : { value };
}
