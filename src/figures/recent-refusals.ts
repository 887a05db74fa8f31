import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/** Period of the writes, as that of the readings of figures. */
const WRITE_MS = 5_000;
/**
 * A user who is refused for long gets one entry per code and minute; only the first one is written at the next write.
 */
const REPEAT_MS = 60_000;
/** Pairs of user and code that a process remembers. Refusals of further pairs are in the metrics only. */
const MAX_REMEMBERED = 2_000;
/** Entries per write: bounds the load on Redis when many users are refused at once. The others follow. */
const MAX_WRITTEN = 200;
/** Retention of the stream, whichever bound is reached first. */
export const REFUSAL_ENTRIES = 2_000;
const KEPT_MS = 24 * 3_600_000;
const MAX_TEXT = 200;
/** Erasures in progress, and erasures of the last minutes, that a write looks at; there are few at a time. */
const MAX_ERASURES = 1_000;

const Entry = z.object({
  user_id: z.string(),
  code: z.string(),
  count: z.int(),
  at: z.int(),
  text: z.string(),
});

/** Refusals of a user with one code by one process, of at most a minute. */
export interface Refusals {
  readonly user_id: string;
  readonly code: string;
  readonly count: number;
  /** Time of the last one, milliseconds since the epoch. */
  readonly at: number;
  /** Text of the last error, shortened. */
  readonly text: string;
}

interface Counted {
  readonly userId: string;
  readonly code: string;
  count: number;
  at: number;
  text: string;
  /** Time of the last write; undefined before the first. */
  writtenAt: number | undefined;
}

interface WrittenEntry {
  /** Id in the stream. */
  readonly id: string;
  readonly userId: string;
}

interface RecentRefusalsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Pick<Logger, 'debug'>;
}

/**
 * The latest refusals of all users, so that operators see who is refused and why. Each process counts in memory and
 * writes every five seconds, so that a refusal costs no command. The list is bounded and may miss refusals; the metrics
 * count all.
 */
export class RecentRefusals implements RefusalSink {
  readonly #deps: RecentRefusalsDeps;
  /** By user and code, the longest unchanged first. */
  readonly #counted = new Map<string, Counted>();
  #stopTimer: (() => void) | undefined;
  /** The write in progress; the next one waits for it. */
  #writing: Promise<void> = Promise.resolve();
  #isWriting = false;
  /** Entries written since erased users were last looked up; at most those of one write. */
  #unchecked: readonly WrittenEntry[] = [];

  constructor(deps: RecentRefusalsDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#stopTimer = this.#deps.clock.every(WRITE_MS, () => {
      if (!this.#isWriting) this.#writing = this.#write(REPEAT_MS);
    });
  }

  /** Stops, and writes what is counted. */
  async stop(): Promise<void> {
    this.#stopTimer?.();
    await this.#writing;
    await this.#write(0);
  }

  refused(userId: string, { code, message }: { readonly code: string; readonly message: string }): void {
    const key = `${code} ${userId}`;
    const at = this.#deps.clock.now();
    const known = this.#counted.get(key);
    if (known) {
      known.count += 1;
      known.at = at;
      known.text = message;
      return;
    }
    if (this.#counted.size >= MAX_REMEMBERED) return;
    this.#counted.set(key, { userId, code, count: 1, at, text: message, writtenAt: undefined });
  }

  /** Lists the latest refusals, newest first, at most `REFUSAL_ENTRIES`. @throws RedisUnavailable */
  async read(): Promise<Refusals[]> {
    const { redis, keys } = this.#deps;
    const rows = await mapRedisErrors(redis.xrevrange(keys.refusals, '+', '-', 'COUNT', REFUSAL_ENTRIES));
    const oldest = this.#deps.clock.now() - KEPT_MS;
    const entries = rows.flatMap(([, [, user = '', , json = 'null']]) => {
      const parsed = Entry.safeParse({ user_id: user, ...JSON.parse(json) });
      return parsed.success && parsed.data.at >= oldest ? [parsed.data] : [];
    });
    return entries.toSorted((one, other) => other.at - one.at);
  }

  async #write(repeatMs: number): Promise<void> {
    const now = this.#deps.clock.now();
    if (this.#unchecked.length === 0 && this.#due(now, repeatMs).length === 0) return;
    this.#isWriting = true;
    try {
      await this.#forgetErased();
      const written = this.#due(now, repeatMs).map((counted) => ({ counted, count: counted.count }));
      this.#unchecked = await this.#append(
        written.map(({ counted }) => counted),
        now,
      );
      for (const { counted, count } of written) {
        counted.count -= count;
        counted.writtenAt = now;
      }
      // An erasure that began during the write may have looked at the list before.
      await this.#forgetErased();
    } catch (error) {
      // The counts are kept for the next write.
      this.#deps.logger.debug({ error: (error as Error).message }, 'refusals could not be stored');
    } finally {
      this.#isWriting = false;
    }
  }

  /** Returns what the next write contains, and forgets users who have not been refused for long. */
  #due(now: number, repeatMs: number): Counted[] {
    const due: Counted[] = [];
    for (const [key, counted] of this.#counted) {
      const isDue = counted.writtenAt === undefined || Math.abs(now - counted.writtenAt) >= repeatMs;
      if (!isDue) continue;
      if (counted.count === 0) this.#counted.delete(key);
      else if (due.length < MAX_WRITTEN) due.push(counted);
    }
    return due;
  }

  /**
   * Drops the counts of users whose data is being erased, or was erased after they were counted, and removes the
   * entries about them of the last write. Such a user is blocked, so its clients are refused during the erasure.
   */
  async #forgetErased(): Promise<void> {
    const { redis, keys } = this.#deps;
    const [members, hashes] = await mapRedisErrors(
      Promise.all([
        redis.zrange(keys.erasures, 0, String(MAX_ERASURES - 1)),
        redis.zrange(keys.erasedUsers, 0, String(MAX_ERASURES - 1), 'REV'),
      ]),
    );
    const erasing = new Set(members.map((member) => member.slice(member.indexOf(' ') + 1)));
    const erased = new Set(hashes);
    const isErased = (userId: string) => erasing.has(userId) || (erased.size > 0 && erased.has(userHash(userId)));
    for (const [key, { userId }] of this.#counted) if (isErased(userId)) this.#counted.delete(key);
    const ids = this.#unchecked.filter(({ userId }) => isErased(userId)).map(({ id }) => id);
    if (ids.length > 0) await mapRedisErrors(redis.xdel(keys.refusals, ...ids));
    this.#unchecked = [];
  }

  /** Returns the ids of the entries. */
  async #append(all: readonly Counted[], now: number): Promise<WrittenEntry[]> {
    if (all.length === 0) return [];
    const { redis, keys } = this.#deps;
    const pipeline = redis.pipeline();
    for (const { userId, code, count, at, text } of all) {
      const entry = JSON.stringify({ code, count, at, text: text.slice(0, MAX_TEXT).toWellFormed() });
      pipeline.xadd(keys.refusals, 'MAXLEN', '~', REFUSAL_ENTRIES, '*', 'user', userId, 'entry', entry);
    }
    pipeline.xtrim(keys.refusals, 'MINID', '~', Math.max(0, now - KEPT_MS));
    pipeline.pexpire(keys.refusals, KEPT_MS);
    const replies = await mapRedisErrors(pipeline.exec());
    const failed = replies?.find(([error]) => error !== null)?.[0];
    if (failed) throw failed;
    return all.map(({ userId }, at) => ({ id: String(replies?.[at]?.[1]), userId }));
  }
}
