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
import { presentedCredentials, resumePoint } from './handshake-request.ts';
import { affinityRefusal, MisroutedSessions, respondMisrouted } from './misrouted-sessions.ts';
import type { Origins } from './origins.ts';
import { refuseRequest, refuseUpgrade } from './refusals.ts';
import { isCrossSite, SessionBinding } from './session-binding.ts';
import { SocketIoTransport } from './socket-io-transport.ts';

export const SOCKET_IO_PATH = '/socket.io/';

/** Time from the open of an engine until authentication, unless `AUTH_DEADLINE_SECONDS` is shorter. */
const CONNECT_TIMEOUT_MS = 8_000;

/** Defaults of Engine.IO, used unless the configured heartbeat is shorter. */
const PING_INTERVAL_MS = 25_000;
const PING_TIMEOUT_MS = 20_000;

/** Error codes of Engine.IO: unknown transport, wrong method, bad request, unsupported protocol version. */
const MALFORMED: readonly number[] = [0, 2, 3, 5];

/** Packets per polling POST after authentication: more than the messages that a connection can queue. */
const PACKETS_PER_PAYLOAD = 1_024;

/**
 * Bounds of a polling POST: options of Engine.IO 6.6.13 and later. The timeout, in milliseconds, runs from the request
 * head to the end of the body; Node's own limit on a request is three times as long.
 */
const POLLING_BOUNDS = { maxBufferedChunks: MAX_CHUNKS, httpRequestBodyTimeout: 10_000 };

/** Age up to which a session ends if its requests reach another node: the load balancer has no session affinity. */
const MISROUTED_AGE_MS = 5_000;

/** Interval at which `ended` counts the open sessions. */
const POLL_MS = 50;

export interface SocketIoDeps extends ConnectionDeps {
  readonly authenticator: Authenticator;
  readonly guard: Pick<ConnectionGuard, 'addressOf' | 'register' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'watch' | 'watchNext'>;
  readonly origins: Pick<Origins, 'allow'>;
  /** Milliseconds after which clients should try another node; undefined unless this node is draining. */
  readonly drainingForMs: () => number | undefined;
  /** Redis connections of the adapter, which serves only Socket.IO's own cluster operations; events do not use it. */
  readonly adapter: { readonly publisher: Redis; readonly subscriber: Redis; readonly channelPrefix: string };
}

interface Admitted {
  readonly connection: Connection;
  readonly transport: SocketIoTransport;
}

/** State of an open engine. */
interface EngineState {
  readonly engine: EngineSocket;
  readonly pending: GuardedConnection;
  readonly binding: SessionBinding;
  readonly control: ControlFrameLimiter;
  readonly openedAt: number;
  /** Set by the CONNECT packet. A second CONNECT would create a second connection of the same client. */
  admitted: Admitted | undefined;
  /** Received before authentication. */
  bytes: number;
  /** Received before authentication. */
  packets: number;
  hasConnected: boolean;
  /** The engine is about to be closed; its packets are ignored. */
  refused: boolean;
}

/** The Socket.IO endpoint: WebSocket and long polling, with the single namespace `/`. */
export class SocketIo {
  readonly #deps: SocketIoDeps;
  readonly #engine: Engine;
  readonly #io: Server;
  /** By opening request, until the engine is open. */
  readonly #pendingByRequest = new WeakMap<IncomingMessage, GuardedConnection>();
  /** By session id, until the engine closes. */
  readonly #states = new Map<string, EngineState>();
  readonly #closer: EngineCloser;
  readonly #misrouted: MisroutedSessions;

  constructor(deps: SocketIoDeps, { allowedOrigins }: { readonly allowedOrigins: readonly string[] }) {
    this.#deps = deps;
    this.#closer = new EngineCloser(deps);
    const { heartbeatMs, idleTimeoutMs } = deps.limits;
    const pingInterval = Math.min(PING_INTERVAL_MS, heartbeatMs);
    this.#engine = new Engine({
      transports: ['websocket', 'polling'],
      // Ignores the options of Engine.IO, which the bounds of the class include.
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
      // Inside a list, `*` would be compared as a literal origin.
      cors: { origin: allowedOrigins.includes('*') || [...allowedOrigins], credentials: true },
      allowRequest: (request, decide) => this.#allowRequest(request, decide),
    });
    // Requests that Engine.IO rejects itself. An unknown session is not counted: it may belong to a restarted node.
    this.#engine.on('connection_error', ({ req, code }: { req: IncomingMessage; code: number }) => {
      if (MALFORMED.includes(code)) deps.guard.refused(req, { code: 'FORMAT_ERROR' });
    });
    this.#engine.on('connection', (engine: EngineSocket) => this.#opened(engine));
    this.#io = new Server({
      // Longer than the timeout of `#expired`, which closes with a reason.
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
    this.#misrouted = new MisroutedSessions({ ...deps, io: this.#io, end: (sid) => this.#endMisrouted(sid) });
  }

  /** Handles a long-polling request. */
  handleRequest(request: IncomingMessage, response: ServerResponse): void {
    try {
      // Preflights carry no credential; Engine.IO responds to them according to its CORS options.
      if (request.method !== 'OPTIONS') this.#check(request, { isUpgrade: false });
    } catch (error) {
      const refusal = toTollgateError(error);
      this.#deps.guard.refused(request, refusal);
      return refuseRequest(response, refusal);
    }
    const sid = sessionId(request);
    if (sid === undefined || this.#states.has(sid) || request.method === 'OPTIONS') {
      return this.#handle(request, response);
    }
    this.#misrouted.endedElsewhere(sid).then((ended) => {
      if (!ended) return this.#handle(request, response);
      respondMisrouted(request, response);
    });
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    // Engine.IO decodes the packets of a body when it is complete.
    const address = () => this.#deps.guard.addressOf(request);
    this.#deps.longTasks.watchNext(request, 'end', { surface: 'polling', address });
    this.#engine.handleRequest(request as Parameters<Engine['handleRequest']>[0], response);
  }

  /**
   * Handles an upgrade whose path, origin and form are valid.
   * @throws TollgateError FORMAT_ERROR, ORIGIN_NOT_ALLOWED, CONFLICTING_CREDENTIALS
   */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#check(request, { isUpgrade: true });
    this.#engine.handleUpgrade(request as Parameters<Engine['handleUpgrade']>[0], socket, head);
  }

  /**
   * Rejects requests that Engine.IO would accept, or would reject with an unreadable response. Engine.IO itself rejects
   * unknown session ids, in the form that its clients expect.
   * @throws TollgateError FORMAT_ERROR, UPGRADE_REQUIRED, ORIGIN_NOT_ALLOWED, CONFLICTING_CREDENTIALS
   */
  #check(request: IncomingMessage, { isUpgrade }: { readonly isUpgrade: boolean }): void {
    checkQuery(request, isUpgrade);
    if (!this.#deps.origins.allow(request) || isCrossSite(request)) {
      throw new TollgateError('ORIGIN_NOT_ALLOWED');
    }
    const sid = sessionId(request);
    const state = sid === undefined ? undefined : this.#states.get(sid);
    if (isUpgrade && sid !== undefined && (!state || isWebSocket(state.engine))) {
      throw new TollgateError('FORMAT_ERROR', { text: 'The session does not exist or already has a WebSocket.' });
    }
    state?.binding.check(request, { isUpgrade });
  }

  /**
   * Resolves when all sessions have ended and polling clients have fetched their last packets, or after `timeoutMs`.
   */
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

  /** Ends a young polling session whose requests reach another node. Returns whether there is one. */
  #endMisrouted(sid: string): boolean {
    const state = this.#states.get(sid);
    if (!state || isWebSocket(state.engine) || this.#deps.drainingForMs() !== undefined) return false;
    if (this.#deps.clock.now() - state.openedAt > MISROUTED_AGE_MS) return false;
    if (state.refused) return true;
    state.refused = true;
    const { engine, admitted } = state;
    if (admitted) admitted.connection.close(new TollgateError('AFFINITY_REQUIRED'));
    else {
      engine.write(affinityRefusal());
      this.#closer.close(engine);
    }
    return true;
  }

  /** Engine.IO calls this for each request that opens a session, and for no other. */
  #allowRequest(request: IncomingMessage, decide: (error: null, allowed: boolean) => void): void {
    // CORS prevents neither a WebSocket nor a request whose response the page does not read, so the origin is checked
    // here.
    if (!this.#deps.origins.allow(request)) return decide(null, false);
    // Engine.IO sets `res` for long polling only.
    const { res: response } = request as { res?: ServerResponse };
    try {
      const pending = this.#deps.guard.register(request, SOCKET_IO_PATH);
      this.#pendingByRequest.set(request, pending);
      // A WebSocket session ends with its socket. A polling session outlives its requests as soon as it is open.
      if (!response) request.socket.once('close', pending.release);
      else response.once('close', () => this.#pendingByRequest.has(request) && pending.release());
    } catch (thrown) {
      const error = toTollgateError(thrown);
      // Engine.IO would respond with 400 or 403, without `Retry-After`.
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
      openedAt: clock.now(),
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
      // A WebSocket can stay open longer than its engine; the `close` of the socket releases it.
      if (isPolling) pending.release();
      // On the engine, because a socket that never connected emits no `disconnect`.
      state.admitted?.connection.onClose();
    });
    const bound = () => (state.admitted?.connection.attachment ? PACKETS_PER_PAYLOAD : UNAUTHENTICATED_MESSAGES);
    boundPayloads(engine, bound, () => this.#refuse(state, new TollgateError('MESSAGE_TOO_LARGE')));
    boundProbes(engine);
    engine.on('packet', (packet: EnginePacket) => this.#packet(state, packet));
  }

  /** Closes an engine that has not authenticated in time, regardless of what it sent. */
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
   * Closes an engine whose client violates the protocol or a bound; before authentication, counts a failed handshake.
   * Discards later packets, including those of the same payload.
   * @param error sent to an authenticated client; without it, Socket.IO responds to the packet
   */
  #refuse(state: EngineState, error?: TollgateError): void {
    if (state.refused) return;
    state.refused = true;
    const { engine, pending, admitted } = state;
    ignorePackets(engine);
    if (!admitted?.connection.attachment) pending.recordRefusal(new TollgateError('NO_TOKEN'));
    else if (error) admitted.connection.close(error);
    // Socket.IO runs first: it responds to an unknown namespace, and to the POST that contains the packet.
    setImmediate(() => this.#closer.close(engine));
  }

  /** Authenticates and admits the client before Socket.IO confirms the connection. */
  async #admit(socket: Socket, next: (error?: Error) => void): Promise<void> {
    const state = this.#states.get(internals(socket.conn).id);
    if (!state || state.admitted) return this.#closer.close(socket.conn);
    const transport = new SocketIoTransport({ clock: this.#deps.clock, closer: this.#closer, socket }, SOCKET_IO_PATH);
    const connection = new Connection(this.#deps, transport, state.pending);
    state.admitted = { connection, transport };
    // The client chooses the payload of CONNECT: it may not be an object.
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
    // After CONNECT_ERROR has been written. Otherwise a rejected client could keep its engine open for 45 seconds.
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
    // Otherwise the engine would retain the handshake request, with its headers, for the lifetime of the session.
    (socket.conn as { request: unknown }).request = null;
    socket.on('disconnect', () => {
      connection.onClose();
      this.#closer.close(socket.conn);
    });
    socket.onAny((name: string, ...args: unknown[]) => this.#received(admitted, name, args));
    transport.connected();
  }

  /** Never throws: Socket.IO calls it from a separate task, in which an exception would crash the process. */
  #received({ connection, transport }: Admitted, name: unknown, args: unknown[]): void {
    const last = args.at(-1);
    const replyTo = typeof last === 'function' ? { ack: last as (reply: Fields) => void } : undefined;
    try {
      if (name === BEYOND_BOUNDS) {
        throw new TollgateError('JSON_ERROR', { text: 'The JSON is nested too deeply or has too many values.' });
      }
      // The protocol allows numbers as event names.
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
 * Handles rejections that the adapter ignores. Without it, a subscription to an unavailable shard would crash the
 * process; the client restores the subscriptions when it reconnects.
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
