import type { Metrics } from '../lib/metrics.ts';
import { bucketName, type Figures } from './figures.ts';

/**
 * Label sets of a metric that become names of figures. Further ones share the name `other`, so that samples stay small.
 */
const MAX_NAMES = 24;

type Labels = Readonly<Partial<Record<string, string | number>>>;
interface Values {
  get(): Promise<{ readonly values: readonly { readonly value: number; readonly labels: Labels }[] }>;
}
interface Buckets {
  get(): Promise<{
    readonly values: readonly { readonly value: number; readonly labels: Labels; readonly metricName?: string }[];
  }>;
}
/** Adds a value under one of a bounded number of names. */
type Add = (name: string, value: number) => void;

/** Results of handshakes that are no refusal. */
const ACCEPTED = new Set(['ok', 'unauthenticated']);
/** Results for which Tollgate or a dependency is the cause, as in the alert `TollgateHandshakesFail`. */
const FAULT = /^(OVERLOADED|INTERNAL_ERROR|AUTH_SERVICE_|AUTH_CIRCUIT_BREAKER_OPEN)/;

/**
 * Reads the figures of this process. Counters are since its start; `since` makes periods of them. Reads only metrics
 * that the process maintains anyway, and changes none.
 */
export async function readMetrics(metrics: Metrics): Promise<Figures> {
  const [counters, gauges] = [new Bounded(), new Bounded()];
  await Promise.all([
    readClients(metrics, counters.add),
    readRuns(metrics, counters.add),
    readDependencies(metrics, counters.add),
    readGauges(metrics, gauges.add),
  ]);
  return { counters: counters.values, gauges: gauges.values };
}

async function readClients(metrics: Metrics, add: Add): Promise<void> {
  await each(metrics.messages, ({ result }, value) => {
    add('messages', value);
    if (result !== 'ok') refusal(add, String(result), value);
  });
  await each(metrics.handshakes, ({ result }, value) => {
    add('handshakes', value);
    if (ACCEPTED.has(String(result))) return;
    add('handshakes.failed', value);
    if (FAULT.test(String(result))) add('handshakes.faults', value);
    refusal(add, String(result), value);
  });
  await each(metrics.resumes, ({ result }, value) => {
    add('resumes', value);
    if (result === 'trimmed') add('replay_gaps', value);
  });
  await each(metrics.closes, ({ code }, value) => {
    if (code === 'SLOW_CONSUMER') add('slow_consumers', value);
  });
  await each(metrics.evictions, (_labels, value) => add('evictions', value));
  await each(metrics.limitDecisions, (labels, value) => {
    if (labels.counted_by === 'node') add('limits.local', value);
  });
  await buckets(metrics.announcementLagSeconds, 'invalidation', add);
}

async function readRuns(metrics: Metrics, add: Add): Promise<void> {
  await each(metrics.runs, ({ status }, value) => {
    add('runs', value);
    add(`runs.${status}`, value);
  });
  await each(metrics.appends, (_labels, value) => add('events', value));
  await each(metrics.toolCalls, (_labels, value) => add('tool_calls', value));
  await each(metrics.usageRecords, (_labels, value) => add('usage_records', value));
  await each(metrics.modelRequests, ({ result }, value) => {
    add('model_requests', value);
    if (result !== 'ok') add('model_requests.failed', value);
  });
  await buckets(metrics.firstEventSeconds, 'first_event', add);
  await buckets(metrics.runSeconds, 'run_duration', add);
}

async function readDependencies(metrics: Metrics, add: Add): Promise<void> {
  await each(metrics.refreshes, ({ result }, value) => {
    add('refreshes', value);
    if (result === 'failed') add('refreshes.failed', value);
  });
  await each(metrics.catalogueReloads, ({ result }, value) => {
    if (result === 'failed') add('reloads.failed', value);
  });
  await each(metrics.ledgerRecords, (_labels, value) => add('ledger.records', value));
  await each(metrics.ledgerRecovered, (_labels, value) => add('ledger.recovered', value));
  await each(metrics.refusedWrites, (_labels, value) => add('refused_writes', value));
  await each(metrics.unreplicatedWrites, (_labels, value) => add('unreplicated_writes', value));
  await each(metrics.redisFailures, (_labels, value) => add('redis.failures', value));
  await buckets(metrics.redisSeconds, 'redis', add);
}

async function readGauges(metrics: Metrics, add: Add): Promise<void> {
  await each(metrics.connections, ({ endpoint, plan, state }, value) => {
    add('connections', value);
    if (value === 0) return;
    add(`connections.plan.${plan}`, value);
    add(`connections.state.${state}`, value);
    add(`connections.transport.${transportOf(String(endpoint))}`, value);
  });
  await each(metrics.queueJobs, ({ state }, value) => {
    if (state === 'waiting') add('queue.runs', value);
  });
  const largest = async (metric: Values, name: string) => {
    const { values } = await metric.get();
    if (values.length > 0) add(name, Math.max(...values.map(({ value }) => value)));
  };
  await largest(metrics.runQueueWaitSeconds, 'queue.wait_seconds');
  await largest(metrics.ledgerLagSeconds, 'ledger.lag_seconds');
  await largest(metrics.ledgerFaults, 'ledger.faults');
  await largest(metrics.archiveLagSeconds, 'archive.lag_seconds');
  await largest(metrics.authBreaker, 'auth_breaker');
  await largest(metrics.upstreamBreaker, 'upstream_breaker');
}

function refusal(add: Add, code: string, value: number): void {
  add('refusals', value);
  add(`refusals.${code}`, value);
}

/** The transport of a connection by its endpoint, as the console names it. */
export function transportOf(endpoint: string): string {
  if (endpoint.startsWith('/socket.io')) return 'socket.io';
  if (endpoint === '/ws/mcp') return 'mcp';
  return endpoint.startsWith('/ws') ? 'websocket' : 'event_stream';
}

async function each(metric: Values, read: (labels: Labels, value: number) => void): Promise<void> {
  for (const { labels, value } of (await metric.get()).values) read(labels, value);
}

/** prom-client reports buckets cumulatively, in ascending order per label set. */
async function buckets(metric: Buckets, histogram: string, add: Add): Promise<void> {
  let below = 0;
  for (const { labels, value, metricName } of (await metric.get()).values) {
    const { le } = labels;
    if (le === undefined || metricName?.endsWith('_bucket') === false) {
      below = 0;
      continue;
    }
    if (value > below) add(bucketName(histogram, le === '+Inf' ? 'Infinity' : String(le)), value - below);
    below = le === '+Inf' ? 0 : value;
  }
}

/** Sums by name, with a bounded number of names per group; the group is the part before the last dot. */
class Bounded {
  readonly values: Record<string, number> = {};
  readonly #names = new Map<string, number>();

  readonly add: Add = (name, value) => {
    const known = this.values[name];
    if (known !== undefined) {
      this.values[name] = known + value;
      return;
    }
    const group = name.slice(0, name.lastIndexOf('.') + 1);
    const names = this.#names.get(group) ?? 0;
    this.#names.set(group, names + 1);
    const kept = group === '' || names < MAX_NAMES ? name : `${group}other`;
    this.values[kept] = (this.values[kept] ?? 0) + value;
  };
}
