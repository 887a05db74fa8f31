import type { Socket } from 'socket.io';
import type { WebSocket } from 'ws';
import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import { CLOSE_TIMEOUT_MS } from './bounded-websockets.ts';

/** One Engine.IO session, over whichever transport. */
export type EngineSocket = Socket['conn'];

/** What of Engine.IO's socket its types leave out. */
interface EngineInternals {
  /** The session id. */
  readonly id: string;
  readonly writeBuffer: readonly EnginePacket[];
  readonly transport: EngineTransport;
}

/** What of a transport of Engine.IO its types leave out. */
interface EngineTransport {
  readonly name: string;
  /** The WebSocket; long polling has none. */
  readonly socket?: WebSocket;
  /** Long polling only: how long a close waits for the next poll, in milliseconds. */
  closeTimeout?: number;
  /** Takes a WebSocket message, or the body of a polling POST. */
  onData(data: string): void;
  /** Ends the transport. */
  onError(reason: string): void;
  removeAllListeners(event: 'packet'): void;
}

/** A packet of the Engine.IO protocol, in either direction. */
export interface EnginePacket {
  readonly type: string;
  readonly data?: unknown;
}

/** One is enough for what some clients call data; events are JSON, and each attachment is held until the last is there. */
const MAX_ATTACHMENTS = 1;
/** For a client that tries again after a WebSocket that did not come through. */
const MAX_PROBES = 10;

export function internals(engine: EngineSocket): EngineInternals {
  return engine as unknown as EngineInternals;
}

/**
 * Closes engines once they have sent what they have to send, or after `CLOSE_PATIENCE_MS`. By itself Engine.IO waits half
 * a minute for a client that does not poll or does not read.
 */
export class EngineCloser {
  readonly #clock: Clock;
  readonly #metrics: Pick<Metrics, 'forcedCloses'>;
  readonly #closing = new WeakSet<EngineSocket>();

  constructor({ clock, metrics }: { readonly clock: Clock; readonly metrics: Pick<Metrics, 'forcedCloses'> }) {
    this.#clock = clock;
    this.#metrics = metrics;
  }

  /** Idempotent: one timer and one listener per engine, however often it is closed. */
  close(engine: EngineSocket): void {
    if (this.#closing.has(engine)) return;
    this.#closing.add(engine);
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
}

/** Drops every further packet of the current transport, those of a payload that is being decoded included. */
export function ignorePackets(engine: EngineSocket): void {
  internals(engine).transport.removeAllListeners('packet');
}

/**
 * Bounds the packets of one polling POST: Engine.IO bounds its bytes alone, and decodes all of them in one turn.
 * @param bound the highest number of packets, asked for each payload
 * @param exceeded called instead of the decoder
 */
export function boundPayloads(engine: EngineSocket, bound: () => number, exceeded: () => void): void {
  const { transport } = internals(engine);
  // A WebSocket message is one packet.
  if (transport.name !== 'polling') return;
  const decode = transport.onData.bind(transport);
  transport.onData = (payload) => {
    if (holdsMoreThan(bound(), payload)) exceeded();
    else decode(payload);
  };
}

/** https://socket.io/docs/v4/engine-io-protocol/#http-long-polling-1 */
const SEPARATOR = '\x1e';

function holdsMoreThan(packets: number, payload: string): boolean {
  let at = -1;
  for (let found = 0; found < packets; found++) {
    at = payload.indexOf(SEPARATOR, at + 1);
    if (at < 0) return false;
  }
  return true;
}

/**
 * Bounds the probes of a WebSocket that is to replace polling. Engine.IO answers each of them, and a client sends one.
 * https://socket.io/docs/v4/engine-io-protocol/#upgrade
 */
export function boundProbes(engine: EngineSocket): void {
  let probes = 0;
  engine.on('upgrading', (transport: EngineTransport) => {
    probes += 1;
    if (probes > MAX_PROBES) transport.onError('too many probes');
  });
}

/** The size of a packet's data in bytes. */
export function packetBytes(data: unknown): number {
  return typeof data === 'string' || Buffer.isBuffer(data) ? Buffer.byteLength(data) : 0;
}

/** Whether a Socket.IO packet is a CONNECT to the namespace `/`. */
export function isConnect(data: unknown): boolean {
  return typeof data === 'string' && data[0] === '0';
}

/**
 * Whether a Socket.IO packet asks for what there is not: a namespace beside `/`, which would be refused as often as it is
 * asked for and never counted, or many attachments.
 * https://socket.io/docs/v4/socket-io-protocol/#packet-encoding
 */
export function isForeign(data: unknown): boolean {
  if (typeof data !== 'string') return false;
  switch (data[0]) {
    case '0':
      return data[1] === '/' && data.length > 2 && data[2] !== ',';
    case '5':
    case '6':
      return Number.parseInt(data.slice(1, 8), 10) > MAX_ATTACHMENTS;
    default:
      return false;
  }
}
