import type { Socket } from 'socket.io';
import type { Transport } from '../connections/transport.ts';
import type { Clock } from '../lib/clock.ts';
import type { ReplyTo } from '../protocol/dialects.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
import { type EngineCloser, type EnginePacket, internals } from './engines.ts';
import { writeProgress } from './write-progress.ts';

/**
 * Close codes after which a client should come back by itself. Socket.IO's client does so when the connection is lost,
 * and never after a `disconnect` of the server: which of the two is sent makes the difference.
 */
const COME_BACK_CODES = new Set([1001, 1011, 1012, 1013, 4002]);

/**
 * A Socket.IO session as a transport. Until Socket.IO has said that the client is connected, what is sent waits, and an
 * error with a close becomes the refusal that the client sees as `connect_error`.
 */
export class SocketIoTransport implements Transport {
  readonly endpoint: string;
  readonly format = 'socketio';
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #closer: EngineCloser;
  /** Of Engine.IO's write buffer, in characters: summed up at each packet, since a sum over the buffer grows with it. */
  #unflushed = 0;
  /** How often Engine.IO has handed its write buffer to the transport: to a poll, where it polls. */
  #flushes = 0;
  #waiting: (() => void)[] | undefined = [];
  #lastError: TollgateError | undefined;
  #closeCode: number | undefined;
  #connected: () => void = () => {};
  #refused: () => void = () => {};
  #largestPacket = 0;
  /** Settles when the client is connected. */
  readonly writable = new Promise<void>((resolve) => {
    this.#connected = resolve;
  });

  /** Settles when the connection has been closed before the client was let in. */
  readonly refused = new Promise<void>((resolve) => {
    this.#refused = resolve;
  });

  constructor(
    deps: { readonly socket: Socket; readonly clock: Clock; readonly closer: EngineCloser },
    endpoint: string,
  ) {
    this.#socket = deps.socket;
    this.#clock = deps.clock;
    this.#closer = deps.closer;
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

  /** Why the client was not let in; asked for only when its connection was closed before it was. */
  get refusal(): TollgateError {
    return this.#lastError ?? new TollgateError('SERVER_DRAINING');
  }

  /** What Engine.IO holds, and what it has handed to the WebSocket that the client has not taken. */
  get bufferedBytes(): number {
    return this.#unflushed + (internals(this.#socket.conn).transport.socket?.bufferedAmount ?? 0);
  }

  get progress(): string {
    const { socket } = internals(this.#socket.conn).transport;
    return `${this.#flushes} ${socket ? writeProgress(socket) : ''}`;
  }

  /** Socket.IO has told the client that it is connected: what waited goes out. */
  connected(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const write of waiting) write();
    this.#connected();
    if (this.#closeCode !== undefined) this.close(this.#closeCode);
  }

  /** An Engine.IO packet of this size, in bytes or characters, came in. */
  received(length: number): void {
    this.#largestPacket = Math.max(this.#largestPacket, length);
  }

  /**
   * The size of a message in bytes if it is above the limit. Messages are measured only once a packet came that could
   * hold such a one: most clients never send one.
   */
  sizeAbove(limit: number, fields: unknown): number | undefined {
    if (this.#largestPacket <= limit) return undefined;
    const size = sizeOf(fields) ?? this.#largestPacket;
    return size > limit ? size : undefined;
  }

  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void {
    const timestamped = { ...fields, timestamp: new Date(this.#clock.now()).toISOString() };
    if (replyTo && 'ack' in replyTo) return replyTo.ack({ ok: true, type, ...timestamped });
    this.#write(() => this.#socket.emit(type, timestamped));
  }

  sendEntry(entry: LogEntry): void {
    this.#write(() => this.#socket.emit(entry.type, JSON.parse(entry.json)));
  }

  sendError(error: TollgateError, replyTo?: ReplyTo): void {
    this.#lastError = error;
    const fields = publicError(error);
    if (replyTo && 'ack' in replyTo) return replyTo.ack({ error: fields });
    this.#write(() => this.#socket.emit('error', { ...fields, timestamp: new Date(this.#clock.now()).toISOString() }));
  }

  /** Engine.IO sends its own pings. */
  ping(): void {}

  close(code: number): void {
    if (this.#waiting) {
      // The middleware refuses the client, or has just let it in: then the close follows what waits.
      this.#closeCode = code;
      return this.#refused();
    }
    if (!COME_BACK_CODES.has(code)) this.#socket.disconnect(true);
    this.#closer.close(this.#socket.conn);
  }

  #write(write: () => void): void {
    if (this.#waiting) this.#waiting.push(write);
    else write();
  }
}

function packetLength({ data }: EnginePacket): number {
  return typeof data === 'string' ? data.length : 0;
}

/** Bytes as JSON; undefined for what is nested too deeply to be written. */
function sizeOf(value: unknown): number | undefined {
  try {
    return Buffer.byteLength(JSON.stringify(value) ?? '');
  } catch {
    return undefined;
  }
}
