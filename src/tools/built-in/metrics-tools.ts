import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import { type Keys, PARTITIONS } from '../../redis/keys.ts';
import type { ToolExecutor } from '../tool.ts';
import type { QueueDepth } from './health-tools.ts';

/**
 * Executor of `get_metrics`. Returns the current counts of the whole deployment from Redis. The result contains numbers
 * only: no user, host or address.
 */
export function metricsTools(deps: {
  redis: Redis;
  keys: Keys;
  queueDepth: () => Promise<QueueDepth>;
}): Record<'get_metrics', ToolExecutor> {
  return {
    async get_metrics() {
      const [cluster, queue] = await Promise.all([readCluster(deps), mapRedisErrors(deps.queueDepth())]);
      return { measured_at: new Date(cluster.now).toISOString(), ...cluster.counts, queue };
    },
  };
}

/** Reads nodes, runs, calls and outboxes in one round trip per shard. */
async function readCluster({ redis, keys }: { redis: Redis; keys: Keys }) {
  const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition);
  const perPartition = <T>(read: (partition: number) => Promise<T>) => Promise.all(partitions.map(read));
  const [time, leases, details, runs, calls, waiting, oldestEntries] = await mapRedisErrors(
    Promise.all([
      redis.time(),
      redis.zrange(keys.nodes, '0', '-1', 'WITHSCORES'),
      redis.hgetall(keys.nodeDetails),
      perPartition((partition) => redis.zcard(keys.activeRuns(partition))),
      perPartition((partition) => redis.zcard(keys.activeCalls(partition))),
      perPartition((partition) => redis.xlen(keys.outbox(partition))),
      perPartition((partition) => redis.xrange(keys.outbox(partition), '-', '+', 'COUNT', 1)),
    ]),
  );
  const now = Number(time[0]) * 1000 + Math.floor(Number(time[1]) / 1000);
  const total = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count, 0);
  const oldest = oldestEntries.flatMap(([entry]) => (entry ? [Number.parseInt(entry[0], 10)] : []));
  const nodes = liveNodes(leases, details, now);
  return {
    now,
    counts: {
      nodes,
      connections: nodes.reduce((sum, { connections }) => sum + connections, 0),
      runs_under_way: total(runs),
      tool_calls_under_way: total(calls),
      ledger: {
        records_waiting: total(waiting),
        lag_ms: oldest.length === 0 ? 0 : Math.max(0, now - Math.min(...oldest)),
      },
    },
  };
}

/** Numbers the live nodes instead of naming them, because node names are internal to the operator. */
function liveNodes(leases: readonly string[], details: Readonly<Record<string, string>>, now: number) {
  const nodes: { node: number; connections: number }[] = [];
  for (let at = 0; at < leases.length; at += 2) {
    if (Number(leases[at + 1]) <= now) continue;
    const { connections = 0 }: { connections?: number } = JSON.parse(details[leases[at] ?? ''] ?? '{}');
    nodes.push({ node: nodes.length + 1, connections });
  }
  return nodes;
}
