import type { z } from 'zod';
import type { PublishedEventFields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/** Speaks to a user's live connections, on whichever nodes they are. What nobody hears is gone: the log is for the rest. */
export class UserChannel {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /**
   * @returns how many nodes hold the user, and were told
   * @throws TollgateError OVERLOADED while Redis is away
   */
  async publish(userId: string, event: z.infer<typeof PublishedEventFields>): Promise<number> {
    // The `c` marks a message for connections, beside the events of the log.
    const message = `c${JSON.stringify({ control: 'publish', event })}`;
    return Number(await mapRedisErrors(this.#redis.spublish(this.#keys.user(userId).channel, message)));
  }
}
