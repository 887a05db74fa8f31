import type { Redis } from '../../redis/client.ts';
import { asked } from '../../redis/errors.ts';
import { type Keys, PARTITIONS } from '../../redis/keys.ts';
import type { QueueDepth } from './health-tools.ts';
import type { ToolExecutor } from './tool.ts';

/** `get_metrics`: what the whole installation holds, as Redis knows it now. Numbers only: no user, no host, no address. */
export function metricsTools(deps: {
  redis: Redis;
  keys: Keys;
  queueDepth: () => Promise<QueueDepth>;
}): Record<'get_metrics', ToolExecutor> {
  return {
    async get_metrics() {
      const [cluster, queue] = await Promise.all([readCluster(deps), asked(deps.queueDepth())]);
      return { measured_at: new Date(cluster.now).toISOString(), ...cluster.counts, queue };
    },
  };
}

/** Nodes, runs, calls and outboxes: one round trip for all partitions. */
async function readCluster({ redis, keys }: { redis: Redis; keys: Keys }) {
  const pipeline = redis.pipeline();
  pipeline.time().zrange(keys.nodes, '0', '-1', 'WITHSCORES').hgetall(keys.nodeDetails);
  for (let partition = 0; partition < PARTITIONS; partition++) {
    pipeline.zcard(keys.activeRuns(partition)).zcard(keys.activeCalls(partition));
    pipeline.xlen(keys.outbox(partition)).xrange(keys.outbox(partition), '-', '+', 'COUNT', 1);
  }
  const replies = await asked(pipeline.exec().then((results) => results ?? []));
  const values = replies.map(([error, value]) => {
    if (error) throw error;
    return value;
  });
  const [time, leases, details, ...partitions] = values as [[number, number], string[], Record<string, string>];
  const now = Number(time[0]) * 1000 + Math.floor(Number(time[1]) / 1000);
  const every4th = (offset: number) => (partitions as unknown[]).filter((_, at) => at % 4 === offset);
  const total = (offset: number) => every4th(offset).reduce<number>((sum, count) => sum + Number(count), 0);
  const oldest = (every4th(3) as [string, string[]][][]).flatMap(([entry]) =>
    entry ? [Number.parseInt(entry[0], 10)] : [],
  );
  const nodes = liveNodes(leases, details, now);
  return {
    now,
    counts: {
      nodes,
      connections: nodes.reduce((sum, { connections }) => sum + connections, 0),
      runs_under_way: total(0),
      tool_calls_under_way: total(1),
      ledger: {
        records_waiting: total(2),
        lag_ms: oldest.length === 0 ? 0 : Math.max(0, now - Math.min(...oldest)),
      },
    },
  };
}

/** Nodes are numbered, not named: what a node is called is the operator's. */
function liveNodes(leases: readonly string[], details: Readonly<Record<string, string>>, now: number) {
  const nodes: { node: number; connections: number }[] = [];
  for (let at = 0; at < leases.length; at += 2) {
    if (Number(leases[at + 1]) <= now) continue;
    const { connections = 0 } = JSON.parse(details[leases[at] ?? ''] ?? '{}') as { connections?: number };
    nodes.push({ node: nodes.length + 1, connections });
  }
  return nodes;
}
