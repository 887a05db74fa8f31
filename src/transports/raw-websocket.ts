import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type RawData, type WebSocket, WebSocketServer } from 'ws';
import type { Authenticator } from '../auth/authenticator.ts';
import { answeredProtocol } from '../auth/credentials.ts';
import { Connection, type ConnectionDeps } from '../connections/connection.ts';
import { replyToOf } from '../protocol/dialects.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { ENDPOINTS, type Endpoint, type MatchedEndpoint } from './endpoints.ts';
import { presented, resumePoint } from './handshake.ts';
import { FrameCache, RawTransport } from './raw-transport.ts';

/** Frames above this end the connection with 1009 before they are read; smaller ones are answered. */
const MAX_FRAME_BYTES = 64 * 1024;

export interface RawWebSocketDeps extends ConnectionDeps {
  readonly authenticator: Authenticator;
}

/** The raw WebSocket endpoints: turns sockets into transports and frames into messages. */
export class RawWebSockets {
  readonly #deps: RawWebSocketDeps;
  readonly #frames = new FrameCache();
  /** One an endpoint: `ws` asks its server, not the call, which sub-protocol to answer. */
  readonly #servers: ReadonlyMap<Endpoint, WebSocketServer>;

  constructor(deps: RawWebSocketDeps) {
    this.#deps = deps;
    this.#servers = new Map(ENDPOINTS.map((endpoint) => [endpoint, createServer(endpoint)]));
  }

  /** Takes an upgrade whose path and origin have been checked. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, matched: MatchedEndpoint & { url: URL }): void {
    const server = this.#servers.get(matched.endpoint);
    // `=` is no character of a token (RFC 9110 section 5.6.2), so `ws` would refuse a padded one before it is looked at.
    const offered = request.headers['sec-websocket-protocol'];
    if (offered) request.headers['sec-websocket-protocol'] = offered.replaceAll(/=+(?=\s*(,|$))/g, '');
    server?.handleUpgrade(request, socket, head, (webSocket) => this.#connected(webSocket, request, matched));
  }

  #connected(
    socket: WebSocket,
    request: IncomingMessage,
    { endpoint, userId, url }: MatchedEndpoint & { url: URL },
  ): void {
    const { authenticator, clock, logger } = this.#deps;
    const transport = new RawTransport({ socket, clock, frames: this.#frames }, endpoint);
    const connection = new Connection(this.#deps, transport);
    // Without a listener, one bad frame would end the process.
    socket.on('error', (error) => logger.debug({ connection_id: connection.connectionId, err: error }, 'socket error'));
    socket.on('message', (data, isBinary) => this.#received(connection, endpoint, data, isBinary));
    socket.on('pong', () => connection.alive());
    socket.on('close', () => connection.gone());

    const identify = async () => {
      const identity = await authenticator.handshake(presented(request));
      return checkPathUser(identity, userId);
    };
    const begin = async () => {
      const resumeFrom = resumePoint(url.searchParams.get('after'), url.searchParams.get('epoch'));
      await connection.begin(identify, { identityRequired: endpoint.identityRequired, resumeFrom });
    };
    begin().catch((error: unknown) => connection.close(toTollgateError(error)));
  }

  #received(connection: Connection, { dialect }: MatchedEndpoint['endpoint'], data: RawData, isBinary: boolean): void {
    // `nodebuffer`, the default binary type, makes every message one Buffer.
    const bytes = data as Buffer;
    if (isBinary) {
      const text = 'Binary frames are not understood here; send text.';
      return connection.reject(new TollgateError('INVALID_MESSAGE', { text }), undefined);
    }
    const { maxMessageBytes } = this.#deps.limits;
    const limit = dialect.format === 'jsonrpc' ? MAX_FRAME_BYTES : maxMessageBytes;
    if (bytes.length > limit) {
      const fields = { max_message_size: limit, size: bytes.length };
      return connection.reject(new TollgateError('MESSAGE_TOO_LARGE', { fields }), undefined);
    }
    const frame = bytes.toString('utf8');
    try {
      connection.receive(dialect.decode(frame));
    } catch (error) {
      connection.reject(toTollgateError(error), replyToOf(frame));
    }
  }
}

function createServer(endpoint: Endpoint): WebSocketServer {
  return new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: MAX_FRAME_BYTES,
    // Compression costs some 300 KB of memory a socket, and events are small.
    perMessageDeflate: false,
    handleProtocols: (offered) => answeredProtocol(offered, endpoint.protocols),
  });
}

/** A user's own endpoint is for that user. @throws TollgateError USER_MISMATCH */
function checkPathUser(identity: Identity | undefined, userId: string | undefined): Identity | undefined {
  if (identity && userId !== undefined && identity.userId !== userId) throw new TollgateError('USER_MISMATCH');
  return identity;
}
