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

/** How `ws` names an end without a close frame: RFC 6455 section 7.1.5. */
const ABNORMAL_CLOSURE = 1006;
/** RFC 6455 section 4.2.2: 400. */
const WRONG_PROTOCOLS = 'The Sec-WebSocket-Protocol header is too long, or not a list of different tokens.';

export interface RawWebSocketDeps extends ConnectionDeps {
  readonly authenticator: Authenticator;
  readonly guard: Pick<ConnectionGuard, 'addressOf' | 'register' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'watch'>;
}

/** A handshake, the endpoint it asks for, and who stands before it. */
interface Handshake extends MatchedEndpoint {
  readonly url: URL;
  readonly request: IncomingMessage;
  readonly pending: GuardedConnection;
}

type Authenticate = () => Promise<Identity | undefined>;

/** The raw WebSocket endpoints: turns sockets into transports and frames into messages. */
export class RawWebSockets {
  readonly #deps: RawWebSocketDeps;
  readonly #frames = new FrameCache();
  /** One an endpoint: `ws` asks its server, not the call, which sub-protocol to answer. */
  readonly #servers: ReadonlyMap<Endpoint, BoundedWebSocketServer>;

  constructor(deps: RawWebSocketDeps) {
    this.#deps = deps;
    this.#servers = new Map(ENDPOINTS.map((endpoint) => [endpoint, createServer(deps, endpoint)]));
  }

  /**
   * Takes an upgrade whose path and origin have been checked.
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
   * The identity of a client whose address has failed too often, before anything is accepted of it. Nobody who has yet to
   * authenticate comes in: a credential in band would be an attempt as good as any other.
   * @throws TollgateError AUTH_RATE_LIMITED, AUTH_TIMEOUT, and whatever says that the credential could not be looked at
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
      // Counted like a token of a wrong form. No client library sends such a header, so plain HTTP is readable enough.
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
    // What comes before the token has been looked at stays in the kernel, whose buffers have a bound.
    socket.pause();
    this.#runHandshake(this.#listen(socket, endpoint, pending), handshake, authenticate).finally(() => socket.resume());
  }

  /** Apart from the opening: what these listeners see lives as long as the socket, and so must not be the request. */
  #listen(socket: WebSocket, endpoint: Endpoint, pending: GuardedConnection): Connection {
    const { clock, logger, metrics } = this.#deps;
    const transport = new RawTransport({ socket, clock, frames: this.#frames }, endpoint);
    const connection = new Connection(this.#deps, transport, pending);
    // Without a listener, one bad frame would end the process.
    socket.on('error', (error) => {
      logger.debug({ connection_id: connection.connectionId, err: error }, 'socket error');
      // `ws` ends the connection for a frame against RFC 6455 or above a bound.
      if (!connection.attachment) pending.recordRefusal(new TollgateError('INVALID_MESSAGE', { cause: error }));
    });
    socket.on('message', (data, isBinary) => this.#received(connection, endpoint, data, isBinary));
    socket.on('pong', () => connection.markAlive());
    socket.on('close', (code) => {
      // We had ended it, and no answer came.
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
    // `nodebuffer`, the default binary type, makes every message one Buffer.
    const bytes = data as Buffer;
    connection.countBytes(bytes.length);
    // RFC 6455 section 7.4.1: 1003. Where MCP is spoken a client that frames wrongly is not one that errs once.
    if (isBinary && dialect.format === 'jsonrpc') return connection.close(new TollgateError('UNSUPPORTED_DATA'));
    if (isBinary) {
      const text = 'Binary frames are not understood here; send text.';
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
      // Only JSON-RPC ties an answer to its request; to look for an id parses the frame again.
      connection.reject(toTollgateError(error), dialect.format === 'jsonrpc' ? replyToOf(frame) : undefined);
    }
  }
}

function createServer(deps: RawWebSocketDeps, endpoint: Endpoint): BoundedWebSocketServer {
  return new BoundedWebSocketServer(deps, {
    handleProtocols: (requested) => answeredProtocol(requested, endpoint.protocols),
  });
}

/** A user's own endpoint is for that user. @throws TollgateError USER_MISMATCH */
function checkPathUser(identity: Identity | undefined, userId: string | undefined): Identity | undefined {
  if (identity && userId !== undefined && identity.userId !== userId) throw new TollgateError('USER_MISMATCH');
  return identity;
}
