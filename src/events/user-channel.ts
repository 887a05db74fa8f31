import type { z } from 'zod';
import type { PublishedEventFields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/**
 * Publishes an event to the live connections of a user, on any node. An event without a receiver is lost: durable
 * events belong in the event log.
 * @returns the number of nodes that serve the user and received the event
 * @throws RedisUnavailable
 */
export async function publishToUser(
  { redis, keys }: { readonly redis: Redis; readonly keys: Keys },
  userId: string,
  event: z.infer<typeof PublishedEventFields>,
): Promise<number> {
  // The prefix `c` distinguishes control messages from the events of the log (`e`).
  const message = `c${JSON.stringify({ control: 'publish', event })}`;
  return Number(await mapRedisErrors(redis.spublish(keys.user(userId).channel, message)));
}
