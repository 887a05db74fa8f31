import { type ListedNode, type NodeRegistry, workerLeases } from '../cluster/node-registry.ts';
import { acrossProcesses, type Figures, measured, NO_FIGURES, percentileMs, under } from '../figures/figures.ts';
import type { Clock } from '../lib/clock.ts';
import type { Keys } from '../redis/keys.ts';

/** The leases are renewed every five seconds, so that a second reader within this time would read the same. */
const CACHED_MS = 1_000;
const BREAKER_STATES = ['closed', 'half_open', 'open'];

/** The processes of the cluster and their figures of the last minute. */
export interface Cluster {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly gateways: readonly ListedNode[];
  readonly workers: readonly ListedNode[];
  readonly figures: Figures;
}

/** Reads the leases of all processes with their figures. All readers of a node share one read per second. */
export class ClusterFigures {
  readonly #nodes: Pick<NodeRegistry, 'list'>;
  readonly #keys: Keys;
  readonly #clock: Pick<Clock, 'now'>;
  #read: { readonly at: number; readonly cluster: Promise<Cluster> } | undefined;

  constructor(deps: {
    readonly nodes: Pick<NodeRegistry, 'list'>;
    readonly keys: Keys;
    readonly clock: Pick<Clock, 'now'>;
  }) {
    this.#nodes = deps.nodes;
    this.#keys = deps.keys;
    this.#clock = deps.clock;
  }

  /** @throws RedisUnavailable */
  read(): Promise<Cluster> {
    const now = this.#clock.now();
    const last = this.#read;
    if (last && now >= last.at && now - last.at < CACHED_MS) return last.cluster;
    const cluster = this.#list(now);
    this.#read = { at: now, cluster };
    // A failure is not kept.
    cluster.catch(() => {
      this.#read = undefined;
    });
    return cluster;
  }

  async #list(at: number): Promise<Cluster> {
    // Pipelined: one round trip.
    const [gateways, workers] = await Promise.all([this.#nodes.list(), this.#nodes.list(workerLeases(this.#keys))]);
    const figures = acrossProcesses([...gateways, ...workers].map(({ live }) => live ?? NO_FIGURES));
    return { at, gateways, workers, figures };
  }
}

/** The overview of the cluster. Rates and percentiles are of the last minute. */
export function overviewOf(cluster: Cluster) {
  const { at, gateways, workers, figures } = cluster;
  const { counters, gauges } = figures;
  const counted = (name: string) => counters[name] ?? 0;
  return {
    at: new Date(at).toISOString(),
    gateways: gateways.length,
    workers: workers.length,
    connections: {
      total: gateways.reduce((sum, { connections }) => sum + connections, 0),
      by_plan: under(gauges, 'connections.plan.'),
      by_transport: under(gauges, 'connections.transport.'),
      by_node: Object.fromEntries(gateways.map(({ node_id, connections }) => [node_id, connections])),
      by_state: under(gauges, 'connections.state.'),
    },
    per_second: {
      messages: perSecond(cluster, 'messages'),
      runs: perSecond(cluster, 'runs'),
      events: perSecond(cluster, 'events'),
      tool_calls: perSecond(cluster, 'tool_calls'),
      usage_records: perSecond(cluster, 'usage_records'),
    },
    first_event: durations(figures, 'first_event'),
    run_duration: durations(figures, 'run_duration'),
    last_minute: {
      evictions: counted('evictions'),
      resumes: counted('resumes'),
      replay_gaps: counted('replay_gaps'),
      handshakes: counted('handshakes'),
      handshake_failures: counted('handshakes.failed'),
      runs_failed: counted('runs.failed'),
      refreshes: counted('refreshes'),
      refresh_failures: counted('refreshes.failed'),
    },
    refusals: under(counters, 'refusals.'),
    breakers: { auth_service: BREAKER_STATES[gauges.auth_breaker ?? 0] ?? 'closed' },
    queue: { runs: gauges['queue.runs'] ?? null },
    ledger: { lag_seconds: gauges['ledger.lag_seconds'] ?? null },
    redis: {
      p50_ms: percentileMs(figures, 'redis', 0.5),
      p99_ms: percentileMs(figures, 'redis', 0.99),
      failures: counted('redis.failures'),
    },
    event_loop: { p99_ms: gauges['event_loop.p99_ms'] ?? null },
    memory: { rss_bytes: gauges['memory.rss_bytes'] ?? 0 },
  };
}

export type Overview = ReturnType<typeof overviewOf>;

/** Adds the rates of all processes, each over the seconds that its figures cover. */
function perSecond({ gateways, workers }: Cluster, name: string): number {
  const rates = [...gateways, ...workers].map(({ live }) => {
    return live && live.seconds > 0 ? (live.counters[name] ?? 0) / live.seconds : 0;
  });
  return Math.round(rates.reduce((sum, rate) => sum + rate, 0) * 100) / 100;
}

function durations(figures: Figures, histogram: string) {
  return {
    p50_ms: percentileMs(figures, histogram, 0.5),
    p99_ms: percentileMs(figures, histogram, 0.99),
    count: measured(figures, histogram),
  };
}

/** A process as the console lists it. */
export function describeNode(
  node: ListedNode,
  about: { readonly now: number; readonly thisNode: string; readonly isRequested: boolean },
) {
  const { now, thisNode, isRequested } = about;
  const { node_id, started_at, connections, role = 'gateway', version, host, draining = false, runs, live } = node;
  const gauges = live?.gauges ?? {};
  return {
    node_id,
    role,
    version: version ?? null,
    host: host ?? null,
    started_at,
    uptime_seconds: Math.max(0, Math.round((now - Date.parse(started_at)) / 1000)),
    draining: draining || isRequested,
    connections,
    runs: runs ?? null,
    memory: {
      rss_bytes: gauges['memory.rss_bytes'] ?? null,
      heap_bytes: gauges['memory.heap_bytes'] ?? null,
    },
    event_loop: { p99_ms: gauges['event_loop.p99_ms'] ?? null },
    cpu_percent: gauges['cpu.percent'] ?? null,
    this_node: node_id === thisNode,
  };
}
