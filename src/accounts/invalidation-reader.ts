import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { onRestored } from '../redis/subscriptions.ts';
import { type Invalidation, parseInvalidation } from './invalidations.ts';

/** An announcement with the time, by Redis's clock, at which it was made. */
export interface TimedInvalidation {
  readonly invalidation: Invalidation;
  readonly atMs: number;
}

/** Who acts on announcements. What rejects is tried again: both must be harmless when they are done twice. */
export interface InvalidationListener {
  /** A page of them, in the order in which they were made. */
  onInvalidations(page: readonly TimedInvalidation[]): Promise<void>;
  /** Some may have been missed for good: look at everything again. */
  reload(): Promise<void>;
}

export interface InvalidationReaderDeps {
  /** For reading. */
  readonly redis: Redis;
  /** For the nudge: a connection in the role `subscriber`. */
  readonly subscriber: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly listener: InvalidationListener;
}

const PAGE = 500;
/** A nudge can be lost without a word, with the connection that it was sent on. */
const POLL_MS = 2_000;

/**
 * This node's place in the stream of announcements. It reads on whenever a nudge comes, whenever a connection to Redis is
 * back, and by the clock. The place is an entry: while that entry is in the stream, what follows it is all there is to
 * know. When it is not (so much was announced meanwhile that it was trimmed, the data was lost, or a replica that
 * lagged has taken over) the listener looks at everything again, from a place taken before it does.
 */
export class InvalidationReader {
  readonly #deps: InvalidationReaderDeps;
  readonly #wake = () => void this.read();
  readonly #onMessage = (channel: string) => {
    if (channel === this.#deps.keys.invalidationChannel) this.#wake();
  };
  /** The entry read last; undefined while the stream was empty. */
  #position: string | undefined;
  #reading: Promise<void> | undefined;
  #again = false;
  readonly #stops: (() => void)[] = [];

  constructor(deps: InvalidationReaderDeps) {
    this.#deps = deps;
  }

  /** Resolves when the listener knows everything that is stored. @throws TollgateError OVERLOADED while Redis is away */
  async start(): Promise<void> {
    const { redis, subscriber, keys, clock } = this.#deps;
    subscriber.on('smessage', this.#onMessage);
    redis.on('ready', this.#wake);
    const restored = onRestored(subscriber, () => [keys.invalidationChannel], this.#wake);
    this.#stops.push(restored, clock.every(POLL_MS, this.#wake));
    // Before the first look, so that nothing is announced between the two unheard.
    await mapRedisErrors(subscriber.ssubscribe(keys.invalidationChannel));
    await this.#reload();
  }

  async stop(): Promise<void> {
    const { redis, subscriber } = this.#deps;
    for (const stop of this.#stops.splice(0)) stop();
    subscriber.off('smessage', this.#onMessage);
    redis.off('ready', this.#wake);
    this.#again = false;
    await this.#reading;
  }

  /** Reads to the end of the stream; calls during a round are joined into one more. Never rejects. */
  read(): Promise<void> {
    this.#again = true;
    this.#reading ??= this.#readUntilCurrent().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readUntilCurrent(): Promise<void> {
    while (this.#again) {
      this.#again = false;
      // It is read as soon as the connection is back.
      if (this.#deps.redis.status !== 'ready') return;
      try {
        while (await this.#readPage());
      } catch (error) {
        this.#deps.logger.warn({ err: error }, 'announcements were not read; the next look does it');
      }
    }
  }

  /** Whether there may be more. */
  async #readPage(): Promise<boolean> {
    const { redis, keys, listener } = this.#deps;
    // The place itself comes first, if it is still there.
    const found = await mapRedisErrors(redis.xrange(keys.invalidations, this.#position ?? '-', '+', 'COUNT', PAGE + 1));
    if (found.length === 0 && this.#position === undefined) return false;
    const [first, ...entries] = found;
    if (this.#position === undefined || first?.[0] !== this.#position) {
      await this.#reload();
      return true;
    }
    const last = entries.at(-1);
    if (!last) return false;
    await listener.onInvalidations(entries.flatMap(([id, fields]) => timedInvalidation(id, fields)));
    this.#position = last[0];
    return entries.length === PAGE;
  }

  async #reload(): Promise<void> {
    const { redis, keys, listener } = this.#deps;
    const [newest] = await mapRedisErrors(redis.xrevrange(keys.invalidations, '+', '-', 'COUNT', 1));
    await listener.reload();
    this.#position = newest?.[0];
  }
}

function timedInvalidation(id: string, fields: readonly string[]): TimedInvalidation[] {
  const invalidation = parseInvalidation(fields);
  return invalidation ? [{ invalidation, atMs: Number(id.split('-')[0]) }] : [];
}
