import type { Redis } from 'ioredis';
import { LOOPBACK } from '../../scripts/lib/ports.ts';
import type { RedisProcess } from '../../test/support/redis-process.ts';
import { until } from '../../test/support/until.ts';
import type { Deployment } from './deployment.ts';
import type { Heal, Inject } from './injections.ts';
import { ClusterRedis, SentinelRedis } from './redis-hosts.ts';

/** A failover that has not happened after this time is requested again. */
const FAILED_OVER_MS = 20_000;
/** Slots that one fault moves. */
const MOVED_SLOTS = 40;
const KEYS_PER_MOVE = 100;
const MIGRATE_MS = 5_000;

function sentinelsOf({ members: { redis } }: Deployment): SentinelRedis {
  if (redis instanceof SentinelRedis) return redis;
  throw new Error('this fault needs Sentinels');
}

function clusterOf({ members: { redis } }: Deployment): ClusterRedis {
  if (redis instanceof ClusterRedis) return redis;
  throw new Error('this fault needs a Redis Cluster');
}

/** The Sentinels promote a replica at once, as an operator requests it. */
export const sentinelFailOver: Inject = async (deployment) => {
  const redis = sentinelsOf(deployment);
  const { group } = redis;
  const before = await group.master();
  // A Sentinel refuses while it has not forgotten the failover before.
  const request = () => group.sentinels[0]?.ask((sentinel) => sentinel.call('SENTINEL', 'FAILOVER', 'tollgate'));
  await until(request, { timeoutMs: 30_000, everyMs: 250, label: 'a failover' });
  const replaced = () => {
    return group.failedOver(before, FAILED_OVER_MS).catch(async (error: unknown) => {
      // The Sentinels give up a failover whose replica answers late.
      await request();
      throw error;
    });
  };
  return async () => {
    await until(replaced, { timeoutMs: 4 * FAILED_OVER_MS, label: 'another master' });
    await redis.healthy();
  };
};

/** The master serves its clients, and neither replicas nor Sentinels reach it; the Sentinels promote a replica. */
export const masterIsolated: Inject = async (deployment) => {
  const redis = sentinelsOf(deployment);
  const { group } = redis;
  const before = await group.master();
  const join = await group.partition(before);
  return async () => {
    await group.failedOver(before);
    await join();
    await redis.healthy();
  };
};

/** A replica takes over from its master with everything that the master has (`CLUSTER FAILOVER`). */
export const clusterFailOver: Inject = async (deployment, target): Promise<Heal> => {
  const redis = clusterOf(deployment);
  const shard = await shardOf(redis, target);
  const replica = await withRole(shard, 'slave');
  await replica.ask((node) => node.call('CLUSTER', 'FAILOVER'));
  const isMaster = async () => (await roleOf(replica)) === 'master';
  return async () => {
    await until(isMaster, { timeoutMs: 30_000, label: 'the other master' });
    await redis.healthy();
  };
};

/** Moves slots with keys from one master to another, while clients use them. */
export const slotsMoved: Inject = async (deployment, target, forMs) => {
  const redis = clusterOf(deployment);
  const masters = await mastersOf(redis);
  const at = [...redis.servers.keys()].indexOf(target) % masters.length;
  const [from, to] = [masters[at], masters[(at + 1) % masters.length]];
  if (!from || !to) throw new Error('a cluster needs two masters');
  const moving = moveSlots(from, to, masters, forMs);
  // The fault may be healed much later; an error is reported then.
  moving.catch(() => undefined);
  return async () => {
    await moving;
    await redis.healthy();
  };
};

async function moveSlots(
  from: RedisProcess,
  to: RedisProcess,
  masters: readonly RedisProcess[],
  forMs: number,
): Promise<void> {
  const slots = await from.ask(usedSlots);
  const startedAt = performance.now();
  for (const [number, slot] of slots.entries()) {
    await moveSlot(slot, { from, to, masters });
    const due = startedAt + (forMs * (number + 1)) / slots.length;
    await until(() => performance.now() >= due, { timeoutMs: forMs + 1_000 });
  }
}

/** Returns the slots of a master that have keys: the fullest first, because they are in use. */
async function usedSlots(master: Redis): Promise<number[]> {
  const id = String(await master.call('CLUSTER', 'MYID'));
  const line = String(await master.call('CLUSTER', 'NODES'))
    .split('\n')
    .find((text) => text.startsWith(id));
  const ranges = (line?.split(' ').slice(8) ?? []).filter((text) => /^\d+(-\d+)?$/.test(text));
  const own = ranges.flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, at) => first + at);
  });
  const counts = await Promise.all(own.map((slot) => master.call('CLUSTER', 'COUNTKEYSINSLOT', slot)));
  const used = own.map((slot, at) => ({ slot, keys: Number(counts[at]) })).filter(({ keys }) => keys > 0);
  return used
    .toSorted((a, b) => b.keys - a.keys)
    .map(({ slot }) => slot)
    .slice(0, MOVED_SLOTS);
}

interface Move {
  readonly from: RedisProcess;
  readonly to: RedisProcess;
  readonly masters: readonly RedisProcess[];
}

/** The steps of `redis-cli --cluster reshard`. */
async function moveSlot(slot: number, { from, to, masters }: Move): Promise<void> {
  const setSlot = (node: RedisProcess, ...words: string[]) => {
    return node.ask((redis) => redis.call('CLUSTER', 'SETSLOT', slot, ...words));
  };
  const [fromId, toId] = await Promise.all([from, to].map(idOf));
  await setSlot(to, 'IMPORTING', fromId ?? '');
  await setSlot(from, 'MIGRATING', toId ?? '');
  await from.ask(async (redis) => {
    for (;;) {
      const keys = (await redis.call('CLUSTER', 'GETKEYSINSLOT', slot, KEYS_PER_MOVE)) as string[];
      if (keys.length === 0) return;
      await redis.call('MIGRATE', LOOPBACK, to.port, '', 0, MIGRATE_MS, 'KEYS', ...keys);
    }
  });
  await setSlot(to, 'NODE', toId ?? '');
  await setSlot(from, 'NODE', toId ?? '');
  const others = masters.filter((node) => node !== from && node !== to);
  await Promise.all(others.map((node) => setSlot(node, 'NODE', toId ?? '')));
}

async function idOf(node: RedisProcess): Promise<string> {
  return String(await node.ask((redis) => redis.call('CLUSTER', 'MYID')));
}

async function roleOf(node: RedisProcess): Promise<string> {
  const info = await node.ask((redis) => redis.info('replication'));
  return /^role:(\w+)/m.exec(info)?.[1] ?? '';
}

async function mastersOf({ servers }: ClusterRedis): Promise<RedisProcess[]> {
  const nodes = [...servers.values()];
  const roles = await Promise.all(nodes.map(roleOf));
  return nodes.filter((_, at) => roles[at] === 'master');
}

/** Returns the two servers of the shard of a server: masters first when the cluster was created, then their replicas. */
async function shardOf({ servers, nodes }: ClusterRedis, target: string): Promise<RedisProcess[]> {
  const at = [...servers.keys()].indexOf(target) % nodes.masters.length;
  return [nodes.masters[at], nodes.replicas[at]].filter((node) => node !== undefined);
}

async function withRole(shard: readonly RedisProcess[], role: string): Promise<RedisProcess> {
  for (const node of shard) if ((await roleOf(node)) === role) return node;
  throw new Error(`no server of the shard is ${role}`);
}
