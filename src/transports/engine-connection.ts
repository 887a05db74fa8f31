import type { IncomingMessage } from 'node:http';
import type { Connection } from '../connections/connection.ts';
import type { Handshake } from '../connections/handshake.ts';
import { UNAUTHENTICATED_BYTES, UNAUTHENTICATED_MESSAGES } from '../connections/limits.ts';
import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import { CLOSE_TIMEOUT_MS, ControlFrameLimiter } from './bounded-websockets.ts';
import {
  boundPayloads,
  boundProbes,
  type EnginePacket,
  type EngineSocket,
  ignorePackets,
  internals,
  isConnect,
  isForeign,
  packetBytes,
} from './engines.ts';
import { affinityRefusal } from './misrouted-sessions.ts';
import { SessionBinding } from './session-binding.ts';
import type { SocketIoTransport } from './socket-io-transport.ts';

/** Packets per polling POST after authentication: more than the messages that a connection can queue. */
const PACKETS_PER_PAYLOAD = 1_024;

/** Age up to which a session ends if its requests reach another node: the load balancer has no session affinity. */
const MISROUTED_AGE_MS = 5_000;

/** A connection and its transport. */
export interface AdmittedClient {
  readonly connection: Connection;
  readonly transport: SocketIoTransport;
}

export interface EngineConnectionDeps {
  readonly engine: EngineSocket;
  readonly handshake: Handshake;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'forcedCloses'>;
}

/**
 * One open Engine.IO session: bounds its packets, and its time until authentication. Closes the engine as soon as its
 * output is flushed, or after `CLOSE_TIMEOUT_MS`; Engine.IO itself would wait 30 s for a client that does not poll or
 * does not read.
 */
export class EngineConnection {
  readonly handshake: Handshake;
  readonly binding: SessionBinding;
  readonly #engine: EngineSocket;
  readonly #clock: Clock;
  readonly #metrics: Pick<Metrics, 'forcedCloses'>;
  readonly #control: ControlFrameLimiter;
  readonly #openedAt: number;
  /** Set by the CONNECT packet. A second CONNECT would create a second connection of the same client. */
  #client: AdmittedClient | undefined;
  /** Received before authentication. */
  #bytes = 0;
  /** Received before authentication. */
  #packets = 0;
  #hasConnected = false;
  /** The engine is about to be closed; its packets are ignored. */
  #isRefused = false;
  #isClosing = false;

  /** @param timeoutMs time until authentication */
  constructor(
    { engine, handshake, clock, metrics }: EngineConnectionDeps,
    opening: IncomingMessage,
    timeoutMs: number,
  ) {
    this.handshake = handshake;
    this.binding = new SessionBinding(opening);
    this.#engine = engine;
    this.#clock = clock;
    this.#metrics = metrics;
    this.#control = new ControlFrameLimiter(clock);
    this.#openedAt = clock.now();
    const isPolling = !this.isWebSocket;
    const cancel = clock.after(timeoutMs, () => this.#expired());
    engine.once('close', () => {
      cancel();
      // A WebSocket can stay open longer than its engine; the `close` of the socket releases it.
      if (isPolling) handshake.release();
      // On the engine, because a socket that never connected emits no `disconnect`.
      this.#client?.connection.onClose();
    });
    const bound = () => (this.#isAuthenticated ? PACKETS_PER_PAYLOAD : UNAUTHENTICATED_MESSAGES);
    boundPayloads(engine, bound, () => this.#refuse(new TollgateError('MESSAGE_TOO_LARGE')));
    boundProbes(engine);
    engine.on('packet', (packet: EnginePacket) => this.#packet(packet));
  }

  get client(): AdmittedClient | undefined {
    return this.#client;
  }

  get isWebSocket(): boolean {
    return internals(this.#engine).transport.name === 'websocket';
  }

  get #isAuthenticated(): boolean {
    return this.#client?.connection.attachment !== undefined;
  }

  /** Call it with the first CONNECT packet. */
  admit(client: AdmittedClient): void {
    this.#client = client;
  }

  /** Ends a young polling session whose requests reach another node. Returns whether it has ended for that reason. */
  endMisrouted(): boolean {
    if (this.isWebSocket || this.#clock.now() - this.#openedAt > MISROUTED_AGE_MS) return false;
    if (this.#isRefused) return true;
    this.#isRefused = true;
    if (this.#client) this.#client.connection.close(new TollgateError('AFFINITY_REQUIRED'));
    else {
      this.#engine.write(affinityRefusal());
      this.close();
    }
    return true;
  }

  /** Idempotent: adds one timer and one listener. */
  close(): void {
    if (this.#isClosing) return;
    this.#isClosing = true;
    const engine = this.#engine;
    const { transport } = internals(engine);
    if (transport.closeTimeout !== undefined) transport.closeTimeout = CLOSE_TIMEOUT_MS;
    const cancel = this.#clock.after(CLOSE_TIMEOUT_MS, () => {
      this.#metrics.forcedCloses.inc({ transport: 'socketio' });
      engine.close(true);
      transport.socket?.terminate();
    });
    engine.once('close', cancel);
    engine.close();
  }

  /** Closes an engine that has not authenticated in time, regardless of what it sent. */
  #expired(): void {
    if (this.#isAuthenticated) return;
    if (this.#client) this.#client.connection.close(new TollgateError('AUTH_TIMEOUT'));
    else this.close();
  }

  #packet({ type, data }: EnginePacket): void {
    if (!this.#isAuthenticated) {
      this.#packets += 1;
      this.#bytes += packetBytes(data);
      if (this.#packets > UNAUTHENTICATED_MESSAGES || this.#bytes > UNAUTHENTICATED_BYTES) return this.#refuse();
    }
    if (type !== 'message') {
      if (!this.#control.allows()) return this.#refuse(new TollgateError('RATE_LIMITED'));
      return type === 'pong' ? this.#client?.connection.markAlive() : undefined;
    }
    this.#client?.transport.received(packetBytes(data));
    if (isForeign(data) || (isConnect(data) && this.#hasConnected)) return this.#refuse();
    this.#hasConnected ||= isConnect(data);
  }

  /**
   * Closes an engine whose client violates the protocol or a bound; before authentication, counts a failed handshake.
   * Discards later packets, including those of the same payload.
   * @param error sent to an authenticated client; without it, Socket.IO responds to the packet
   */
  #refuse(error?: TollgateError): void {
    if (this.#isRefused) return;
    this.#isRefused = true;
    ignorePackets(this.#engine);
    if (!this.#isAuthenticated) this.handshake.recordRefusal(new TollgateError('NO_TOKEN'));
    else if (error) this.#client?.connection.close(error);
    // Socket.IO runs first: it responds to an unknown namespace, and to the POST that contains the packet.
    setImmediate(() => this.close());
  }
}
