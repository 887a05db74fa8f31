import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { createShardedAdapter } from '@socket.io/redis-adapter';
import { Server as Engine } from 'engine.io';
import { Server, type Socket } from 'socket.io';
import type { Authenticator } from '../auth/authenticator.ts';
import { Connection, type ConnectionDeps } from '../connections/connection.ts';
import { publicError, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { originAllowed, presented, resumePoint } from './handshake.ts';
import { SocketIoTransport } from './socket-io-transport.ts';

export const SOCKET_IO_PATH = '/socket.io/';

/** One HTTP body or frame of Engine.IO; the message limit is asked for each message besides. */
const MAX_PACKET_BYTES = 64 * 1024;
/** From the engine's open to the CONNECT of the namespace. */
const CONNECT_TIMEOUT_MS = 8_000;

/** Engine.IO's own defaults, where the configured heartbeat is not shorter. */
const PING_INTERVAL_MS = 25_000;
const PING_TIMEOUT_MS = 20_000;

export interface SocketIoDeps extends ConnectionDeps {
  readonly authenticator: Authenticator;
  /** For the adapter, which serves Socket.IO's own cluster operations; no event of ours travels through it. */
  readonly adapter: { readonly publisher: Redis; readonly subscriber: Redis; readonly channelPrefix: string };
}

interface Admitted {
  readonly connection: Connection;
  readonly transport: SocketIoTransport;
}

/** The Socket.IO endpoint: WebSocket first, long polling too, one namespace, events by name. */
export class SocketIo {
  readonly #deps: SocketIoDeps;
  readonly #engine: Engine;
  readonly #io: Server;
  readonly #connections = new WeakMap<Socket, Admitted>();
  /** Engines with a session: a second CONNECT on one would be a second connection of the same client. */
  readonly #engines = new WeakSet<Socket['conn']>();

  constructor(deps: SocketIoDeps, { allowedOrigins }: { readonly allowedOrigins: readonly string[] }) {
    this.#deps = deps;
    const { heartbeatMs, silenceMs } = deps.limits;
    const pingInterval = Math.min(PING_INTERVAL_MS, heartbeatMs);
    this.#engine = new Engine({
      transports: ['websocket', 'polling'],
      maxHttpBufferSize: MAX_PACKET_BYTES,
      allowEIO3: false,
      perMessageDeflate: false,
      httpCompression: false,
      pingInterval,
      pingTimeout: Math.min(PING_TIMEOUT_MS, silenceMs - pingInterval),
      cors: { origin: [...allowedOrigins], credentials: true },
      allowRequest: (request, decide) => {
        // CORS does not stop a WebSocket, nor a request whose answer the page need not read: the origin is asked here.
        decide(null, originAllowed(request.headers.origin, allowedOrigins));
      },
    });
    this.#io = new Server({
      connectTimeout: CONNECT_TIMEOUT_MS,
      serveClient: false,
      adapter: createShardedAdapter(deps.adapter.publisher, deps.adapter.subscriber, {
        channelPrefix: deps.adapter.channelPrefix,
      }),
    });
    this.#io.bind(this.#engine);
    this.#io.use((socket, next) => void this.#admit(socket, next));
    this.#io.on('connection', (socket) => this.#connected(socket));
  }

  /** Takes a long-polling request. */
  handleRequest(request: IncomingMessage, response: ServerResponse): void {
    this.#engine.handleRequest(request as Parameters<Engine['handleRequest']>[0], response);
  }

  /** Takes an upgrade whose path and origin have been checked. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#engine.handleUpgrade(request as Parameters<Engine['handleUpgrade']>[0], socket, head);
  }

  async close(): Promise<void> {
    await this.#io.close();
  }

  /** Authenticates and admits before Socket.IO says that the client is connected. */
  async #admit(socket: Socket, next: (error?: Error) => void): Promise<void> {
    const { authenticator, clock } = this.#deps;
    if (this.#engines.has(socket.conn)) return void socket.conn.close();
    this.#engines.add(socket.conn);
    const transport = new SocketIoTransport({ socket, clock }, SOCKET_IO_PATH);
    const connection = new Connection(this.#deps, transport);
    this.#connections.set(socket, { connection, transport });
    // The engine's end, since a socket that never got connected has no `disconnect`.
    socket.conn.once('close', () => connection.gone());
    socket.conn.on('packet', ({ type, data }: { type: string; data?: unknown }) => {
      if (type === 'pong') connection.alive();
      else if (typeof data === 'string' || Buffer.isBuffer(data)) transport.received(Buffer.byteLength(data));
    });
    // Whatever the client put into CONNECT: nothing says that it is an object.
    const { token, after, epoch }: Fields = isFields(socket.handshake.auth) ? socket.handshake.auth : {};
    const identify = () => authenticator.handshake({ ...presented(socket.request), handshakeToken: token });
    try {
      const resumeFrom = resumePoint(after, epoch);
      await connection.begin(identify, { identityRequired: true, resumeFrom, writable: transport.writable });
    } catch (error) {
      connection.close(toTollgateError(error));
    }
    if (!connection.closed) return next();
    const { refusal } = transport;
    next(Object.assign(new Error(refusal.message), { data: publicError(refusal) }));
    // After the CONNECT_ERROR has been written; a refused client must not keep an engine for 45 seconds.
    setImmediate(() => socket.conn.close());
  }

  #connected(socket: Socket): void {
    const admitted = this.#connections.get(socket);
    if (!admitted) return;
    const { connection, transport } = admitted;
    // The engine would keep the request of the handshake, with its headers, for as long as the session lives.
    (socket.conn as { request: unknown }).request = null;
    socket.on('disconnect', () => {
      connection.gone();
      socket.conn.close();
    });
    socket.onAny((name: string, ...args: unknown[]) => this.#received(admitted, name, args));
    transport.connected();
  }

  /** Runs in a turn of its own, where whatever it throws would end the process. */
  #received({ connection, transport }: Admitted, name: string, args: unknown[]): void {
    const last = args.at(-1);
    const replyTo = typeof last === 'function' ? { ack: last as (reply: Fields) => void } : undefined;
    try {
      // The protocol allows numbers as names of events.
      if (typeof name !== 'string') throw new TollgateError('INVALID_MESSAGE');
      const fields = this.#checked(transport, replyTo && args.length === 1 ? {} : (args[0] ?? {}));
      connection.receive({ name, fields, replyTo });
    } catch (error) {
      connection.reject(toTollgateError(error), replyTo);
    }
  }

  /** @throws TollgateError MESSAGE_TOO_LARGE, INVALID_MESSAGE */
  #checked(transport: SocketIoTransport, fields: unknown): Fields {
    const { maxMessageBytes } = this.#deps.limits;
    const size = transport.sizeAbove(maxMessageBytes, fields);
    if (size !== undefined) {
      throw new TollgateError('MESSAGE_TOO_LARGE', { fields: { max_message_size: maxMessageBytes, size } });
    }
    if (isFields(fields)) return fields;
    throw new TollgateError('INVALID_MESSAGE', { text: 'The data of an event must be one JSON object.' });
  }
}

/** Whether a request opens a session; those of open ones name it. */
export function isHandshake(request: IncomingMessage): boolean {
  return !/[?&]sid=[^&]/.test(request.url ?? '');
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}
