import { THREADS_KEPT } from '../catalogue/plans.ts';
import type { UserLogWriter } from '../events/user-log-writer.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { integer, literal, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';

const createThread = LuaScript.load('createThread-5', tuple([literal('created', 'exists', 'full'), integer]));

/** A thread expires three months after its last message. */
export const THREAD_KEPT_MS = 90 * 24 * 3_600_000;
const TITLE_LENGTH = 80;
/** Id of a Redis stream entry. Redis would reject an id with more digits. */
const MESSAGE_ID = /^\d{1,15}-\d{1,15}$/;

export interface Thread {
  readonly thread_id: string;
  readonly title: string;
  readonly created_at: string;
  readonly updated_at: string;
}

/** Returns the stored fields of a new thread. The title is the first message or the title given at creation. */
export function threadInfo(title: string, now: number): { title: string; created_at: string } {
  const line = title.replaceAll(/\s+/g, ' ').trim();
  const short = line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH - 1).toWellFormed()}…` : line;
  return { title: short, created_at: new Date(now).toISOString() };
}

export interface ThreadsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly log: Pick<UserLogWriter, 'appendWith'>;
  readonly clock: Clock;
}

/** Threads of users in Redis: the messages of each thread, and a list per user by last change. */
export class Threads {
  readonly #deps: ThreadsDeps;

  constructor(deps: ThreadsDeps) {
    this.#deps = deps;
  }

  /** Lists threads by last change, newest first; at most `limit`. */
  async list(userId: string, limit = 100): Promise<Thread[]> {
    const keys = this.#deps.keys.user(userId);
    const ranking = this.#deps.redis.zrevrange(keys.threads, 0, limit - 1, 'WITHSCORES');
    const [ranked, info] = await mapRedisErrors(Promise.all([ranking, this.#deps.redis.hgetall(keys.threadInfo)]));
    const threads: Thread[] = [];
    for (let i = 0; i < ranked.length; i += 2) {
      const id = ranked[i] ?? '';
      const stored = info[id];
      if (stored === undefined) continue;
      const { title, created_at } = JSON.parse(stored) as { title: string; created_at: string };
      threads.push({ thread_id: id, title, created_at, updated_at: new Date(Number(ranked[i + 1])).toISOString() });
    }
    return threads;
  }

  /**
   * Returns messages of a thread, newest first.
   * @param page.before the `before` of the previous page; undefined starts with the newest message
   */
  async history(
    userId: string,
    page: { readonly threadId: string; readonly before: string | undefined; readonly limit: number },
  ): Promise<{ messages: Fields[]; before: string | null }> {
    const from = page.before !== undefined && MESSAGE_ID.test(page.before) ? `(${page.before}` : '+';
    const key = this.#deps.keys.user(userId).thread(page.threadId);
    const entries = await mapRedisErrors(this.#deps.redis.xrevrange(key, from, '-', 'COUNT', page.limit));
    const messages = entries.map(([id, [, json = '{}']]) => ({
      message_id: id,
      ...(JSON.parse(json) as Fields),
      at: new Date(Number.parseInt(id, 10)).toISOString(),
    }));
    return { messages, before: entries.length === page.limit ? (entries.at(-1)?.[0] ?? null) : null };
  }

  /**
   * Creates a thread, once per id, and sends `thread_updated` to the user's connections. Returns `full` when the user
   * has as many threads as the plan allows.
   */
  async create(
    userId: string,
    thread: { readonly threadId: string; readonly title: string; readonly allowed: number | null },
  ): Promise<{ outcome: 'created' | 'exists' | 'full'; threads: number }> {
    const keys = this.#deps.keys.user(userId);
    const { title, created_at } = threadInfo(thread.title, this.#deps.clock.now());
    const ids = { event_id: newId('evt'), user_id: userId, thread_id: thread.threadId };
    const [outcome, threads] = await this.#deps.log.appendWith(userId, {
      script: createThread,
      event: 'thread_updated',
      outcomeOf: ([result]) => (result === 'created' ? 'appended' : 'none'),
      keys: [keys.threads, keys.threadInfo, keys.thread(thread.threadId), keys.log, keys.logState],
      args: [
        thread.threadId,
        JSON.stringify({ title, created_at }),
        thread.allowed ?? THREADS_KEPT,
        THREAD_KEPT_MS,
        created_at,
        JSON.stringify({ ...ids, title, created_at, updated_at: created_at, timestamp: created_at }),
      ],
    });
    return { outcome, threads };
  }
}
