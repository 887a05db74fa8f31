import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { createShardedAdapter } from '@socket.io/redis-adapter';
import { Server as Engine } from 'engine.io';
import { Server, type Socket } from 'socket.io';
import type { Authenticator } from '../auth/authenticator.ts';
import { acceptConnection } from '../connections/accept.ts';
import { Connection, type ConnectionDeps } from '../connections/connection.ts';
import type { Handshake } from '../connections/handshake.ts';
import { remainingUntil, sleep } from '../lib/clock.ts';
import type { LongTasks } from '../limits/long-tasks.ts';
import { publicError, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { type Fields, isFields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { BEYOND_BOUNDS, boundedParser } from './bounded-parser.ts';
import { BoundedWebSocketServer, CLOSE_TIMEOUT_MS, MAX_CHUNKS, MAX_FRAME_BYTES } from './bounded-websockets.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import { type AdmittedClient, EngineConnection } from './engine-connection.ts';
import { checkQuery, sessionId } from './engine-requests.ts';
import { type EngineSocket, internals } from './engines.ts';
import { FrameCache } from './frame-cache.ts';
import { forgetContents, handedOverToken, presentedCredentials, resumePoint } from './handshake-request.ts';
import { MisroutedSessions, respondMisrouted } from './misrouted-sessions.ts';
import type { Origins } from './origins.ts';
import { refuseRequest, refuseUpgrade } from './refusals.ts';
import { isCrossSite } from './session-binding.ts';
import { SocketIoTransport } from './socket-io-transport.ts';

export const SOCKET_IO_PATH = '/socket.io/';

/** Time from the open of an engine until authentication, unless `AUTH_DEADLINE_SECONDS` is shorter. */
const CONNECT_TIMEOUT_MS = 8_000;

/** Defaults of Engine.IO, used unless the configured heartbeat is shorter. */
const PING_INTERVAL_MS = 25_000;
const PING_TIMEOUT_MS = 20_000;

/** Error codes of Engine.IO: unknown transport, wrong method, bad request, unsupported protocol version. */
const MALFORMED: readonly number[] = [0, 2, 3, 5];

/**
 * Bounds of a polling POST: options of Engine.IO 6.6.13 and later. The timeout, in milliseconds, runs from the request
 * head to the end of the body; Node's own limit on a request is three times as long.
 */
const POLLING_BOUNDS = { maxBufferedChunks: MAX_CHUNKS, httpRequestBodyTimeout: 10_000 };

/** Interval at which `ended` counts the open sessions. */
const POLL_MS = 50;

export interface SocketIoDeps extends ConnectionDeps {
  readonly authenticator: Authenticator;
  readonly guard: Pick<ConnectionGuard, 'addressOf' | 'register' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'watch' | 'watchNext'>;
  readonly origins: Pick<Origins, 'allow'>;
  /** Milliseconds after which clients should try another node; undefined unless this node is draining. */
  readonly drainRetryMs: () => number | undefined;
  /** Redis connections of the adapter, which serves only Socket.IO's own cluster operations; events do not use it. */
  readonly adapter: { readonly publisher: Redis; readonly subscriber: Redis; readonly channelPrefix: string };
}

/** The Socket.IO endpoint: WebSocket and long polling, with the single namespace `/`. */
export class SocketIo {
  readonly #deps: SocketIoDeps;
  readonly #engine: Engine;
  readonly #io: Server;
  /** By opening request, until the engine is open. */
  readonly #openingHandshakes = new WeakMap<IncomingMessage, Handshake>();
  /** By session id, until the engine closes. */
  readonly #engines = new Map<string, EngineConnection>();
  readonly #misrouted: MisroutedSessions;
  readonly #frames = new FrameCache();

  constructor(deps: SocketIoDeps, { allowedOrigins }: { readonly allowedOrigins: readonly string[] }) {
    this.#deps = deps;
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
      // Longer than the timeout of `EngineConnection`, which closes with a reason.
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
    if (sid === undefined || this.#engines.has(sid) || request.method === 'OPTIONS') {
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
    // The response and the first packet of Engine.IO leave with one system call.
    socket.cork();
    setImmediate(() => socket.uncork());
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
    const session = sid === undefined ? undefined : this.#engines.get(sid);
    if (isUpgrade && sid !== undefined && (!session || session.isWebSocket)) {
      throw new TollgateError('FORMAT_ERROR', { text: 'The session does not exist or already has a WebSocket.' });
    }
    session?.binding.check(request, { isUpgrade });
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
    if (this.#deps.drainRetryMs() !== undefined) return false;
    return this.#engines.get(sid)?.endMisrouted() ?? false;
  }

  /** Engine.IO calls this for each request that opens a session, and for no other. */
  #allowRequest(request: IncomingMessage, decide: (error: null, allowed: boolean) => void): void {
    // CORS prevents neither a WebSocket nor a request whose response the page does not read, so the origin is checked
    // here.
    if (!this.#deps.origins.allow(request)) return decide(null, false);
    // Engine.IO sets `res` for long polling only.
    const { res: response } = request as { res?: ServerResponse };
    try {
      const handshake = this.#deps.guard.register(request, SOCKET_IO_PATH);
      this.#openingHandshakes.set(request, handshake);
      // A WebSocket session ends with its socket. A polling session outlives its requests as soon as it is open.
      if (!response) request.socket.once('close', handshake.releaseListener());
      else response.once('close', () => this.#openingHandshakes.has(request) && handshake.release());
    } catch (thrown) {
      const error = toTollgateError(thrown);
      // Engine.IO would respond with 400 or 403, without `Retry-After`.
      return response ? refuseRequest(response, error) : refuseUpgrade(request.socket, error);
    }
    decide(null, true);
  }

  #opened(engine: EngineSocket): void {
    const { request } = engine as unknown as { readonly request: IncomingMessage };
    const handshake = this.#openingHandshakes.get(request);
    if (!handshake) return void engine.close(true);
    this.#openingHandshakes.delete(request);
    const { clock, metrics, limits } = this.#deps;
    const timeoutMs = Math.min(CONNECT_TIMEOUT_MS, limits.authDeadlineMs);
    const { id } = internals(engine);
    this.#engines.set(id, new EngineConnection({ engine, handshake, clock, metrics }, request, timeoutMs));
    engine.once('close', () => this.#engines.delete(id));
  }

  /** Authenticates and admits the client before Socket.IO confirms the connection. */
  async #admit(socket: Socket, next: (error?: Error) => void): Promise<void> {
    const engine = this.#engineOf(socket);
    if (!engine || engine.client) return void (engine ? engine.close() : socket.conn.close());
    const { clock } = this.#deps;
    const transport = new SocketIoTransport({ clock, socket, engine, frames: this.#frames }, SOCKET_IO_PATH);
    const { handshake } = engine;
    const connection = new Connection(this.#deps, transport, handshake);
    engine.admit({ connection, transport });
    // The client chooses the payload of CONNECT: it may not be an object.
    const { token, refresh_token, after, epoch }: Fields = isJsonObject(socket.handshake.auth)
      ? socket.handshake.auth
      : {};
    try {
      const options = { resumeFrom: resumePoint(after, epoch), writable: transport.writable };
      const identify = () => this.#identify(socket, token, handedOverToken(refresh_token));
      const accepted = acceptConnection(this.#deps, { handshake, connection }, identify, options);
      await Promise.race([accepted, transport.refused]);
    } catch (error) {
      connection.close(toTollgateError(error));
    }
    if (!connection.closed) return next();
    const { refusal } = transport;
    next(Object.assign(new Error(refusal.message), { data: publicError(refusal) }));
    // After CONNECT_ERROR has been written. Otherwise a rejected client could keep its engine open for 45 seconds.
    setImmediate(() => engine.close());
  }

  /** @throws TollgateError of the authentication rows */
  async #identify(socket: Socket, handshakeToken: unknown, refreshToken: string | undefined): Promise<Identity> {
    const presented = { ...presentedCredentials(socket.request), handshakeToken, refreshToken };
    const identity = await this.#deps.authenticator.handshake(presented);
    if (!identity) throw new TollgateError('NO_TOKEN');
    return identity;
  }

  #connected(socket: Socket): void {
    const engine = this.#engineOf(socket);
    if (!engine?.client) return;
    const { client } = engine;
    forgetHandshake(socket);
    socket.on('disconnect', () => {
      client.connection.onClose();
      engine.close();
    });
    socket.onAny((name: string, ...args: unknown[]) => this.#received(client, name, args));
    client.transport.connected();
  }

  #engineOf(socket: Socket): EngineConnection | undefined {
    return this.#engines.get(internals(socket.conn).id);
  }

  /** Never throws: Socket.IO calls it from a separate task, in which an exception would crash the process. */
  #received({ connection, transport }: AdmittedClient, name: unknown, args: unknown[]): void {
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
    if (isJsonObject(fields)) return fields;
    throw new TollgateError('INVALID_MESSAGE', { text: 'The data of an event must be one JSON object.' });
  }
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

/** Otherwise the session would retain the handshake request, with its headers and the token, for its lifetime. */
function forgetHandshake(socket: Socket): void {
  forgetContents(socket.request);
  (socket.conn as { request: unknown }).request = null;
  (socket as { handshake: unknown }).handshake = NO_HANDSHAKE;
}

const NO_HANDSHAKE: Socket['handshake'] = Object.freeze({
  headers: {},
  time: '',
  address: '',
  xdomain: false,
  secure: false,
  issued: 0,
  url: '',
  query: {},
  auth: {},
});

/** Returns whether a value of a packet is an object of JSON; a packet can also contain binary data. */
function isJsonObject(value: unknown): value is Fields {
  return isFields(value) && !ArrayBuffer.isView(value);
}
