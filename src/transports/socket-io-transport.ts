import type { Socket } from 'socket.io';
import type { Transport } from '../connections/transport.ts';
import type { Clock } from '../lib/clock.ts';
import type { ReplyTo } from '../protocol/dialects.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
import { type EnginePacket, internals } from './engines.ts';
import type { EntryEncoding, FrameCache } from './frame-cache.ts';
import { writeProgress } from './write-progress.ts';

/**
 * Close codes after which a client should reconnect. The Socket.IO client reconnects after a lost connection, but not
 * after a `disconnect` packet, so with these codes no such packet is sent.
 */
const COME_BACK_CODES = new Set([1001, 1011, 1012, 1013, 4002]);

const NOT_COMPRESSED = { compress: false };

/** Encodes an EVENT packet of the namespace `/`. https://socket.io/docs/v4/socket-io-protocol/#packet-encoding */
function eventPacket(type: string, json: string): string {
  return `2["${type}",${json}]`;
}

const EVENTS: EntryEncoding = { encodeEntry: ({ type, json }) => eventPacket(type, json) };

/**
 * Transport over a Socket.IO session. Until Socket.IO has confirmed the connection to the client, output is queued, and
 * an error followed by a close is sent as the refusal that the client reports as `connect_error`.
 */
export class SocketIoTransport implements Transport {
  readonly endpoint: string;
  readonly format = 'socketio';
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #frames: FrameCache;
  readonly #engine: { close(): void };
  /**
   * Characters in Engine.IO's write buffer. A running sum: adding up the buffer for each packet would cost quadratic
   * time.
   */
  #unflushed = 0;
  /** Number of times that Engine.IO passed its write buffer to the transport; with long polling, to a poll. */
  #flushes = 0;
  /** Packets that are sent when the client is connected. */
  #waiting: string[] | undefined = [];
  #lastError: TollgateError | undefined;
  #closeCode: number | undefined;
  #connected: () => void = () => {};
  #refused: () => void = () => {};
  #largestPacket = 0;
  /** Resolves when the client is connected. */
  readonly writable = new Promise<void>((resolve) => {
    this.#connected = resolve;
  });

  /** Resolves if the connection is closed before the client is connected. */
  readonly refused = new Promise<void>((resolve) => {
    this.#refused = resolve;
  });

  constructor(
    deps: {
      readonly socket: Socket;
      readonly clock: Clock;
      readonly frames: FrameCache;
      readonly engine: { close(): void };
    },
    endpoint: string,
  ) {
    this.#socket = deps.socket;
    this.#clock = deps.clock;
    this.#frames = deps.frames;
    this.#engine = deps.engine;
    this.endpoint = endpoint;
    const engine = deps.socket.conn;
    for (const packet of internals(engine).writeBuffer) this.#unflushed += packetLength(packet);
    engine.on('packetCreate', (packet: EnginePacket) => {
      this.#unflushed += packetLength(packet);
    });
    engine.on('flush', () => {
      this.#unflushed = 0;
      this.#flushes += 1;
    });
  }

  /** Reason of the refusal; meaningful only after `refused`. */
  get refusal(): TollgateError {
    return this.#lastError ?? new TollgateError('SERVER_DRAINING');
  }

  /** Bytes in Engine.IO's write buffer, and bytes in the WebSocket that the client has not received. */
  get bufferedBytes(): number {
    return this.#unflushed + (internals(this.#socket.conn).transport.socket?.bufferedAmount ?? 0);
  }

  get progress(): string {
    const { socket } = internals(this.#socket.conn).transport;
    return `${this.#flushes} ${socket ? writeProgress(socket) : ''}`;
  }

  /** Sends the queued output. Call it after Socket.IO has confirmed the connection to the client. */
  connected(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const packet of waiting) this.#write(packet);
    this.#connected();
    if (this.#closeCode !== undefined) this.close(this.#closeCode);
  }

  /** Records the size of a received Engine.IO packet, in bytes or characters. */
  received(length: number): void {
    this.#largestPacket = Math.max(this.#largestPacket, length);
  }

  /**
   * Size of a message in bytes if it exceeds the limit, else undefined. Messages are measured only after a packet that
   * is larger than the limit: most clients never send one.
   */
  sizeAbove(limit: number, fields: unknown): number | undefined {
    if (this.#largestPacket <= limit) return undefined;
    const size = sizeOf(fields) ?? this.#largestPacket;
    return size > limit ? size : undefined;
  }

  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void {
    const timestamped = { ...fields, timestamp: new Date(this.#clock.now()).toISOString() };
    if (replyTo && 'ack' in replyTo) return replyTo.ack({ ok: true, type, ...timestamped });
    this.#write(eventPacket(type, JSON.stringify(timestamped)));
  }

  sendEntry(entry: LogEntry): void {
    this.#write(this.#frames.frame(entry, EVENTS));
  }

  sendError(error: TollgateError, replyTo?: ReplyTo): void {
    this.#lastError = error;
    const fields = publicError(error);
    if (replyTo && 'ack' in replyTo) return replyTo.ack({ error: fields });
    const timestamped = { ...fields, timestamp: new Date(this.#clock.now()).toISOString() };
    this.#write(eventPacket('error', JSON.stringify(timestamped)));
  }

  /** Engine.IO sends its own pings. */
  ping(): void {}

  close(code: number): void {
    if (this.#waiting) {
      // The middleware then rejects the client. If it has just accepted the client, the close follows the queued
      // output.
      this.#closeCode = code;
      return this.#refused();
    }
    if (!COME_BACK_CODES.has(code)) this.#socket.disconnect(true);
    this.#engine.close();
  }

  /** Sends a packet as `Socket.emit` does, but without encoding the fields of a stored event again. */
  #write(packet: string): void {
    if (this.#waiting) this.#waiting.push(packet);
    else this.#socket.conn.write(packet, NOT_COMPRESSED);
  }
}

function packetLength({ data }: EnginePacket): number {
  return typeof data === 'string' ? data.length : 0;
}

/** Size as JSON in bytes; undefined for a value that is nested too deeply to be serialized. */
function sizeOf(value: unknown): number | undefined {
  try {
    return Buffer.byteLength(JSON.stringify(value) ?? '');
  } catch {
    return undefined;
  }
}
