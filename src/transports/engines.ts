import type { Socket } from 'socket.io';
import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import { CLOSE_PATIENCE_MS } from './bounded-websockets.ts';

/** One Engine.IO session, over whichever transport. */
export type EngineSocket = Socket['conn'];

/** What of Engine.IO's socket its types leave out. */
interface EngineInternals {
  readonly writeBuffer: readonly { readonly data?: unknown }[];
  readonly transport: {
    /** The WebSocket; long polling has none. */
    readonly socket?: { readonly bufferedAmount: number; terminate(): void };
    /** Long polling only: how long a close waits for the next poll, in milliseconds. */
    closeTimeout?: number;
  };
}

/** One is enough for what some clients call data; events are JSON, and each attachment is held until the last is there. */
const MAX_ATTACHMENTS = 1;

export function internals(engine: EngineSocket): EngineInternals {
  return engine as unknown as EngineInternals;
}

export interface EngineDeps {
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'forcedCloses'>;
}

/**
 * Ends a session once it has sent what it has to send, or after a moment. By itself Engine.IO waits half a minute for a
 * client that does not poll or does not read.
 */
export function endEngine(engine: EngineSocket, { clock, metrics }: EngineDeps): void {
  const { transport } = internals(engine);
  if (transport.closeTimeout !== undefined) transport.closeTimeout = CLOSE_PATIENCE_MS;
  const cancel = clock.after(CLOSE_PATIENCE_MS, () => {
    metrics.forcedCloses.inc({ transport: 'socketio' });
    engine.close(true);
    transport.socket?.terminate();
  });
  engine.once('close', cancel);
  engine.close();
}

/** The size of a packet's data in bytes. */
export function packetBytes(data: unknown): number {
  return typeof data === 'string' || Buffer.isBuffer(data) ? Buffer.byteLength(data) : 0;
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
