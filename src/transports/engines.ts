import type { Socket } from 'socket.io';
import type { WebSocket } from 'ws';

/** An Engine.IO session, over long polling or WebSocket. */
export type EngineSocket = Socket['conn'];

/** Members of an Engine.IO socket that its types lack. */
interface EngineInternals {
  /** The session id. */
  readonly id: string;
  readonly writeBuffer: readonly EnginePacket[];
  readonly transport: EngineTransport;
}

/** Members of an Engine.IO transport that its types lack. */
interface EngineTransport {
  readonly name: string;
  /** The WebSocket; undefined for long polling. */
  readonly socket?: WebSocket;
  /** Long polling only: how long a close waits for the next poll, in milliseconds. */
  closeTimeout?: number;
  /** Processes a WebSocket message, or the body of a polling POST. */
  onData(data: string): void;
  /** Closes the transport. */
  onError(reason: string): void;
  removeAllListeners(event: 'packet'): void;
}

/** A packet of the Engine.IO protocol, in either direction. */
export interface EnginePacket {
  readonly type: string;
  readonly data?: unknown;
}

/**
 * Binary attachments per packet. Events are JSON; some clients send one attachment. Each is buffered until the last
 * arrives.
 */
const MAX_ATTACHMENTS = 1;
/** Allows a client to retry after a failed WebSocket upgrade. */
const MAX_PROBES = 10;

export function internals(engine: EngineSocket): EngineInternals {
  return engine as unknown as EngineInternals;
}

/** Discards all further packets of the current transport, including those of a payload that is being decoded. */
export function ignorePackets(engine: EngineSocket): void {
  internals(engine).transport.removeAllListeners('packet');
}

/**
 * Bounds the packets of one polling POST. Engine.IO bounds only its bytes, and decodes all packets synchronously.
 * @param bound returns the maximum number of packets; called for each payload
 * @param exceeded called instead of the decoder
 */
export function boundPayloads(engine: EngineSocket, bound: () => number, exceeded: () => void): void {
  const { transport } = internals(engine);
  // A WebSocket message always contains one packet.
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
 * Bounds the probes of a WebSocket that is about to replace polling. Engine.IO answers each probe; a client needs one.
 * https://socket.io/docs/v4/engine-io-protocol/#upgrade
 */
export function boundProbes(engine: EngineSocket): void {
  let probes = 0;
  engine.on('upgrading', (transport: EngineTransport) => {
    probes += 1;
    if (probes > MAX_PROBES) transport.onError('too many probes');
  });
}

/** Size of a packet's data in bytes. */
export function packetBytes(data: unknown): number {
  return typeof data === 'string' || Buffer.isBuffer(data) ? Buffer.byteLength(data) : 0;
}

/** Whether a Socket.IO packet is a CONNECT to the namespace `/`. */
export function isConnect(data: unknown): boolean {
  return typeof data === 'string' && data[0] === '0';
}

/**
 * Whether a Socket.IO packet requests something that the gateway does not offer: a namespace other than `/`, which
 * Socket.IO would reject each time without counting, or more than `MAX_ATTACHMENTS`.
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
