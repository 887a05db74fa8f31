import type { z } from 'zod';
import type { PublishedEventFields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/**
 * Publishes messages to the live connections of a user, on any node. A message without a receiver is lost: durable
 * events belong in the event log.
 */
export class UserChannel {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /**
   * @returns the number of nodes that serve the user and received the message
   * @throws RedisUnavailable
   */
  async publish(userId: string, event: z.infer<typeof PublishedEventFields>): Promise<number> {
    // The prefix `c` distinguishes control messages from the events of the log (`e`).
    const message = `c${JSON.stringify({ control: 'publish', event })}`;
    return Number(await mapRedisErrors(this.#redis.spublish(this.#keys.user(userId).channel, message)));
  }
}
