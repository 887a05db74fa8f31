import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import { asked } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { onRestored } from '../redis/subscriptions.ts';
import { type Announcement, parseAnnouncement } from './announcements.ts';

/** An announcement with the time, by Redis's clock, at which it was made. */
export interface Announced {
  readonly announcement: Announcement;
  readonly atMs: number;
}

/** Who acts on announcements. What rejects is tried again: both must be harmless when they are done twice. */
export interface AnnouncementListener {
  /** A page of them, in the order in which they were made. */
  take(page: readonly Announced[]): Promise<void>;
  /** Some may have been missed for good: look at everything again. */
  reload(): Promise<void>;
}

export interface AnnouncementReaderDeps {
  /** For reading. */
  readonly redis: Redis;
  /** For the nudge: a connection in the role `subscriber`. */
  readonly subscriber: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly listener: AnnouncementListener;
}

const PAGE = 500;
/** A nudge can be lost without a word, with the connection that it was sent on. */
const LOOK_AGAIN_MS = 2_000;

/**
 * This node's place in the stream of announcements. It reads on whenever a nudge comes, whenever a connection to Redis is
 * back, and by the clock. The place is an entry: while that entry is in the stream, what follows it is all there is to
 * know. When it is not (so much was announced meanwhile that it was trimmed, the data was lost, or a replica that
 * lagged has taken over) the listener looks at everything again, from a place taken before it does.
 */
export class AnnouncementReader {
  readonly #deps: AnnouncementReaderDeps;
  readonly #wake = () => void this.read();
  readonly #heard = (channel: string) => {
    if (channel === this.#deps.keys.announced) this.#wake();
  };
  /** The entry read last; undefined while the stream was empty. */
  #place: string | undefined;
  #reading: Promise<void> | undefined;
  #again = false;
  readonly #stops: (() => void)[] = [];

  constructor(deps: AnnouncementReaderDeps) {
    this.#deps = deps;
  }

  /** Resolves when the listener knows everything that is stored. @throws TollgateError OVERLOADED while Redis is away */
  async start(): Promise<void> {
    const { redis, subscriber, keys, clock } = this.#deps;
    subscriber.on('smessage', this.#heard);
    redis.on('ready', this.#wake);
    const restored = onRestored(subscriber, () => [keys.announced], this.#wake);
    this.#stops.push(restored, clock.every(LOOK_AGAIN_MS, this.#wake));
    // Before the first look, so that nothing is announced between the two unheard.
    await asked(subscriber.ssubscribe(keys.announced));
    await this.#reload();
  }

  async stop(): Promise<void> {
    const { redis, subscriber } = this.#deps;
    for (const stop of this.#stops.splice(0)) stop();
    subscriber.off('smessage', this.#heard);
    redis.off('ready', this.#wake);
    this.#again = false;
    await this.#reading;
  }

  /** Reads to the end of the stream; calls during a round are joined into one more. Never rejects. */
  read(): Promise<void> {
    this.#again = true;
    this.#reading ??= this.#rounds().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #rounds(): Promise<void> {
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
    const found = await asked(redis.xrange(keys.announcements, this.#place ?? '-', '+', 'COUNT', PAGE + 1));
    if (found.length === 0 && this.#place === undefined) return false;
    const [first, ...news] = found;
    if (this.#place === undefined || first?.[0] !== this.#place) {
      await this.#reload();
      return true;
    }
    const last = news.at(-1);
    if (!last) return false;
    await listener.take(news.flatMap(([id, fields]) => announced(id, fields)));
    this.#place = last[0];
    return news.length === PAGE;
  }

  async #reload(): Promise<void> {
    const { redis, keys, listener } = this.#deps;
    const [newest] = await asked(redis.xrevrange(keys.announcements, '+', '-', 'COUNT', 1));
    await listener.reload();
    this.#place = newest?.[0];
  }
}

function announced(id: string, fields: readonly string[]): Announced[] {
  const announcement = parseAnnouncement(fields);
  return announcement ? [{ announcement, atMs: Number(id.split('-')[0]) }] : [];
}
