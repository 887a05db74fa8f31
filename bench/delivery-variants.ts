import type { Redis } from 'ioredis';
import { PARTITIONS, partitionOf } from '../src/redis/keys.ts';

/** A node as a variant uses it. */
export interface VariantNode {
  readonly nodeId: string;
  /** Users with a connection to this node. */
  readonly userIds: ReadonlySet<string>;
  readonly commands: Redis;
  /** A connection for subscriptions or a blocking read only. */
  readonly subscriber: Redis;
  /** Receives a published event: `<user> <event>`. */
  readonly arrived: (message: string) => void;
}

/** A way to deliver an appended event to the nodes that serve the user. */
export interface Variant {
  readonly title: string;
  /** Subscribes for the node's users. Events appended after it resolves arrive. */
  listen(node: VariantNode): Promise<void>;
  /**
   * Lua that runs after the XADD to the user's log, in the same script. KEYS[1] log, ARGV[1] user, ARGV[2] partition,
   * ARGV[3] event.
   */
  readonly notify: string;
}

const SHARED_STREAM = 'd:stream';
const directory = (userId: string) => `d:nodes:${userId}`;

async function register({ commands, nodeId, userIds }: VariantNode): Promise<void> {
  // One call per user, because connections arrive one by one.
  await Promise.all([...userIds].map((userId) => commands.sadd(directory(userId), nodeId)));
}

/** Passes on only events of users of this node. The user id comes first, so nothing else needs parsing. */
function ifServed({ userIds, arrived }: VariantNode): (message: string) => void {
  return (message) => {
    if (userIds.has(message.slice(0, message.indexOf(' ')))) arrived(message);
  };
}

/** Reads new entries of a stream until the connection closes. */
async function tail(stream: string, { subscriber }: VariantNode, deliver: (message: string) => void): Promise<void> {
  let after = String((await subscriber.xrevrange(stream, '+', '-', 'COUNT', 1))[0]?.[0] ?? '0-0');
  const loop = async () => {
    for (;;) {
      const reply = await subscriber.xread('COUNT', 100, 'BLOCK', 5_000, 'STREAMS', stream, after);
      for (const [, entries] of (reply ?? []) as [string, [string, string[]][]][]) {
        for (const [id, [, message = '']] of entries) {
          after = id;
          deliver(message);
        }
      }
    }
  };
  loop().catch(() => undefined);
}

export const VARIANTS = {
  userChannel: {
    title: 'sharded channel per user',
    async listen({ userIds, subscriber, arrived }) {
      subscriber.on('smessage', (_channel: string, message: string) => arrived(message));
      await Promise.all([...userIds].map((userId) => subscriber.ssubscribe(`d:{p${partitionOf(userId)}}:${userId}`)));
    },
    notify: "redis.call('SPUBLISH', 'd:{p' .. ARGV[2] .. '}:' .. ARGV[1], ARGV[1] .. ' ' .. ARGV[3])",
  },
  partitionChannel: {
    title: 'sharded channel per partition (64)',
    async listen(node) {
      const deliver = ifServed(node);
      node.subscriber.on('smessage', (_channel: string, message: string) => deliver(message));
      const partitions = Array.from({ length: PARTITIONS }, (_, partition) => `d:{p${partition}}`);
      await Promise.all(partitions.map((channel) => node.subscriber.ssubscribe(channel)));
    },
    notify: "redis.call('SPUBLISH', 'd:{p' .. ARGV[2] .. '}', ARGV[1] .. ' ' .. ARGV[3])",
  },
  nodeChannel: {
    title: 'channel per node, directory of users',
    async listen(node) {
      node.subscriber.on('message', (_channel: string, message: string) => node.arrived(message));
      await node.subscriber.subscribe(`d:node:${node.nodeId}`);
      await register(node);
    },
    notify: `for _, node in ipairs(redis.call('SMEMBERS', 'd:nodes:' .. ARGV[1])) do
      redis.call('PUBLISH', 'd:node:' .. node, ARGV[1] .. ' ' .. ARGV[3])
    end`,
  },
  broadcast: {
    title: 'classic pub/sub, every node psubscribed',
    async listen(node) {
      const deliver = ifServed(node);
      node.subscriber.on('pmessage', (_pattern: string, _channel: string, message: string) => deliver(message));
      await node.subscriber.psubscribe('d:user:*');
    },
    notify: "redis.call('PUBLISH', 'd:user:' .. ARGV[1], ARGV[1] .. ' ' .. ARGV[3])",
  },
  sharedStream: {
    title: 'one stream, every node in XREAD BLOCK',
    async listen(node) {
      await tail(SHARED_STREAM, node, ifServed(node));
    },
    notify: `redis.call('XADD', '${SHARED_STREAM}', 'MAXLEN', '~', 10000, '*', 'm', ARGV[1] .. ' ' .. ARGV[3])`,
  },
  nodeStream: {
    title: 'stream per node, directory of users',
    async listen(node) {
      await tail(`d:stream:${node.nodeId}`, node, node.arrived);
      await register(node);
    },
    notify: `for _, node in ipairs(redis.call('SMEMBERS', 'd:nodes:' .. ARGV[1])) do
      redis.call('XADD', 'd:stream:' .. node, 'MAXLEN', '~', 10000, '*', 'm', ARGV[1] .. ' ' .. ARGV[3])
    end`,
  },
} as const satisfies Record<string, Variant>;

export type VariantName = keyof typeof VARIANTS;

/**
 * Returns a function that appends to the user's log and notifies in one script. All variants share the cost up to the
 * notification.
 */
export function appender(redis: Redis, variant: Variant): (userId: string, event: string) => Promise<unknown> {
  const lua = `redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1000, '*', 'e', ARGV[3])\n${variant.notify}\nreturn 1`;
  redis.defineCommand('append', { lua, numberOfKeys: 1 });
  const { append } = redis as unknown as { append: (...args: (string | number)[]) => Promise<unknown> };
  return (userId, event) => {
    const partition = partitionOf(userId);
    return append.call(redis, `d:{p${partition}}:${userId}:log`, userId, partition, event);
  };
}
