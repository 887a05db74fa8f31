import { Cluster } from 'ioredis';
import type { Redis } from './connection.ts';
import { slotOf } from './slots.ts';

/**
 * Tells when the sharded subscriptions of a connection hold again after they were lost: what was published in between
 * was missed. A loss on the way is told once it is over.
 * @param channels those that are wanted, asked when it matters
 * @returns stops telling
 */
export function onRestored(subscriber: Redis, channels: () => Iterable<string>, restored: () => void): () => void {
  const restore =
    subscriber instanceof Cluster
      ? // ioredis subscribes anew itself, and remembers a channel as often as it is asked for it: each shard is asked
        // for an answer that comes behind those subscriptions. Twice, since on a connection that is still being made the
        // first is sent before them.
        () => pingShards(subscriber).then(() => pingShards(subscriber))
      : // ioredis restores only what had been confirmed before the loss; a second one on the way would leave the rest
        // behind for good.
        () => Promise.all([...channels()].map((name) => subscriber.ssubscribe(name)));
  // Lost again: it is told after the next.
  const listener = () => void restore().then(restored, () => undefined);
  const event = subscriber instanceof Cluster ? 'subscribersReady' : 'ready';
  subscriber.on(event, listener);
  return () => void subscriber.off(event, listener);
}

/** Tags enough to meet every shard that holds something: those of the partitions, see `keys.ts`. */
const TAGS = Array.from({ length: 64 }, (_, at) => `{p${at}}`);

/**
 * One round trip to each shard on the connection for its subscriptions, so that silence shows there: ioredis has no ping
 * for these, and giving up a channel that nobody has is answered like any other.
 * @throws Error when one of them does not answer
 */
export async function pingShards(subscriber: Cluster): Promise<void> {
  const byMaster = new Map(TAGS.map((tag) => [subscriber.slots[slotOf(tag)]?.[0], tag]));
  await Promise.all([...byMaster.values()].map((tag) => subscriber.sunsubscribe(tag)));
}
