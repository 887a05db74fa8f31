import { type Clock, sleep } from '../lib/clock.ts';
import type { ReplyTo } from '../protocol/dialects.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
import { OUTPUT_LIMIT_BYTES, OUTPUT_LOW_BYTES, OUTPUT_TIMEOUT_MS } from './limits.ts';
import type { Transport } from './transport.ts';

const POLL_MS = 20;

/** The connection of a writer. */
export interface WriterOwner {
  /** Whether the socket has closed; all output is dropped then. */
  readonly disconnected: boolean;
  /** Too much output is buffered, or the client has read none of it for too long. */
  onOverflow(): void;
}

/**
 * Bounded output of one connection. Neither `ws` nor engine.io bounds its write buffer, so a client that stops reading
 * would consume the node's memory. `onOverflow` closes the connection with `SLOW_CONSUMER` when more than
 * `OUTPUT_LIMIT_BYTES` are unread beside one large message, or nothing was read for `OUTPUT_TIMEOUT_MS`. Durable events
 * remain in the event log.
 */
export class ConnectionWriter {
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #owner: WriterOwner;
  /** When the client last read some of the buffered output, ms since the epoch; undefined while nothing is buffered. */
  #progressedAt: number | undefined;
  #progress = '';
  /**
   * Size of the latest large message that may still be buffered. It does not count towards the limit: a snapshot of a
   * long run can exceed it, and its client could never come back.
   */
  #largeBytes = 0;

  constructor(transport: Transport, clock: Clock, owner: WriterOwner) {
    this.#transport = transport;
    this.#clock = clock;
    this.#owner = owner;
  }

  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void {
    if (this.#owner.disconnected) return;
    const { bufferedBytes } = this.#transport;
    this.#transport.send(type, fields, replyTo);
    this.#checkBound(bufferedBytes);
  }

  sendEntry(entry: LogEntry): void {
    if (this.#owner.disconnected) return;
    const { bufferedBytes } = this.#transport;
    this.#transport.sendEntry(entry);
    this.#checkBound(bufferedBytes);
  }

  sendFrame(frame: string): void {
    if (this.#owner.disconnected) return;
    this.#transport.sendFrame?.(frame);
    this.#checkBound();
  }

  sendError(error: TollgateError, replyTo?: ReplyTo): void {
    if (this.#owner.disconnected) return;
    this.#transport.sendError(error, replyTo);
    this.#checkBound();
  }

  /** Runs about once per second: closes a connection whose client reads none of the buffered output. */
  tick(now: number): void {
    if (this.#owner.disconnected) return;
    if (this.#transport.bufferedBytes === 0) {
      this.#progressedAt = undefined;
      return;
    }
    const { progress } = this.#transport;
    if (this.#progressedAt === undefined || progress !== this.#progress) {
      this.#progressedAt = now;
      this.#progress = progress;
    } else if (now - this.#progressedAt >= OUTPUT_TIMEOUT_MS) this.#owner.onOverflow();
  }

  /** Restarts the timeout after the clock was set or the process was suspended: the client could not read meanwhile. */
  onClockJump(): void {
    this.#progressedAt = undefined;
  }

  /** Resolves when at most `OUTPUT_LOW_BYTES` are unread; with false when the client disconnected or took too long. */
  async untilDrained(): Promise<boolean> {
    for (let waited = 0; this.#transport.bufferedBytes > OUTPUT_LOW_BYTES; waited += POLL_MS) {
      if (this.#owner.disconnected) return false;
      if (waited >= OUTPUT_TIMEOUT_MS) {
        this.#owner.onOverflow();
        return false;
      }
      await sleep(this.#clock, POLL_MS);
    }
    return !this.#owner.disconnected;
  }

  /** @param before bytes that were buffered before a message that may be large */
  #checkBound(before?: number): void {
    const { bufferedBytes } = this.#transport;
    if (bufferedBytes <= OUTPUT_LOW_BYTES) this.#largeBytes = 0;
    else if (before !== undefined) {
      const messageBytes = bufferedBytes - before;
      if (messageBytes > OUTPUT_LOW_BYTES) this.#largeBytes = messageBytes;
    }
    if (bufferedBytes > OUTPUT_LIMIT_BYTES + this.#largeBytes) this.#owner.onOverflow();
  }
}
