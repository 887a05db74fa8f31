import { Cluster } from 'ioredis';
import type { Redis } from './connection.ts';
import { slotOf } from './slots.ts';

/**
 * Calls `restored` each time the sharded subscriptions of a connection are active again after a loss. Messages that
 * were published in between are missed. If the connection is lost again during the restoration, the call follows the
 * next successful one.
 * @param channels returns the wanted channels; called at each restoration
 * @returns a function that removes the listener
 */
export function onRestored(subscriber: Redis, channels: () => Iterable<string>, restored: () => void): () => void {
  const restore =
    subscriber instanceof Cluster
      ? // ioredis itself subscribes again, and stores a channel once per subscribe request, so this code only waits.
        // Each shard answers a ping behind those subscriptions. There are two pings, because on a connection that is
        // not established yet the first one is sent before the subscriptions.
        () => pingShards(subscriber).then(() => pingShards(subscriber))
      : // ioredis restores only the subscriptions that Redis confirmed before the loss. A second loss during the
        // restoration would drop the others permanently.
        () => Promise.all([...channels()].map((name) => subscriber.ssubscribe(name)));
  // A rejection means that the connection was lost again; the next restoration calls `restored`.
  const listener = () => void restore().then(restored, () => undefined);
  const event = subscriber instanceof Cluster ? 'subscribersReady' : 'ready';
  subscriber.on(event, listener);
  return () => void subscriber.off(event, listener);
}

/** The hash tags of the partitions (see `keys.ts`): together they cover every shard that stores user data. */
const TAGS = Array.from({ length: 64 }, (_, at) => `{p${at}}`);

/**
 * Makes one round trip to each shard on its subscriber connection, so that an unresponsive shard is detected. ioredis
 * has no ping for these connections. Redis answers an SUNSUBSCRIBE of a channel without a subscription like any other.
 * @throws Error when a shard does not answer
 */
export async function pingShards(subscriber: Cluster): Promise<void> {
  const byMaster = new Map(TAGS.map((tag) => [subscriber.slots[slotOf(tag)]?.[0], tag]));
  await Promise.all([...byMaster.values()].map((tag) => subscriber.sunsubscribe(tag)));
}
