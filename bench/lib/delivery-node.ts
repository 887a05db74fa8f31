import { Redis } from 'ioredis';
import { VARIANTS, type VariantName } from '../delivery-variants.ts';

/** Orders to a node of the delivery benchmark. */
export type NodeOrder =
  | { readonly do: 'connect' }
  | { readonly do: 'listen'; readonly variant: VariantName; readonly userIds: readonly string[] }
  | { readonly do: 'count' }
  | { readonly do: 'leave' };

/** A gateway reduced to delivery: it receives, parses and counts the events of its users. */
const [redisUrl = '', nodeId = ''] = process.argv.slice(2);
let connections: Redis[] = [];
let arrived = 0;

async function connect(): Promise<void> {
  connections = [new Redis(redisUrl), new Redis(redisUrl)];
  await Promise.all(connections.map((connection) => connection.ping()));
}

async function listen(variant: VariantName, userIds: readonly string[]): Promise<void> {
  arrived = 0;
  const [commands, subscriber] = connections;
  if (!commands || !subscriber) throw new Error('connect first');
  await VARIANTS[variant].listen({
    nodeId,
    userIds: new Set(userIds),
    commands,
    subscriber,
    arrived: (message) => {
      const event = JSON.parse(message.slice(message.indexOf(' ') + 1)) as { step: number };
      if (event.step >= 0) arrived += 1;
    },
  });
}

async function obey(order: NodeOrder): Promise<void> {
  if (order.do === 'connect') await connect();
  if (order.do === 'listen') await listen(order.variant, order.userIds);
  if (order.do === 'leave') for (const connection of connections.splice(0)) connection.disconnect();
}

process.on('message', (order: NodeOrder) => {
  obey(order).then(
    () => process.send?.({ arrived }),
    (error: Error) => process.send?.({ error: error.message }),
  );
});
