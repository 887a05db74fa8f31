import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { createShardedAdapter } from '@socket.io/redis-adapter';
import { Server as Engine } from 'engine.io';
import { Server, type Socket } from 'socket.io';
import type { Authenticator } from '../auth/authenticator.ts';
import { Connection, type ConnectionDeps } from '../connections/connection.ts';
import { UNAUTHENTICATED_BYTES, UNAUTHENTICATED_MESSAGES } from '../connections/limits.ts';
import { remainingUntil, sleep } from '../lib/clock.ts';
import type { LongTasks } from '../limits/long-tasks.ts';
import { publicError, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { BEYOND_BOUNDS, boundedParser } from './bounded-parser.ts';
import {
  BoundedWebSocketServer,
  CLOSE_TIMEOUT_MS,
  ControlFrameLimiter,
  MAX_CHUNKS,
  MAX_FRAME_BYTES,
} from './bounded-websockets.ts';
import type { ConnectionGuard, GuardedConnection } from './connection-guard.ts';
import { checkQuery, sessionId } from './engine-requests.ts';
import {
  boundPayloads,
  boundProbes,
  EngineCloser,
  type EnginePacket,
  type EngineSocket,
  ignorePackets,
  internals,
  isConnect,
  isForeign,
  packetBytes,
} from './engines.ts';
import { originAllowed, presentedCredentials, resumePoint } from './handshake-request.ts';
import { refuseRequest, refuseUpgrade } from './refusals.ts';
import { isCrossSite, SessionBinding } from './session-binding.ts';
import { SocketIoTransport } from './socket-io-transport.ts';

export const SOCKET_IO_PATH = '/socket.io/';

/** From the engine's open until it has authenticated, where `AUTH_DEADLINE_SECONDS` is not shorter. */
const CONNECT_TIMEOUT_MS = 8_000;

/** Engine.IO's own defaults, where the configured heartbeat is not shorter. */
const PING_INTERVAL_MS = 25_000;
const PING_TIMEOUT_MS = 20_000;

/** Engine.IO's codes of an unknown transport, a wrong method, a bad request and another version of the protocol. */
const MALFORMED: readonly number[] = [0, 2, 3, 5];

/** Packets of one polling POST after authentication: more than the messages that a connection may have waiting. */
const PACKETS_PER_PAYLOAD = 1_024;

/**
 * Of a polling POST: options of Engine.IO 6.6.13 and later. The time runs from the head of the request to the end of its body,
 * milliseconds; Node's own limit on a request is three times as long.
 */
const POLLING_BOUNDS = { maxBufferedChunks: MAX_CHUNKS, httpRequestBodyTimeout: 10_000 };

/** How often sessions that end are counted. */
const POLL_MS = 50;

export interface SocketIoDeps extends ConnectionDeps {
  readonly authenticator: Authenticator;
  readonly guard: Pick<ConnectionGuard, 'addressOf' | 'register' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'watch' | 'watchNext'>;
  /** For the adapter, which serves Socket.IO's own cluster operations; no event of ours travels through it. */
  readonly adapter: { readonly publisher: Redis; readonly subscriber: Redis; readonly channelPrefix: string };
}

interface Admitted {
  readonly connection: Connection;
  readonly transport: SocketIoTransport;
}

/** An engine, from its open on. */
interface EngineState {
  readonly engine: EngineSocket;
  readonly pending: GuardedConnection;
  readonly binding: SessionBinding;
  readonly control: ControlFrameLimiter;
  /** Since its CONNECT: a second one would be a second connection of the same client. */
  admitted: Admitted | undefined;
  /** Before authentication. */
  bytes: number;
  /** Before authentication. */
  packets: number;
  hasConnected: boolean;
  /** Its packets are no longer looked at; the engine is about to be closed. */
  refused: boolean;
}

/** The Socket.IO endpoint: WebSocket first, long polling too, one namespace, events by name. */
export class SocketIo {
  readonly #deps: SocketIoDeps;
  readonly #engine: Engine;
  readonly #io: Server;
  readonly #allowedOrigins: readonly string[];
  /** By the request that asks for an engine, until there is one. */
  readonly #pendingByRequest = new WeakMap<IncomingMessage, GuardedConnection>();
  /** By session id, until the engine is closed. */
  readonly #states = new Map<string, EngineState>();
  readonly #closer: EngineCloser;

  constructor(deps: SocketIoDeps, { allowedOrigins }: { readonly allowedOrigins: readonly string[] }) {
    this.#deps = deps;
    this.#allowedOrigins = allowedOrigins;
    this.#closer = new EngineCloser(deps);
    const { heartbeatMs, idleTimeoutMs } = deps.limits;
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
      ...POLLING_BOUNDS,
      allowEIO3: false,
      perMessageDeflate: false,
      httpCompression: false,
      upgradeTimeout: CONNECT_TIMEOUT_MS,
      pingInterval,
      pingTimeout: Math.min(PING_TIMEOUT_MS, idleTimeoutMs - pingInterval),
      // In a list, `*` would be the name of an origin.
      cors: { origin: allowedOrigins.includes('*') || [...allowedOrigins], credentials: true },
      allowRequest: (request, decide) => this.#allowRequest(request, decide),
    });
    // Requests that Engine.IO refuses itself. An unknown session is one of a node that was restarted.
    this.#engine.on('connection_error', ({ req, code }: { req: IncomingMessage; code: number }) => {
      if (MALFORMED.includes(code)) deps.guard.refused(req, { code: 'FORMAT_ERROR' });
    });
    this.#engine.on('connection', (engine: EngineSocket) => this.#opened(engine));
    this.#io = new Server({
      // Ours comes first, and says why.
      connectTimeout: CONNECT_TIMEOUT_MS + CLOSE_TIMEOUT_MS,
      serveClient: false,
      parser: boundedParser,
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
    try {
      // Preflights name no credential; Engine.IO answers them by its CORS settings.
      if (request.method !== 'OPTIONS') this.#check(request, { isUpgrade: false });
    } catch (error) {
      const refusal = toTollgateError(error);
      this.#deps.guard.refused(request, refusal);
      return refuseRequest(response, refusal);
    }
    // Engine.IO decodes the packets of a body once all of it is there.
    const address = () => this.#deps.guard.addressOf(request);
    this.#deps.longTasks.watchNext(request, 'end', { surface: 'polling', address });
    this.#engine.handleRequest(request as Parameters<Engine['handleRequest']>[0], response);
  }

  /**
   * Takes an upgrade whose path, origin and form have been checked.
   * @throws TollgateError FORMAT_ERROR, ORIGIN_NOT_ALLOWED, CONFLICTING_CREDENTIALS
   */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#check(request, { isUpgrade: true });
    this.#engine.handleUpgrade(request as Parameters<Engine['handleUpgrade']>[0], socket, head);
  }

  /**
   * Refuses what Engine.IO would take or answer unreadably. An unknown session id is left to Engine.IO, whose answer its
   * clients know.
   * @throws TollgateError FORMAT_ERROR, UPGRADE_REQUIRED, ORIGIN_NOT_ALLOWED, CONFLICTING_CREDENTIALS
   */
  #check(request: IncomingMessage, { isUpgrade }: { readonly isUpgrade: boolean }): void {
    checkQuery(request, isUpgrade);
    if (!originAllowed(request.headers.origin, this.#allowedOrigins) || isCrossSite(request)) {
      throw new TollgateError('ORIGIN_NOT_ALLOWED');
    }
    const sid = sessionId(request);
    const state = sid === undefined ? undefined : this.#states.get(sid);
    if (isUpgrade && sid !== undefined && (!state || isWebSocket(state.engine))) {
      throw new TollgateError('FORMAT_ERROR', { text: 'There is no such session, or it has a WebSocket already.' });
    }
    state?.binding.check(request, { isUpgrade });
  }

  /** Resolves when every session has ended, its last packets fetched where it polls, or after `patienceMs`. */
  async ended(timeoutMs: number): Promise<void> {
    const { clock } = this.#deps;
    const deadlineAt = clock.now() + timeoutMs;
    while (this.#engine.clientsCount > 0 && remainingUntil(clock, deadlineAt, timeoutMs) > 0) {
      await sleep(clock, POLL_MS);
    }
  }

  async close(): Promise<void> {
    await this.#io.close();
  }

  /** Asked by Engine.IO for each request that would open a session, and for no other. */
  #allowRequest(request: IncomingMessage, decide: (error: null, allowed: boolean) => void): void {
    // CORS does not stop a WebSocket, nor a request whose answer the page need not read: the origin is asked here.
    if (!originAllowed(request.headers.origin, this.#allowedOrigins)) return decide(null, false);
    // Engine.IO puts it there for long polling only.
    const { res: response } = request as { res?: ServerResponse };
    try {
      const pending = this.#deps.guard.register(request, SOCKET_IO_PATH);
      this.#pendingByRequest.set(request, pending);
      // A session over a WebSocket ends with it; one over long polling outlives its requests, once it is open.
      if (!response) request.socket.once('close', pending.release);
      else response.once('close', () => this.#pendingByRequest.has(request) && pending.release());
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
    const pending = this.#pendingByRequest.get(request);
    if (!pending) return void engine.close(true);
    this.#pendingByRequest.delete(request);
    const { id } = internals(engine);
    const state: EngineState = {
      engine,
      pending,
      binding: new SessionBinding(request),
      control: new ControlFrameLimiter(clock),
      admitted: undefined,
      bytes: 0,
      packets: 0,
      hasConnected: false,
      refused: false,
    };
    this.#states.set(id, state);
    const isPolling = !isWebSocket(engine);
    const cancel = clock.after(Math.min(CONNECT_TIMEOUT_MS, limits.authDeadlineMs), () => this.#expired(state));
    engine.once('close', () => {
      cancel();
      this.#states.delete(id);
      // A WebSocket is there until it is closed, which may be later.
      if (isPolling) pending.release();
      // The engine's end, since a socket that never got connected has no `disconnect`.
      state.admitted?.connection.onClose();
    });
    const bound = () => (state.admitted?.connection.attachment ? PACKETS_PER_PAYLOAD : UNAUTHENTICATED_MESSAGES);
    boundPayloads(engine, bound, () => this.#refuse(state, new TollgateError('MESSAGE_TOO_LARGE')));
    boundProbes(engine);
    engine.on('packet', (packet: EnginePacket) => this.#packet(state, packet));
  }

  /** The time for authentication is over: from the engine's open, whatever it sent. */
  #expired({ engine, admitted }: EngineState): void {
    if (admitted?.connection.attachment) return;
    if (admitted) admitted.connection.close(new TollgateError('AUTH_TIMEOUT'));
    else this.#closer.close(engine);
  }

  #packet(state: EngineState, { type, data }: EnginePacket): void {
    const { admitted } = state;
    if (!admitted?.connection.attachment) {
      state.packets += 1;
      state.bytes += packetBytes(data);
      if (state.packets > UNAUTHENTICATED_MESSAGES || state.bytes > UNAUTHENTICATED_BYTES) return this.#refuse(state);
    }
    if (type !== 'message') {
      if (!state.control.allows()) return this.#refuse(state, new TollgateError('RATE_LIMITED'));
      return type === 'pong' ? admitted?.connection.markAlive() : undefined;
    }
    admitted?.transport.received(packetBytes(data));
    if (isForeign(data) || (isConnect(data) && state.hasConnected)) return this.#refuse(state);
    state.hasConnected ||= isConnect(data);
  }

  /**
   * Ends an engine whose client does what no client does, and counts it as a failed handshake if it has not
   * authenticated. Later packets, those of the same payload included, are dropped.
   * @param error what an authenticated client is told; without one the packet is answered by Socket.IO
   */
  #refuse(state: EngineState, error?: TollgateError): void {
    if (state.refused) return;
    state.refused = true;
    const { engine, pending, admitted } = state;
    ignorePackets(engine);
    if (!admitted?.connection.attachment) pending.recordRefusal(new TollgateError('NO_TOKEN'));
    else if (error) admitted.connection.close(error);
    // Socket.IO gets its turn first: a refused namespace is answered, and so is the POST that holds the packet.
    setImmediate(() => this.#closer.close(engine));
  }

  /** Authenticates and admits before Socket.IO says that the client is connected. */
  async #admit(socket: Socket, next: (error?: Error) => void): Promise<void> {
    const state = this.#states.get(internals(socket.conn).id);
    if (!state || state.admitted) return this.#closer.close(socket.conn);
    const transport = new SocketIoTransport({ clock: this.#deps.clock, closer: this.#closer, socket }, SOCKET_IO_PATH);
    const connection = new Connection(this.#deps, transport, state.pending);
    state.admitted = { connection, transport };
    // Whatever the client put into CONNECT: nothing says that it is an object.
    const { token, after, epoch }: Fields = isFields(socket.handshake.auth) ? socket.handshake.auth : {};
    try {
      const resumeFrom = resumePoint(after, epoch);
      const options = { identityRequired: true, resumeFrom, writable: transport.writable };
      const accepted = connection.accept(() => this.#authenticate(socket, token), options);
      await Promise.race([accepted, transport.refused]);
    } catch (error) {
      connection.close(toTollgateError(error));
    }
    if (!connection.closed) return next();
    const { refusal } = transport;
    next(Object.assign(new Error(refusal.message), { data: publicError(refusal) }));
    // After the CONNECT_ERROR has been written; a refused client must not keep an engine for 45 seconds.
    setImmediate(() => this.#closer.close(socket.conn));
  }

  /** @throws TollgateError of the authentication rows */
  async #authenticate(socket: Socket, handshakeToken: unknown): Promise<Identity> {
    const identity = await this.#deps.authenticator.handshake({
      ...presentedCredentials(socket.request),
      handshakeToken,
    });
    if (!identity) throw new TollgateError('NO_TOKEN');
    return identity;
  }

  #connected(socket: Socket): void {
    const admitted = this.#states.get(internals(socket.conn).id)?.admitted;
    if (!admitted) return;
    const { connection, transport } = admitted;
    // The engine would keep the request of the handshake, with its headers, for as long as the session lives.
    (socket.conn as { request: unknown }).request = null;
    socket.on('disconnect', () => {
      connection.onClose();
      this.#closer.close(socket.conn);
    });
    socket.onAny((name: string, ...args: unknown[]) => this.#received(admitted, name, args));
    transport.connected();
  }

  /** Runs in a turn of its own, where whatever it throws would end the process. */
  #received({ connection, transport }: Admitted, name: unknown, args: unknown[]): void {
    const last = args.at(-1);
    const replyTo = typeof last === 'function' ? { ack: last as (reply: Fields) => void } : undefined;
    try {
      if (name === BEYOND_BOUNDS) {
        throw new TollgateError('JSON_ERROR', { text: 'The JSON is nested too deeply or has too many values.' });
      }
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

function isWebSocket(engine: EngineSocket): boolean {
  return internals(engine).transport.name === 'websocket';
}

/**
 * The adapter leaves its promises to themselves. One whose shard is away would end the process; what was asked for is
 * restored with the connection.
 */
function withoutRejections(subscriber: Redis) {
  const withoutRejection = (work: Promise<unknown>) => work.catch(() => undefined);
  return {
    ssubscribe: (channel: string) => withoutRejection(subscriber.ssubscribe(channel)),
    sunsubscribe: (channels: string | string[]) => withoutRejection(subscriber.sunsubscribe(...[channels].flat())),
    on: (event: 'smessageBuffer', listener: (channel: Buffer, message: Buffer) => void) => {
      subscriber.on(event, listener);
    },
  };
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}
