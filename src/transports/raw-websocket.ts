import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { RawData, ServerOptions, WebSocket } from 'ws';
import type { Authenticator } from '../auth/authenticator.ts';
import { answeredProtocol, unpaddedProtocols } from '../auth/credentials.ts';
import { acceptConnection } from '../connections/accept.ts';
import { Connection, type ConnectionDeps, type ResumePoint } from '../connections/connection.ts';
import type { Handshake } from '../connections/handshake.ts';
import { maxMessageBytes } from '../connections/limits.ts';
import type { LongTasks } from '../limits/long-tasks.ts';
import { replyToOf } from '../protocol/dialects.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { BoundedWebSocketServer, MAX_FRAME_BYTES } from './bounded-websockets.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import { ENDPOINTS, type Endpoint, type MatchedEndpoint } from './endpoints.ts';
import { FrameCache } from './frame-cache.ts';
import { forgetContents, presentedCredentials, resumePoint } from './handshake-request.ts';
import { HeldResponses } from './held-responses.ts';
import { RawTransport } from './raw-transport.ts';
import { refuseUpgrade } from './refusals.ts';

/** Code that `ws` reports for a connection that ended without a close frame (RFC 6455 section 7.1.5). */
const ABNORMAL_CLOSURE = 1006;
/** Text of the 400 that RFC 6455 section 4.2.2 requires. */
const WRONG_PROTOCOLS = 'The Sec-WebSocket-Protocol header is too long, or not a list of distinct tokens.';

export interface RawWebSocketDeps extends ConnectionDeps {
  readonly authenticator: Authenticator;
  readonly guard: Pick<ConnectionGuard, 'addressOf' | 'register' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'watch'>;
}

const CONNECTION = Symbol('connection');

/** A WebSocket that has been accepted. */
interface ConnectedSocket extends WebSocket {
  [CONNECTION]?: Connection;
}

/** The server of an endpoint, and the listeners of its sockets: closures per socket would cost 300 bytes each. */
interface EndpointServer {
  readonly server: BoundedWebSocketServer;
  readonly listen: (socket: WebSocket) => void;
}

/** A request to open a WebSocket, whose path and origin are valid. */
interface Opening extends MatchedEndpoint {
  readonly url: Readonly<URL>;
  readonly request: IncomingMessage;
  readonly handshake: Handshake;
  /** Listener of the socket until the WebSocket is open. */
  readonly release: () => void;
  /** Identity that was verified before the upgrade; only for blocked addresses. */
  readonly verified?: Identity;
}

/** The raw WebSocket endpoints. Creates a connection per socket and decodes its frames into messages. */
export class RawWebSockets {
  readonly #deps: RawWebSocketDeps;
  readonly #frames = new FrameCache();
  readonly #responses: HeldResponses;
  /** One server per endpoint: `ws` configures the accepted sub-protocols per server, not per upgrade. */
  readonly #servers: ReadonlyMap<Endpoint, EndpointServer>;

  constructor(deps: RawWebSocketDeps) {
    this.#deps = deps;
    this.#responses = new HeldResponses(deps);
    this.#servers = new Map(
      ENDPOINTS.map((endpoint) => {
        return [endpoint, { server: createServer(deps, endpoint), listen: this.#listeners(endpoint) }];
      }),
    );
  }

  /**
   * Handles an upgrade whose path and origin are valid.
   * @throws TollgateError AUTH_RATE_LIMITED, OVERLOADED
   */
  upgrade(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    matched: MatchedEndpoint & Pick<Opening, 'url'>,
  ): void {
    const handshake = this.#deps.guard.register(request, matched.endpoint.path);
    const release = handshake.releaseListener();
    socket.once('close', release);
    const opening = { ...matched, request, handshake, release };
    if (!handshake.isBlocked) return this.#accept(opening, socket, head);
    this.#verifyFirst(opening)
      .then((verified) => this.#accept({ ...opening, verified }, socket, head))
      .catch((thrown: unknown) => {
        const error = toTollgateError(thrown);
        handshake.count(error.code);
        refuseUpgrade(socket, error);
      });
  }

  /**
   * Authenticates a client from a blocked address before the upgrade is accepted. Authentication by a message is not
   * available then, because it would allow further attempts.
   * @throws TollgateError AUTH_RATE_LIMITED, AUTH_TIMEOUT, or the error that prevented the verification of the
   *   credential
   */
  async #verifyFirst(opening: Opening): Promise<Identity> {
    const { handshake } = opening;
    const expired = new Promise<never>((_, reject) => handshake.startDeadline(reject));
    try {
      const identity = await Promise.race([handshake.authenticate(() => this.#identify(opening)), expired]);
      if (identity) return identity;
      throw handshake.blockError ?? new TollgateError('NO_TOKEN');
    } finally {
      handshake.endDeadline();
    }
  }

  #accept(opening: Opening, socket: Duplex, head: Buffer): void {
    const { request, endpoint, handshake, release } = opening;
    try {
      request.headers['sec-websocket-protocol'] = unpaddedProtocols(request.headers);
    } catch (cause) {
      // Counts as a malformed token. No client library sends such a header, so an HTTP response is readable enough.
      handshake.recordRefusal(toTollgateError(cause));
      const error = new TollgateError('FORMAT_ERROR', { text: WRONG_PROTOCOLS, cause });
      handshake.count(error.code);
      return refuseUpgrade(socket, error);
    }
    this.#responses.hold(socket);
    this.#servers.get(endpoint)?.server.handleUpgrade(request, socket, head, (webSocket) => {
      // From now on the `close` of the WebSocket releases the handshake.
      socket.off('close', release);
      void this.#connected(webSocket, opening).then(() => this.#responses.release(socket));
    });
  }

  /** Never rejects. The socket is open before the client is authenticated, so that it can read a refusal. */
  async #connected(socket: WebSocket, opening: Opening): Promise<void> {
    const { endpoint, handshake, verified } = opening;
    // Until the token is verified, input stays in the buffers of the kernel, which are bounded.
    socket.pause();
    const connection = this.#listen(socket, endpoint, handshake);
    try {
      const resumeFrom = resumeFromQuery(opening.url);
      const identify = async () => verified ?? (await this.#identify(opening));
      await acceptConnection(this.#deps, { handshake, connection }, identify, { resumeFrom });
    } catch (error) {
      connection.close(toTollgateError(error));
    } finally {
      forgetContents(opening.request);
      socket.resume();
    }
  }

  #listen(socket: ConnectedSocket, endpoint: Endpoint, handshake: Handshake): Connection {
    const transport = new RawTransport({ socket, clock: this.#deps.clock, frames: this.#frames }, endpoint);
    const connection = new Connection(this.#deps, transport, handshake);
    socket[CONNECTION] = connection;
    this.#servers.get(endpoint)?.listen(socket);
    return connection;
  }

  /** Returns a function that adds the listeners of an endpoint to a socket. All sockets share them. */
  #listeners(endpoint: Endpoint): (socket: WebSocket) => void {
    const { logger, metrics } = this.#deps;
    const received = this.#received.bind(this);
    function failed(this: ConnectedSocket, error: Error): void {
      const connection = this[CONNECTION];
      logger.debug({ connection_id: connection?.connectionId, err: error }, 'socket error');
      // `ws` closes the connection after a frame that violates RFC 6455 or exceeds a bound.
      if (!connection?.attachment)
        connection?.handshake.recordRefusal(new TollgateError('INVALID_MESSAGE', { cause: error }));
    }
    function message(this: ConnectedSocket, data: RawData, isBinary: boolean): void {
      const connection = this[CONNECTION];
      if (connection) received(connection, endpoint, data, isBinary);
    }
    function pong(this: ConnectedSocket): void {
      this[CONNECTION]?.markAlive();
    }
    function closed(this: ConnectedSocket, code: number): void {
      const connection = this[CONNECTION];
      // The server closed the connection, and the client did not answer the close frame.
      if (connection?.closed && code === ABNORMAL_CLOSURE) metrics.forcedCloses.inc({ transport: 'websocket' });
      connection?.handshake.release();
      connection?.onClose();
    }
    return (socket) => {
      // Without a listener of `error`, one invalid frame would crash the process.
      socket.on('error', failed).on('message', message).on('pong', pong).on('close', closed);
    };
  }

  /** @throws TollgateError of the authentication rows */
  async #identify({ request, endpoint, userId }: Opening): Promise<Identity | undefined> {
    const identity = await this.#deps.authenticator.handshake(presentedCredentials(request));
    if (!identity && endpoint.identityRequired) throw new TollgateError('NO_TOKEN');
    return checkPathUser(identity, userId);
  }

  #received(connection: Connection, { dialect }: Endpoint, data: RawData, isBinary: boolean): void {
    // With the default binary type `nodebuffer`, every message is one Buffer.
    const bytes = data as Buffer;
    connection.countBytes(bytes.length);
    // Closes with 1003 (RFC 6455 section 7.4.1). An MCP client that sends binary frames does so with every message.
    if (isBinary && dialect.format === 'jsonrpc') return connection.close(new TollgateError('UNSUPPORTED_DATA'));
    if (isBinary) {
      const text = 'Binary frames are not supported; send text frames.';
      return connection.reject(new TollgateError('INVALID_MESSAGE', { text }), undefined);
    }
    const limit = maxMessageBytes(this.#deps.limits, dialect.format);
    if (bytes.length > limit) {
      const fields = { max_message_size: limit, size: bytes.length };
      return connection.reject(new TollgateError('MESSAGE_TOO_LARGE', { fields }), undefined);
    }
    const frame = bytes.toString('utf8');
    try {
      connection.receive(dialect.decode(frame));
    } catch (error) {
      // Only JSON-RPC errors carry the id of their request; finding it parses the frame again.
      connection.reject(toTollgateError(error), dialect.format === 'jsonrpc' ? replyToOf(frame) : undefined);
    }
  }
}

function createServer(deps: RawWebSocketDeps, endpoint: Endpoint): BoundedWebSocketServer {
  const handleProtocols: ServerOptions['handleProtocols'] = (requested) => {
    return answeredProtocol(requested, endpoint.protocols);
  };
  const maxFrameBytes = Math.max(MAX_FRAME_BYTES, maxMessageBytes(deps.limits, endpoint.dialect.format));
  return new BoundedWebSocketServer(deps, { handleProtocols }, maxFrameBytes);
}

/** The position in the query from which the client resumes. @throws TollgateError FORMAT_ERROR */
function resumeFromQuery({ searchParams }: Readonly<URL>): ResumePoint | undefined {
  return resumePoint(searchParams.get('after'), searchParams.get('epoch'));
}

/** Only the user in the path can use that endpoint. @throws TollgateError USER_MISMATCH */
function checkPathUser(identity: Identity | undefined, userId: string | undefined): Identity | undefined {
  if (identity && userId !== undefined && identity.userId !== userId) throw new TollgateError('USER_MISMATCH');
  return identity;
}
