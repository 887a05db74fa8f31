import type { WebSocket } from 'ws';
import type { Transport } from '../connections/transport.ts';
import type { Clock } from '../lib/clock.ts';
import type { Dialect, ReplyTo } from '../protocol/dialects.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
import { writeProgress } from './write-progress.ts';

/**
 * Caches the frames of the last encoded event, one per dialect. All connections of a user send an event directly after
 * each other, so one entry is as effective as a map.
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

/** Transport over a raw WebSocket. */
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
    // During the handshake the socket is paused; the client's close frame must be read.
    this.#socket.resume();
    this.#socket.close(code, reason);
  }

  /** A dialect may have no frame for a message. */
  #write(frame: string): void {
    if (frame !== '' && this.#socket.readyState === this.#socket.OPEN) this.#socket.send(frame);
  }

  #now(): Date {
    return new Date(this.#clock.now());
  }
}
