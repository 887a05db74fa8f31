import type { WebSocket } from 'ws';
import type { Transport } from '../connections/transport.ts';
import type { Clock } from '../lib/clock.ts';
import type { Dialect, ReplyTo } from '../protocol/dialects.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';

/** A client that does not answer the close frame is cut off after this. */
const CLOSE_PATIENCE_MS = 2_000;

/** Frames of durable events, rendered once per dialect, however many sockets of a user take them. */
export class FrameCache {
  readonly #frames = new WeakMap<LogEntry, Map<Dialect, string>>();

  frame(entry: LogEntry, dialect: Dialect): string {
    const frames = this.#frames.get(entry) ?? new Map<Dialect, string>();
    const frame = frames.get(dialect) ?? dialect.encodeEntry(entry);
    this.#frames.set(entry, frames.set(dialect, frame));
    return frame;
  }
}

/** A raw WebSocket as a transport. */
export class RawTransport implements Transport {
  readonly endpoint: string;
  readonly #socket: WebSocket;
  readonly #dialect: Dialect;
  readonly #clock: Clock;
  readonly #frames: FrameCache;

  constructor(
    deps: { readonly socket: WebSocket; readonly clock: Clock; readonly frames: FrameCache },
    endpoint: { readonly path: string; readonly dialect: Dialect },
  ) {
    this.#socket = deps.socket;
    this.#clock = deps.clock;
    this.#frames = deps.frames;
    this.endpoint = endpoint.path;
    this.#dialect = endpoint.dialect;
  }

  get format() {
    return this.#dialect.format;
  }

  get bufferedBytes(): number {
    return this.#socket.bufferedAmount;
  }

  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void {
    this.#write(this.#dialect.encode(type, fields, this.#now(), replyTo));
  }

  sendEntry(entry: LogEntry): void {
    this.#write(this.#frames.frame(entry, this.#dialect));
  }

  sendError(error: TollgateError, replyTo?: ReplyTo): void {
    this.#write(this.#dialect.encodeError(error, this.#now(), replyTo));
  }

  ping(): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.ping();
  }

  close(code: number, reason: string): void {
    this.#socket.close(code, reason);
    this.#clock.after(CLOSE_PATIENCE_MS, () => this.#socket.terminate());
  }

  #write(frame: string): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.send(frame);
  }

  #now(): Date {
    return new Date(this.#clock.now());
  }
}
