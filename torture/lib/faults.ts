import type { Deployment } from './deployment.ts';
import type { FaultKind } from './fault-plan.ts';
import * as inject from './injections.ts';
import type { RedisKind } from './redis-hosts.ts';
import { SentinelRedis, SingleRedis } from './redis-hosts.ts';
import { clusterFailOver, masterIsolated, sentinelFailOver, slotsMoved } from './redis-moves.ts';

/** A fault, and the strongest promise that holds while it lasts and after it. */
export interface FaultRow {
  readonly kind: string;
  readonly what: string;
  readonly promise: string;
  readonly maxMs: number;
  /** Names of the targets in a deployment; none if the fault is not possible in it. */
  readonly targets: (deployment: Deployment) => readonly string[];
  readonly inject: inject.Inject;
  /** Acknowledged writes that Redis may lose: all, or those that no replica has. Default: none. */
  readonly loses?: 'everything' | 'unreplicated';
  /** Faults of one group do not overlap; default: those of one target. */
  readonly group?: string;
}

const RUNS_MOVE =
  'Its runs continue on another worker; each has one terminal event, each call one end and one charge. A tool call in ' +
  'progress is executed again under the same call id';
const CLIENTS_MOVE = 'Its clients resume on another node; they miss no event and receive none twice';
const REDIS_WAITS = 'Requests wait or are refused with a retryable error; no acknowledged event, run or record is lost';
const TOKENS_LAST = 'Connections live on with the token that they have; no run, event or charge is affected';
const NODE_ALONE =
  'Requests at this process wait or are refused with a retryable error; its runs continue on another worker; ' +
  'no event, run or record is lost or doubled';
const CALLS_FAIL = 'Calls to it end with TOOL_FAILED and are not charged; none is executed twice';
const AGENT_RUNS_FAIL = 'Its runs end with AGENT_UNAVAILABLE or AGENT_FAILED; other runs are not affected';
const CLOCK_IGNORED =
  'Leases, limits, deadlines of runs and the ledger follow the clock of Redis: no event, run or record is lost or doubled. ' +
  'The process checks the times of tokens with its own clock and can refuse valid ones; accepted runs continue';

const FAILOVER_LOSES =
  'A call that only the old master had may be lost: its event and its count in the quota, not its record. Clients that ' +
  'had received more and are connected get `resume_failed`. Each accepted run has one terminal event, unless its worker ' +
  'is killed too; no key is charged twice';

const gateways = ({ stack }: Deployment) => stack.gateways.map(({ name }) => name);
const workers = ({ stack }: Deployment) => stack.workers.map(({ name }) => name);
const linked = ({ members: { links } }: Deployment) => [...links.keys()];
const servers = ({ members: { redis } }: Deployment) => [...redis.servers.keys()];
const balancer = ({ members }: Deployment) => (members.balancer ? ['haproxy'] : []);
const one = (name: string) => () => [name];
const ofRedis =
  (kind: RedisKind, targets: FaultRow['targets'] = servers): FaultRow['targets'] =>
  (deployment) =>
    deployment.members.redis.kind === kind ? targets(deployment) : [];

const replicated: FaultRow['targets'] = (deployment) =>
  deployment.members.redis.kind === 'single' ? [] : servers(deployment);

/** Faults of Redis do not overlap: two servers that fail at once are another promise. */
const REPLICATED = { group: 'redis', targets: replicated } as const;
const SINGLE = { group: 'redis', targets: ofRedis('single') } as const;
const AUTH = { targets: one('auth'), promise: TOKENS_LAST } as const;

const PROCESS_FAULTS: readonly FaultRow[] = [
  {
    ...{ kind: 'gateway-kill', what: 'SIGKILL of a gateway, then a restart', promise: CLIENTS_MOVE, maxMs: 5_000 },
    ...{ targets: gateways, inject: inject.killed },
  },
  {
    ...{ kind: 'gateway-pause', what: 'SIGSTOP of a gateway, then SIGCONT', promise: CLIENTS_MOVE, maxMs: 60_000 },
    ...{ targets: gateways, inject: inject.paused },
  },
  {
    ...{ kind: 'gateway-block', what: 'The event loop of a gateway is blocked', promise: CLIENTS_MOVE, maxMs: 20_000 },
    ...{ targets: gateways, inject: inject.blocked },
  },
  {
    ...{ kind: 'worker-kill', what: 'SIGKILL of a worker, then a restart', promise: RUNS_MOVE, maxMs: 5_000 },
    ...{ targets: workers, inject: inject.killed },
  },
  {
    ...{ kind: 'worker-pause', what: 'SIGSTOP of a worker, then SIGCONT', promise: RUNS_MOVE, maxMs: 60_000 },
    ...{ targets: workers, inject: inject.paused },
  },
  {
    ...{ kind: 'worker-block', what: 'The event loop of a worker is blocked', promise: RUNS_MOVE, maxMs: 20_000 },
    ...{ targets: workers, inject: inject.blocked },
  },
  {
    ...{ kind: 'descriptors', what: 'A gateway or worker has no free file descriptor', maxMs: 15_000 },
    promise:
      'Connections that are open continue; new ones are refused or wait. The process does not end, and serves again',
    ...{ targets: (on) => [...gateways(on), ...workers(on)], inject: inject.withoutDescriptors },
  },
  {
    ...{
      kind: 'clock',
      what: 'The clock of a gateway or worker is 5 minutes ahead or behind, or steps',
      maxMs: 20_000,
    },
    promise: CLOCK_IGNORED,
    targets: (on) => (on.members.clocks.size > 0 ? [...gateways(on), ...workers(on)] : []),
    inject: inject.clockSet,
  },
];

const REDIS_FAULTS: readonly FaultRow[] = [
  {
    ...{ kind: 'redis-restart', what: 'SIGKILL of Redis, then a restart from its AOF', promise: REDIS_WAITS },
    ...{ ...SINGLE, maxMs: 8_000, inject: inject.redisKilled },
  },
  {
    ...{ kind: 'redis-pause', what: 'SIGSTOP of Redis, then SIGCONT', promise: REDIS_WAITS },
    ...{ ...SINGLE, maxMs: 60_000, inject: inject.redisPaused },
  },
  {
    ...{ kind: 'redis-client-pause', what: '`CLIENT PAUSE` of all commands', promise: REDIS_WAITS },
    ...{ ...SINGLE, maxMs: 5_000, inject: inject.redisClientsPaused },
  },
  {
    ...{ kind: 'redis-memory', what: 'Redis is out of memory (`maxmemory`, `noeviction`)', promise: REDIS_WAITS },
    ...{ ...SINGLE, maxMs: 15_000, inject: inject.memoryFull },
  },
  {
    ...{ kind: 'redis-disk', what: 'The disk of the AOF is full', promise: REDIS_WAITS, maxMs: 15_000 },
    group: 'redis',
    targets: ({ members: { redis } }) => (redis instanceof SingleRedis && redis.canBeFull ? ['redis'] : []),
    inject: inject.diskFull,
  },
  {
    ...{ kind: 'redis-empty', what: 'SIGKILL of Redis, then a restart without its data' },
    promise:
      'Each run of the last minute has one terminal event in the new history, unless its worker is killed too; records ' +
      'of the last minute are charged once; ' +
      'clients that cannot resume receive `resume_failed`',
    ...{ ...SINGLE, maxMs: 4_000, inject: inject.restartedEmpty, loses: 'everything' },
  },
  {
    ...{ kind: 'redis-latency', what: '20 to 200 ms latency in front of Redis', promise: REDIS_WAITS, ...SINGLE },
    ...{ maxMs: 10_000, inject: inject.allLinks((forMs) => ({ kind: 'slow', latencyMs: 20 + (forMs % 180) })) },
  },
  {
    ...{ kind: 'redis-cut', what: 'All connections to Redis cut, new ones refused', promise: REDIS_WAITS, ...SINGLE },
    ...{ maxMs: 4_000, inject: inject.allLinks(() => ({ kind: 'cut' })) },
  },
  {
    ...{ kind: 'redis-one-way', what: 'Redis receives, its replies are held', promise: REDIS_WAITS, ...SINGLE },
    ...{ maxMs: 4_000, inject: inject.allLinks(() => ({ kind: 'held', direction: 'replies' })) },
  },
];

const TOPOLOGY_FAULTS: readonly FaultRow[] = [
  // A replica may be promoted meanwhile, with what it has received.
  {
    ...{ kind: 'server-kill', what: 'SIGKILL of a master or replica of Sentinels or a Cluster, then a restart' },
    ...{ ...REPLICATED, maxMs: 8_000, promise: FAILOVER_LOSES, loses: 'unreplicated', inject: inject.redisKilled },
  },
  {
    ...{ kind: 'server-pause', what: 'SIGSTOP of a master or replica of Sentinels or a Cluster, then SIGCONT' },
    ...{ ...REPLICATED, maxMs: 60_000, promise: FAILOVER_LOSES, loses: 'unreplicated', inject: inject.redisPaused },
  },
  {
    ...{ kind: 'server-client-pause', what: '`CLIENT PAUSE` of a master or replica of Sentinels or a Cluster' },
    ...{ ...REPLICATED, maxMs: 5_000, promise: FAILOVER_LOSES, loses: 'unreplicated' },
    inject: inject.redisClientsPaused,
  },
  {
    ...{ kind: 'server-memory', what: 'A master or replica of Sentinels or a Cluster is out of memory' },
    ...{ ...REPLICATED, maxMs: 15_000, promise: REDIS_WAITS, inject: inject.memoryFull },
  },
  {
    ...{ kind: 'sentinel-kill', what: 'SIGKILL of a Sentinel, then a restart', maxMs: 10_000, group: 'redis' },
    promise: 'No request is affected: two Sentinels are a majority',
    targets: ({ members: { redis } }) => (redis instanceof SentinelRedis ? [...redis.sentinels.keys()] : []),
    inject: inject.redisKilled,
  },
  {
    ...{ kind: 'sentinel-failover', what: '`SENTINEL FAILOVER`: the replication lags by the writes in flight' },
    ...{ promise: FAILOVER_LOSES, loses: 'unreplicated' },
    ...{ group: 'redis', targets: ofRedis('sentinel', one('redis')), maxMs: 3_000, inject: sentinelFailOver },
  },
  {
    ...{
      kind: 'sentinel-isolated',
      what: 'The master loses replicas and Sentinels, not its clients, until it is replaced',
    },
    ...{ promise: FAILOVER_LOSES, loses: 'unreplicated' },
    ...{ group: 'redis', targets: ofRedis('sentinel', one('redis')), maxMs: 6_000, inject: masterIsolated },
  },
  {
    ...{ kind: 'cluster-failover', what: '`CLUSTER FAILOVER` of one shard', promise: REDIS_WAITS, group: 'redis' },
    ...{ targets: ofRedis('cluster'), maxMs: 3_000, inject: clusterFailOver },
  },
  {
    ...{ kind: 'cluster-slots', what: '40 slots in use move to another master', promise: REDIS_WAITS, group: 'redis' },
    ...{ targets: ofRedis('cluster'), maxMs: 10_000, inject: slotsMoved },
  },
];

const LINK_FAULTS: readonly FaultRow[] = [
  {
    ...{ kind: 'link-cut', what: 'One process cannot connect to Redis', promise: NODE_ALONE, maxMs: 20_000 },
    ...{ targets: linked, inject: inject.linkOf(() => ({ kind: 'cut' })) },
  },
  {
    ...{ kind: 'link-replies', what: 'One process sends to Redis and receives nothing', promise: NODE_ALONE },
    ...{ maxMs: 20_000, targets: linked, inject: inject.linkOf(() => ({ kind: 'held', direction: 'replies' })) },
  },
  {
    ...{ kind: 'link-requests', what: 'One process receives from Redis, and what it sends is held' },
    ...{ promise: NODE_ALONE, maxMs: 20_000, targets: linked },
    inject: inject.linkOf(() => ({ kind: 'held', direction: 'requests' })),
  },
  {
    ...{ kind: 'link-half-open', what: 'The connections of one process to Redis are dead and stay open' },
    ...{ promise: NODE_ALONE, maxMs: 10_000, targets: linked, inject: inject.linkAbandoned },
  },
  {
    ...{ kind: 'link-narrow', what: 'One process has 30 kB/s per connection to Redis', promise: NODE_ALONE },
    ...{ maxMs: 20_000, targets: linked, inject: inject.linkOf(() => ({ kind: 'narrow', bytesPerSecond: 30_000 })) },
  },
  {
    ...{ kind: 'link-slow', what: 'One process has 20 to 500 ms latency to Redis', promise: NODE_ALONE, maxMs: 20_000 },
    targets: linked,
    inject: inject.linkOf((forMs) => ({ kind: 'slow', latencyMs: 20 + (forMs % 480) })),
  },
  {
    ...{ kind: 'names', what: 'The name service of one process fails while it must reconnect to Redis' },
    ...{ promise: NODE_ALONE, maxMs: 15_000, targets: linked, inject: inject.namesFail },
  },
];

const NEIGHBOUR_FAULTS: readonly FaultRow[] = [
  {
    kind: 'auth-kill',
    what: 'SIGKILL of the auth service, then a restart',
    maxMs: 10_000,
    ...AUTH,
    inject: inject.killed,
  },
  {
    kind: 'auth-pause',
    what: 'SIGSTOP of the auth service, then SIGCONT',
    maxMs: 60_000,
    ...AUTH,
    inject: inject.paused,
  },
  {
    ...{ kind: 'auth-errors', what: 'The auth service answers 503', maxMs: 20_000, ...AUTH },
    inject: inject.authAnswers('unavailable'),
  },
  {
    ...{ kind: 'auth-garbage', what: 'The auth service answers half a JSON text', maxMs: 20_000, ...AUTH },
    inject: inject.authAnswers('garbage'),
  },
  {
    ...{ kind: 'auth-huge', what: 'The auth service answers 64 MiB', maxMs: 20_000, ...AUTH },
    inject: inject.authAnswers('huge'),
  },
  {
    ...{ kind: 'auth-slow', what: 'The auth service answers after 8 s', maxMs: 20_000, ...AUTH },
    inject: inject.authAnswers('slow'),
  },
  {
    ...{ kind: 'auth-flapping', what: 'The auth service answers 503 every other 0.7 s', maxMs: 20_000, ...AUTH },
    inject: inject.authAnswers('flapping'),
  },
  {
    ...{ kind: 'keys-rotated', what: 'The issuer signs with a new key, and its key set answers 503', maxMs: 15_000 },
    promise: 'Tokens of known keys are accepted; those of the new key are, once the key set answers again',
    ...{ targets: one('keys'), inject: inject.keysRotated },
  },
  {
    ...{ kind: 'tool-server-kill', what: 'SIGKILL of an MCP tool server, then a restart', promise: CALLS_FAIL },
    ...{ maxMs: 5_000, targets: one('tool-server'), inject: inject.helperKilled('toolServer') },
  },
  {
    ...{ kind: 'tool-server-pause', what: 'SIGSTOP of an MCP tool server, then SIGCONT', promise: CALLS_FAIL },
    ...{ maxMs: 60_000, targets: one('tool-server'), inject: inject.helperPaused('toolServer') },
  },
  {
    ...{ kind: 'agent-kill', what: 'SIGKILL of an agent of kind `http`, then a restart', promise: AGENT_RUNS_FAIL },
    ...{ maxMs: 5_000, targets: one('agent'), inject: inject.helperKilled('agent') },
  },
  {
    ...{ kind: 'agent-pause', what: 'SIGSTOP of an agent of kind `http`, then SIGCONT', promise: AGENT_RUNS_FAIL },
    ...{ maxMs: 60_000, targets: one('agent'), inject: inject.helperPaused('agent') },
  },
  {
    ...{ kind: 'haproxy-kill', what: 'SIGKILL of HAProxy, then a restart', promise: CLIENTS_MOVE, maxMs: 3_000 },
    ...{ targets: balancer, inject: inject.helperKilled('balancer') },
  },
  {
    ...{ kind: 'haproxy-pause', what: 'SIGSTOP of HAProxy, then SIGCONT', promise: CLIENTS_MOVE, maxMs: 60_000 },
    ...{ targets: balancer, inject: inject.helperPaused('balancer') },
  },
  {
    ...{ kind: 'haproxy-reload', what: 'Reload of HAProxy', maxMs: 1_000 },
    promise: 'No request is refused, and open connections last up to 30 s longer; then their clients resume',
    ...{ targets: balancer, inject: inject.balancerReloaded },
  },
];

/** Every kind of fault that this tool injects. docs/reliability.md has one row for each. */
export const FAULTS: readonly FaultRow[] = [
  ...PROCESS_FAULTS,
  ...REDIS_FAULTS,
  ...TOPOLOGY_FAULTS,
  ...LINK_FAULTS,
  ...NEIGHBOUR_FAULTS,
];

/** Returns the kinds with their targets in a deployment; without those that are not possible in it. */
export function kindsFor(deployment: Deployment, only: readonly string[] | undefined): FaultKind[] {
  const chosen = FAULTS.filter(({ kind }) => only === undefined || only.includes(kind));
  const kinds = chosen.map(({ kind, maxMs, group, targets }) => ({ kind, maxMs, group, targets: targets(deployment) }));
  return kinds.filter(({ targets }) => targets.length > 0);
}

/** Begins a fault. @returns how to end it */
export async function begin(
  deployment: Deployment,
  { kind, target, forMs }: { readonly kind: string; readonly target: string; readonly forMs: number },
): Promise<inject.Heal> {
  const row = FAULTS.find((fault) => fault.kind === kind);
  if (!row) throw new Error(`there is no fault ${kind}`);
  return row.inject(deployment, target, forMs);
}
