import type { Redis } from 'ioredis';
import { PARTITIONS, partitionOf } from '../src/redis/keys.ts';

/** A node as a variant sees it. */
export interface VariantNode {
  readonly nodeId: string;
  /** The users with a connection here. */
  readonly userIds: ReadonlySet<string>;
  readonly commands: Redis;
  /** Only for subscriptions, or for a read that blocks. */
  readonly subscriber: Redis;
  /** An event as it was published: `<user> <event>`. */
  readonly arrived: (message: string) => void;
}

/** A way from the append to the nodes that hold the user. */
export interface Variant {
  readonly title: string;
  /** Listens for the node's users; what is appended after it has resolved arrives. */
  listen(node: VariantNode): Promise<void>;
  /** After the XADD to the user's log, in the same script. KEYS[1] log, ARGV[1] user, ARGV[2] partition, ARGV[3] event. */
  readonly notify: string;
}

const SHARED_STREAM = 'd:stream';
const directory = (userId: string) => `d:nodes:${userId}`;

async function register({ commands, nodeId, userIds }: VariantNode): Promise<void> {
  // One call a user, as connections come one by one.
  await Promise.all([...userIds].map((userId) => commands.sadd(directory(userId), nodeId)));
}

/** Hands over only what is for a user of this node; the user stands in front, so that nothing else is parsed. */
function ifServed({ userIds, arrived }: VariantNode): (message: string) => void {
  return (message) => {
    if (userIds.has(message.slice(0, message.indexOf(' ')))) arrived(message);
  };
}

/** Reads a stream from its end on, until the connection is closed. */
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

/** Appends to the user's log and notifies, in one script: what every variant costs is the same up to the notifying. */
export function appender(redis: Redis, variant: Variant): (userId: string, event: string) => Promise<unknown> {
  const lua = `redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1000, '*', 'e', ARGV[3])\n${variant.notify}\nreturn 1`;
  redis.defineCommand('append', { lua, numberOfKeys: 1 });
  const { append } = redis as unknown as { append: (...args: (string | number)[]) => Promise<unknown> };
  return (userId, event) => {
    const partition = partitionOf(userId);
    return append.call(redis, `d:{p${partition}}:${userId}:log`, userId, partition, event);
  };
}
