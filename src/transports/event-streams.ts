import type { ServerResponse } from 'node:http';
import { acceptConnection } from '../connections/accept.ts';
import { Connection, type ConnectionDeps, type ResumePoint } from '../connections/connection.ts';
import type { Handshake } from '../connections/handshake.ts';
import type { Identity } from '../protocol/identity.ts';
import { EventStreamTransport, type ResponseHeaders, type StreamEncoder } from './event-stream-transport.ts';

/**
 * Period of the keep-alive bytes, shorter than the idle timeout of common proxies (60 s). Behind some of them, a failed
 * write is also the only sign that the client has disconnected.
 */
const KEEP_ALIVE_MS = 15_000;
/** Keep-alive periods within the idle timeout of a connection. */
const PERIODS_PER_TIMEOUT = 3;

/** An authenticated request that is answered with a stream of events. */
export interface StreamRequest {
  readonly response: ServerResponse;
  /** Headers that the hooks of the route have set. */
  readonly headers: ResponseHeaders;
  readonly identity: Identity;
  /** The handshake that verified the identity. */
  readonly handshake: Handshake;
  /** Path of the route, as a label. */
  readonly endpoint: string;
  readonly encoder: StreamEncoder;
  /** Position after which the stream begins; undefined for the head of the log. */
  readonly resumeFrom: ResumePoint | undefined;
  /** Name of the stream. It replaces the user's earlier connection with this name, on any node. */
  readonly stream?: string | undefined;
}

/**
 * Streams of events over HTTP. Each one is a connection like those of the other transports: it counts towards the
 * connection cap, has a lease and a cursor, and ends with its session, with the node, or if the client reads too
 * slowly. A client that disconnects ends nothing but its stream.
 */
export class EventStreams {
  readonly #deps: ConnectionDeps;

  constructor(deps: ConnectionDeps) {
    this.#deps = deps;
  }

  /**
   * Answers a request with a stream. Resolves when the stream is open or the request has been refused. Never rejects.
   */
  async open({ response, identity, handshake, resumeFrom, ...options }: StreamRequest): Promise<void> {
    const { endpoint, stream, encoder, headers } = options;
    const { clock, hub } = this.#deps;
    const closing = (ended: Promise<void>) => hub.finishing(ended);
    const transport = new EventStreamTransport({ response, clock, closing }, { endpoint, stream, encoder, headers });
    const connection = this.#listen(response, transport, handshake, encoder.protocol);
    await acceptConnection(this.#deps, { handshake, connection }, async () => identity, { resumeFrom });
    // Without a position there is nothing to wait for: a client cannot send a `resume` later.
    if (!resumeFrom) connection.endResumeGrace();
  }

  #listen(
    response: ServerResponse,
    transport: EventStreamTransport,
    handshake: Handshake,
    protocol: string,
  ): Connection {
    const { clock, logger, metrics, limits } = this.#deps;
    const connection = new Connection(this.#deps, transport, handshake);
    const stopKeepAlive = clock.every(Math.min(KEEP_ALIVE_MS, limits.idleTimeoutMs / PERIODS_PER_TIMEOUT), () => {
      // The kernel has accepted everything so far. Otherwise the connection writer ends a client that reads nothing.
      if (transport.bufferedBytes === 0) connection.markAlive();
      transport.keepAlive();
    });
    const onClose = () => {
      stopKeepAlive();
      metrics.eventStreams.inc({ transport: protocol, result: transport.result });
      connection.onClose();
    };
    response.on('error', (error) => {
      logger.debug({ connection_id: connection.connectionId, err: error }, 'event stream failed');
    });
    // If the client disconnected during the authentication, `close` is not emitted again.
    if (response.destroyed) onClose();
    else response.once('close', onClose);
    return connection;
  }
}
