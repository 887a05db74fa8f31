import type { WebSocket } from 'ws';
import type { Transport } from '../connections/transport.ts';
import type { Clock } from '../lib/clock.ts';
import type { Dialect, ReplyTo } from '../protocol/dialects.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
import { writeProgress } from './write-progress.ts';

/**
 * The frames of the event that was rendered last, one per dialect: the sockets of a user take an event one right after
 * the other, so that one place serves as well as a map of all.
 */
export class FrameCache {
  #entry: LogEntry | undefined;
  readonly #frames = new Map<Dialect, string>();

  frame(entry: LogEntry, dialect: Dialect): string {
    if (entry !== this.#entry) {
      this.#entry = entry;
      this.#frames.clear();
    }
    const cached = this.#frames.get(dialect);
    if (cached !== undefined) return cached;
    const frame = dialect.encodeEntry(entry);
    this.#frames.set(dialect, frame);
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

  get progress(): string {
    return writeProgress(this.#socket);
  }

  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void {
    this.#write(this.#dialect.encode(type, fields, this.#now(), replyTo));
  }

  sendEntry(entry: LogEntry): void {
    this.#write(this.#frames.frame(entry, this.#dialect));
  }

  sendFrame(frame: string): void {
    this.#write(frame);
  }

  sendError(error: TollgateError, replyTo?: ReplyTo): void {
    this.#write(this.#dialect.encodeError(error, this.#now(), replyTo));
  }

  ping(): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.ping();
  }

  close(code: number, reason: string): void {
    // One that is closed while it opens has not been read from yet; its answer to the close is.
    this.#socket.resume();
    this.#socket.close(code, reason);
  }

  #write(frame: string): void {
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.send(frame);
  }

  #now(): Date {
    return new Date(this.#clock.now());
  }
}
