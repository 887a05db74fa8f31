import { type Clock, sleep } from '../lib/clock.ts';
import type { ReplyTo } from '../protocol/dialects.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
import { OUTPUT_LIMIT_BYTES, OUTPUT_LOW_BYTES, OUTPUT_TIMEOUT_MS } from './limits.ts';
import type { Transport } from './transport.ts';

const POLL_MS = 20;

/**
 * What a connection writes, with a bound: neither `ws` nor engine.io has one, so that a client that stops reading would
 * cost the node's memory. A slow reader is told so by name and finds everything durable in its log.
 */
export class ConnectionWriter {
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #onOverflow: () => void;
  readonly #closeSignal: AbortSignal;
  /** When the client last took something of what is buffered, ms since the epoch; undefined while nothing is buffered. */
  #progressedAt: number | undefined;
  #progress = '';

  /** @param onOverflow called once the client has let too much pile up, or has taken nothing of it for too long */
  constructor(
    { transport, clock }: { transport: Transport; clock: Clock },
    closeSignal: AbortSignal,
    onOverflow: () => void,
  ) {
    this.#transport = transport;
    this.#clock = clock;
    this.#closeSignal = closeSignal;
    this.#onOverflow = onOverflow;
  }

  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void {
    this.#write(() => this.#transport.send(type, fields, replyTo));
  }

  sendEntry(entry: LogEntry): void {
    this.#write(() => this.#transport.sendEntry(entry));
  }

  sendFrame(frame: string): void {
    this.#write(() => this.#transport.sendFrame?.(frame));
  }

  sendError(error: TollgateError, replyTo?: ReplyTo): void {
    this.#write(() => this.#transport.sendError(error, replyTo));
  }

  /** Called about once a second: ends a connection whose client takes nothing of what is buffered. */
  tick(now: number): void {
    if (this.#closeSignal.aborted) return;
    if (this.#transport.bufferedBytes === 0) {
      this.#progressedAt = undefined;
      return;
    }
    const { progress } = this.#transport;
    if (this.#progressedAt === undefined || progress !== this.#progress) {
      this.#progressedAt = now;
      this.#progress = progress;
    } else if (now - this.#progressedAt >= OUTPUT_TIMEOUT_MS) this.#onOverflow();
  }

  /** The clock was set, or the process was stopped: the client could take nothing meanwhile. */
  onClockJump(): void {
    this.#progressedAt = undefined;
  }

  /** Resolves when the client has taken most of what was written; false when it is gone or took too long. */
  async untilDrained(): Promise<boolean> {
    for (let waited = 0; this.#transport.bufferedBytes > OUTPUT_LOW_BYTES; waited += POLL_MS) {
      if (this.#closeSignal.aborted) return false;
      if (waited >= OUTPUT_TIMEOUT_MS) {
        this.#onOverflow();
        return false;
      }
      await sleep(this.#clock, POLL_MS, this.#closeSignal);
    }
    return !this.#closeSignal.aborted;
  }

  #write(write: () => void): void {
    if (this.#closeSignal.aborted) return;
    write();
    if (this.#transport.bufferedBytes > OUTPUT_LIMIT_BYTES) this.#onOverflow();
  }
}
