import { type Clock, sleep } from '../lib/clock.ts';
import type { ReplyTo } from '../protocol/dialects.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
import { OUTPUT_LIMIT_BYTES, OUTPUT_LOW_BYTES, OUTPUT_PATIENCE_MS } from './limits.ts';
import type { Transport } from './transport.ts';

const LOOK_AGAIN_MS = 20;

/**
 * What a connection writes, with a bound: neither `ws` nor engine.io has one, so that a client that stops reading would
 * cost the node's memory. A slow reader is told so by name and finds everything durable in its log.
 */
export class Outbox {
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #overflow: () => void;
  readonly #closed: AbortSignal;

  /** @param overflow called once the client has let too much pile up */
  constructor({ transport, clock }: { transport: Transport; clock: Clock }, closed: AbortSignal, overflow: () => void) {
    this.#transport = transport;
    this.#clock = clock;
    this.#closed = closed;
    this.#overflow = overflow;
  }

  send(type: ServerEventType, fields: Fields, replyTo?: ReplyTo): void {
    this.#write(() => this.#transport.send(type, fields, replyTo));
  }

  entry(entry: LogEntry): void {
    this.#write(() => this.#transport.sendEntry(entry));
  }

  frame(frame: string): void {
    this.#write(() => this.#transport.sendFrame?.(frame));
  }

  error(error: TollgateError, replyTo?: ReplyTo): void {
    this.#write(() => this.#transport.sendError(error, replyTo));
  }

  /** Resolves when the client has taken most of what was written; false when it is gone or took too long. */
  async drained(): Promise<boolean> {
    for (let waited = 0; this.#transport.bufferedBytes > OUTPUT_LOW_BYTES; waited += LOOK_AGAIN_MS) {
      if (this.#closed.aborted) return false;
      if (waited >= OUTPUT_PATIENCE_MS) {
        this.#overflow();
        return false;
      }
      await sleep(this.#clock, LOOK_AGAIN_MS, this.#closed);
    }
    return !this.#closed.aborted;
  }

  #write(write: () => void): void {
    if (this.#closed.aborted) return;
    write();
    if (this.#transport.bufferedBytes > OUTPUT_LIMIT_BYTES) this.#overflow();
  }
}
