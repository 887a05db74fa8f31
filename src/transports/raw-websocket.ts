import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import type { Authenticator } from '../auth/authenticator.ts';
import { answeredProtocol, unpaddedProtocols } from '../auth/credentials.ts';
import { Connection, type ConnectionDeps } from '../connections/connection.ts';
import { maxMessageBytes } from '../connections/limits.ts';
import type { LongTasks } from '../limits/long-tasks.ts';
import { replyToOf } from '../protocol/dialects.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { BoundedWebSocketServer } from './bounded-websockets.ts';
import type { ConnectionGuard, GuardedConnection } from './connection-guard.ts';
import { ENDPOINTS, type Endpoint, type MatchedEndpoint } from './endpoints.ts';
import { presentedCredentials, resumePoint } from './handshake-request.ts';
import { FrameCache, RawTransport } from './raw-transport.ts';
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

/** A handshake with its endpoint and its pending connection. */
interface Handshake extends MatchedEndpoint {
  readonly url: URL;
  readonly request: IncomingMessage;
  readonly pending: GuardedConnection;
}

type Authenticate = () => Promise<Identity | undefined>;

/** The raw WebSocket endpoints. Creates a connection per socket and decodes its frames into messages. */
export class RawWebSockets {
  readonly #deps: RawWebSocketDeps;
  readonly #frames = new FrameCache();
  /** One server per endpoint: `ws` configures the accepted sub-protocols per server, not per upgrade. */
  readonly #servers: ReadonlyMap<Endpoint, BoundedWebSocketServer>;

  constructor(deps: RawWebSocketDeps) {
    this.#deps = deps;
    this.#servers = new Map(ENDPOINTS.map((endpoint) => [endpoint, createServer(deps, endpoint)]));
  }

  /**
   * Handles an upgrade whose path and origin are valid.
   * @throws TollgateError AUTH_RATE_LIMITED, OVERLOADED
   */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, matched: MatchedEndpoint & { url: URL }): void {
    const pending = this.#deps.guard.register(request, matched.endpoint.path);
    socket.once('close', pending.release);
    const handshake = { ...matched, request, pending };
    const authenticate = () => this.#authenticate(handshake);
    if (!pending.blockError) return this.#accept(handshake, socket, head, authenticate);
    this.#authenticateFirst(handshake, authenticate)
      .then((identity) => this.#accept(handshake, socket, head, async () => identity))
      .catch((thrown: unknown) => {
        const error = toTollgateError(thrown);
        this.#deps.metrics.handshakes.inc({ endpoint: matched.endpoint.path, result: error.code });
        refuseUpgrade(socket, error);
      });
  }

  /**
   * Authenticates a client from a blocked address before the upgrade is accepted. Authentication by a message is not
   * available then, because it would allow further attempts.
   * @throws TollgateError AUTH_RATE_LIMITED, AUTH_TIMEOUT, or the error that prevented the verification of the
   *   credential
   */
  #authenticateFirst({ pending }: Handshake, authenticate: Authenticate): Promise<Identity> {
    const { clock, limits } = this.#deps;
    return new Promise((resolve, reject) => {
      const cancel = clock.after(limits.authDeadlineMs, () => reject(new TollgateError('AUTH_TIMEOUT')));
      const decided = pending.authenticate(authenticate).then((identity) => {
        if (identity) resolve(identity);
        else reject(pending.blockError ?? new TollgateError('NO_TOKEN'));
      });
      decided.catch(reject).finally(cancel);
    });
  }

  #accept(handshake: Handshake, socket: Duplex, head: Buffer, authenticate: Authenticate): void {
    const { request, endpoint, pending } = handshake;
    try {
      request.headers['sec-websocket-protocol'] = unpaddedProtocols(request.headers);
    } catch (cause) {
      // Counts as a malformed token. No client library sends such a header, so an HTTP response is readable enough.
      pending.recordRefusal(toTollgateError(cause));
      const error = new TollgateError('FORMAT_ERROR', { text: WRONG_PROTOCOLS, cause });
      this.#deps.metrics.handshakes.inc({ endpoint: endpoint.path, result: error.code });
      return refuseUpgrade(socket, error);
    }
    const server = this.#servers.get(endpoint);
    server?.handleUpgrade(request, socket, head, (webSocket) => this.#connected(webSocket, handshake, authenticate));
  }

  #connected(socket: WebSocket, handshake: Handshake, authenticate: Authenticate): void {
    const { endpoint, pending } = handshake;
    // Until the token is verified, input stays in the buffers of the kernel, which are bounded.
    socket.pause();
    this.#runHandshake(this.#listen(socket, endpoint, pending), handshake, authenticate).finally(() => socket.resume());
  }

  /** A separate method, so that its closures, which live as long as the socket, do not retain the handshake request. */
  #listen(socket: WebSocket, endpoint: Endpoint, pending: GuardedConnection): Connection {
    const { clock, logger, metrics } = this.#deps;
    const transport = new RawTransport({ socket, clock, frames: this.#frames }, endpoint);
    const connection = new Connection(this.#deps, transport, pending);
    // Without a listener, one invalid frame would crash the process.
    socket.on('error', (error) => {
      logger.debug({ connection_id: connection.connectionId, err: error }, 'socket error');
      // `ws` closes the connection after a frame that violates RFC 6455 or exceeds a bound.
      if (!connection.attachment) pending.recordRefusal(new TollgateError('INVALID_MESSAGE', { cause: error }));
    });
    socket.on('message', (data, isBinary) => this.#received(connection, endpoint, data, isBinary));
    socket.on('pong', () => connection.markAlive());
    socket.on('close', (code) => {
      // The server closed the connection, and the client did not answer the close frame.
      if (connection.closed && code === ABNORMAL_CLOSURE) metrics.forcedCloses.inc({ transport: 'websocket' });
      connection.onClose();
    });
    return connection;
  }

  /** Never rejects. */
  async #runHandshake(connection: Connection, { endpoint, url }: Handshake, authenticate: Authenticate): Promise<void> {
    try {
      const resumeFrom = resumePoint(url.searchParams.get('after'), url.searchParams.get('epoch'));
      await connection.accept(authenticate, { identityRequired: endpoint.identityRequired, resumeFrom });
    } catch (error) {
      connection.close(toTollgateError(error));
    }
  }

  /** @throws TollgateError of the authentication rows */
  async #authenticate({ request, endpoint, userId }: Handshake): Promise<Identity | undefined> {
    const identity = await this.#deps.authenticator.handshake(presentedCredentials(request));
    if (!identity && endpoint.identityRequired) throw new TollgateError('NO_TOKEN');
    return checkPathUser(identity, userId);
  }

  #received(connection: Connection, { dialect }: MatchedEndpoint['endpoint'], data: RawData, isBinary: boolean): void {
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
  return new BoundedWebSocketServer(deps, {
    handleProtocols: (requested) => answeredProtocol(requested, endpoint.protocols),
  });
}

/** Only the user in the path can use that endpoint. @throws TollgateError USER_MISMATCH */
function checkPathUser(identity: Identity | undefined, userId: string | undefined): Identity | undefined {
  if (identity && userId !== undefined && identity.userId !== userId) throw new TollgateError('USER_MISMATCH');
  return identity;
}
