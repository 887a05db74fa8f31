import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { createShardedAdapter } from '@socket.io/redis-adapter';
import { Server as Engine } from 'engine.io';
import { Server, type Socket } from 'socket.io';
import type { Authenticator } from '../auth/authenticator.ts';
import { Connection, type ConnectionDeps } from '../connections/connection.ts';
import { UNAUTHENTICATED_BYTES } from '../connections/limits.ts';
import { leftUntil, sleep } from '../lib/clock.ts';
import type { LongTasks } from '../policy/long-tasks.ts';
import { publicError, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { BoundedWebSocketServer, CLOSE_PATIENCE_MS, MAX_FRAME_BYTES } from './bounded-websockets.ts';
import type { Door, Visit } from './door.ts';
import { type EngineSocket, endEngine, internals, isForeign, packetBytes } from './engines.ts';
import { originAllowed, presented, requestUrl, resumePoint } from './handshake.ts';
import { refuseRequest, refuseUpgrade } from './refusals.ts';
import { SocketIoTransport } from './socket-io-transport.ts';

export const SOCKET_IO_PATH = '/socket.io/';

/** From the engine's open until it has authenticated, where `AUTH_DEADLINE_SECONDS` is not shorter. */
const CONNECT_TIMEOUT_MS = 8_000;

/** Engine.IO's own defaults, where the configured heartbeat is not shorter. */
const PING_INTERVAL_MS = 25_000;
const PING_TIMEOUT_MS = 20_000;

/** Engine.IO's codes of an unknown transport, a wrong method, a bad request and another version of the protocol. */
const MALFORMED: readonly number[] = [0, 2, 3, 5];

/** How often sessions that end are counted. */
const LOOK_AGAIN_MS = 50;

export interface SocketIoDeps extends ConnectionDeps {
  readonly authenticator: Authenticator;
  readonly door: Pick<Door, 'addressOf' | 'enter' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'watch'>;
  /** For the adapter, which serves Socket.IO's own cluster operations; no event of ours travels through it. */
  readonly adapter: { readonly publisher: Redis; readonly subscriber: Redis; readonly channelPrefix: string };
}

interface Admitted {
  readonly connection: Connection;
  readonly transport: SocketIoTransport;
}

/** An engine, from its open on. */
interface Guest {
  readonly visit: Visit;
  /** Since its CONNECT: a second one would be a second connection of the same client. */
  admitted: Admitted | undefined;
  /** Before authentication. */
  bytes: number;
}

/** The Socket.IO endpoint: WebSocket first, long polling too, one namespace, events by name. */
export class SocketIo {
  readonly #deps: SocketIoDeps;
  readonly #engine: Engine;
  readonly #io: Server;
  readonly #allowedOrigins: readonly string[];
  /** By the request that asks for an engine, until there is one. */
  readonly #visits = new WeakMap<IncomingMessage, Visit>();
  readonly #guests = new WeakMap<EngineSocket, Guest>();

  constructor(deps: SocketIoDeps, { allowedOrigins }: { readonly allowedOrigins: readonly string[] }) {
    this.#deps = deps;
    this.#allowedOrigins = allowedOrigins;
    const { heartbeatMs, silenceMs } = deps.limits;
    const pingInterval = Math.min(PING_INTERVAL_MS, heartbeatMs);
    this.#engine = new Engine({
      transports: ['websocket', 'polling'],
      // What Engine.IO would give it is among the bounds.
      wsEngine: class extends BoundedWebSocketServer {
        constructor() {
          super(deps);
        }
      },
      maxHttpBufferSize: MAX_FRAME_BYTES,
      allowEIO3: false,
      perMessageDeflate: false,
      httpCompression: false,
      upgradeTimeout: CONNECT_TIMEOUT_MS,
      pingInterval,
      pingTimeout: Math.min(PING_TIMEOUT_MS, silenceMs - pingInterval),
      // In a list, `*` would be the name of an origin.
      cors: { origin: allowedOrigins.includes('*') || [...allowedOrigins], credentials: true },
      allowRequest: (request, decide) => this.#mayOpen(request, decide),
    });
    // Requests that Engine.IO refuses itself. An unknown session is one of a node that was restarted.
    this.#engine.on('connection_error', ({ req, code }: { req: IncomingMessage; code: number }) => {
      if (MALFORMED.includes(code)) deps.door.refused(req, { code: 'FORMAT_ERROR' });
    });
    this.#engine.on('connection', (engine: EngineSocket) => this.#opened(engine));
    this.#io = new Server({
      // Ours comes first, and says why.
      connectTimeout: CONNECT_TIMEOUT_MS + CLOSE_PATIENCE_MS,
      serveClient: false,
      adapter: createShardedAdapter(deps.adapter.publisher, withoutRejections(deps.adapter.subscriber), {
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
    // Engine.IO decodes the packets of a body once all of it is there.
    const address = () => this.#deps.door.addressOf(request);
    this.#deps.longTasks.watch(request, 'end', { surface: 'polling', address });
  }

  /** Takes an upgrade whose path and origin have been checked. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#engine.handleUpgrade(request as Parameters<Engine['handleUpgrade']>[0], socket, head);
  }

  /** Resolves when every session has ended, its last packets fetched where it polls, or after `patienceMs`. */
  async ended(patienceMs: number): Promise<void> {
    const { clock } = this.#deps;
    const giveUpAt = clock.now() + patienceMs;
    while (this.#engine.clientsCount > 0 && leftUntil(clock, giveUpAt, patienceMs) > 0) {
      await sleep(clock, LOOK_AGAIN_MS);
    }
  }

  async close(): Promise<void> {
    await this.#io.close();
  }

  /** Asked by Engine.IO for each request that would open a session, and for no other. */
  #mayOpen(request: IncomingMessage, decide: (error: null, allowed: boolean) => void): void {
    // CORS does not stop a WebSocket, nor a request whose answer the page need not read: the origin is asked here.
    if (!originAllowed(request.headers.origin, this.#allowedOrigins)) return decide(null, false);
    // Engine.IO puts it there for long polling only.
    const { res: response } = request as { res?: ServerResponse };
    try {
      const visit = this.#deps.door.enter(request, SOCKET_IO_PATH);
      this.#visits.set(request, visit);
      // A session over a WebSocket ends with it; one over long polling outlives its requests, once it is open.
      if (!response) request.socket.once('close', visit.leave);
      else response.once('close', () => this.#visits.has(request) && visit.leave());
    } catch (thrown) {
      const error = toTollgateError(thrown);
      // Engine.IO would say 400 or 403, and not when to come back.
      return response ? refuseRequest(response, error) : refuseUpgrade(request.socket, error);
    }
    decide(null, true);
  }

  #opened(engine: EngineSocket): void {
    const { clock, limits } = this.#deps;
    const { request } = engine as unknown as { readonly request: IncomingMessage };
    const visit = this.#visits.get(request);
    if (!visit) return void engine.close(true);
    this.#visits.delete(request);
    const guest: Guest = { visit, admitted: undefined, bytes: 0 };
    this.#guests.set(engine, guest);
    const isPolling = internals(engine).transport.socket === undefined;
    const cancel = clock.after(Math.min(CONNECT_TIMEOUT_MS, limits.authDeadlineMs), () => this.#expired(engine, guest));
    engine.once('close', () => {
      cancel();
      // A WebSocket is there until it is closed, which may be later.
      if (isPolling) visit.leave();
      // The engine's end, since a socket that never got connected has no `disconnect`.
      guest.admitted?.connection.gone();
    });
    engine.on('packet', (packet: { type: string; data?: unknown }) => this.#packet(engine, guest, packet));
  }

  /** The time for authentication is over: from the engine's open, whatever it sent. */
  #expired(engine: EngineSocket, { admitted }: Guest): void {
    if (admitted?.connection.session) return;
    if (admitted) admitted.connection.close(new TollgateError('AUTH_TIMEOUT'));
    else endEngine(engine, this.#deps);
  }

  #packet(engine: EngineSocket, guest: Guest, { type, data }: { type: string; data?: unknown }): void {
    const { admitted } = guest;
    if (type === 'pong') return admitted?.connection.alive();
    const bytes = packetBytes(data);
    admitted?.transport.received(bytes);
    if (!admitted?.connection.session) guest.bytes += bytes;
    // Socket.IO gets its turn first: a refused namespace is answered.
    if (guest.bytes > UNAUTHENTICATED_BYTES || isForeign(data)) setImmediate(() => endEngine(engine, this.#deps));
  }

  /** Authenticates and admits before Socket.IO says that the client is connected. */
  async #admit(socket: Socket, next: (error?: Error) => void): Promise<void> {
    const guest = this.#guests.get(socket.conn);
    if (!guest || guest.admitted) return endEngine(socket.conn, this.#deps);
    const transport = new SocketIoTransport({ ...this.#deps, socket }, SOCKET_IO_PATH);
    const connection = new Connection(this.#deps, transport, guest.visit);
    guest.admitted = { connection, transport };
    // Whatever the client put into CONNECT: nothing says that it is an object.
    const { token, after, epoch }: Fields = isFields(socket.handshake.auth) ? socket.handshake.auth : {};
    try {
      const resumeFrom = resumePoint(after, epoch);
      const opening = { identityRequired: true, resumeFrom, writable: transport.writable };
      const begun = connection.begin(() => this.#identify(socket, token), opening);
      await Promise.race([begun, transport.refused]);
    } catch (error) {
      connection.close(toTollgateError(error));
    }
    if (!connection.closed) return next();
    const { refusal } = transport;
    next(Object.assign(new Error(refusal.message), { data: publicError(refusal) }));
    // After the CONNECT_ERROR has been written; a refused client must not keep an engine for 45 seconds.
    setImmediate(() => endEngine(socket.conn, this.#deps));
  }

  /** @throws TollgateError of the authentication rows */
  async #identify(socket: Socket, handshakeToken: unknown): Promise<Identity> {
    const identity = await this.#deps.authenticator.handshake({ ...presented(socket.request), handshakeToken });
    if (!identity) throw new TollgateError('NO_TOKEN');
    return identity;
  }

  #connected(socket: Socket): void {
    const admitted = this.#guests.get(socket.conn)?.admitted;
    if (!admitted) return;
    const { connection, transport } = admitted;
    // The engine would keep the request of the handshake, with its headers, for as long as the session lives.
    (socket.conn as { request: unknown }).request = null;
    socket.on('disconnect', () => {
      connection.gone();
      endEngine(socket.conn, this.#deps);
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

/** Whether a request opens a session; those of open ones name it. Read as Engine.IO does: the last `sid` counts. */
export function isHandshake(request: IncomingMessage): boolean {
  return !requestUrl(request)?.searchParams.getAll('sid').at(-1);
}

/**
 * The adapter leaves its promises to themselves. One whose shard is away would end the process; what was asked for is
 * restored with the connection.
 */
function withoutRejections(subscriber: Redis) {
  const settled = (work: Promise<unknown>) => work.catch(() => undefined);
  return {
    ssubscribe: (channel: string) => settled(subscriber.ssubscribe(channel)),
    sunsubscribe: (channels: string | string[]) => settled(subscriber.sunsubscribe(...[channels].flat())),
    on: (event: 'smessageBuffer', listener: (channel: Buffer, message: Buffer) => void) => {
      subscriber.on(event, listener);
    },
  };
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}
