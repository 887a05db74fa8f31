import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { onRestored } from '../redis/subscriptions.ts';
import { type Invalidation, parseInvalidation } from './invalidations.ts';

/** An invalidation with its publication time on the clock of Redis. */
export interface TimedInvalidation {
  readonly invalidation: Invalidation;
  readonly atMs: number;
}

/** Applies invalidations. The reader repeats a rejected call, so both methods must be idempotent. */
export interface InvalidationListener {
  /** Applies a page of invalidations, in order of publication. */
  onInvalidations(page: readonly TimedInvalidation[]): Promise<void>;
  /** Reloads all state, because invalidations may have been missed permanently. */
  reload(): Promise<void>;
}

export interface InvalidationReaderDeps {
  /** Connection for reads. */
  readonly redis: Redis;
  /** Connection in the role `subscriber`, for wake-ups. */
  readonly subscriber: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly listener: InvalidationListener;
}

const PAGE = 500;
/** Polling interval: a wake-up is silently lost together with its connection. */
const POLL_MS = 2_000;

/**
 * Reads the invalidation stream from this node's position. It reads on each wake-up, after each reconnect to Redis, and
 * every `POLL_MS`, because pub/sub can lose a wake-up.
 *
 * The position is the id of the last read entry. While the stream contains that entry, the entries after it are
 * complete. When it does not (it was trimmed, the data was lost, or a lagging replica was promoted), the listener
 * reloads all state, and reading continues from a position taken before the reload.
 */
export class InvalidationReader {
  readonly #deps: InvalidationReaderDeps;
  readonly #wake = () => void this.read();
  readonly #onMessage = (channel: string) => {
    if (channel === this.#deps.keys.invalidationChannel) this.#wake();
  };
  /** Id of the last read entry; undefined while the stream was empty. */
  #position: string | undefined;
  #reading: Promise<void> | undefined;
  #again = false;
  readonly #stops: (() => void)[] = [];

  constructor(deps: InvalidationReaderDeps) {
    this.#deps = deps;
  }

  /** Resolves when the listener has loaded all state. @throws RedisUnavailable */
  async start(): Promise<void> {
    const { redis, subscriber, keys, clock } = this.#deps;
    subscriber.on('smessage', this.#onMessage);
    redis.on('ready', this.#wake);
    const restored = onRestored(subscriber, () => [keys.invalidationChannel], this.#wake);
    this.#stops.push(restored, clock.every(POLL_MS, this.#wake));
    // Before the first read, so that no invalidation in between is missed.
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

  /** Reads to the end of the stream. Calls during a read cause one further read. Never rejects. */
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
      // The `ready` event of the connection starts the next read.
      if (this.#deps.redis.status !== 'ready') return;
      try {
        while (await this.#readPage());
      } catch (error) {
        this.#deps.logger.warn({ err: error }, 'reading invalidations failed, retrying');
      }
    }
  }

  /** Returns whether the stream may contain more entries. */
  async #readPage(): Promise<boolean> {
    const { redis, keys, listener } = this.#deps;
    // The first entry is the position itself, if the stream still contains it.
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
