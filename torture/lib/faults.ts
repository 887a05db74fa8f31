import { Redis } from 'ioredis';
import { LOOPBACK } from '../../scripts/lib/ports.ts';
import type { StackProcess } from '../../test/support/stack-processes.ts';
import { type Deployment, startAgain } from './deployment.ts';
import type { FaultKind } from './fault-plan.ts';
import type { HttpFault } from './links.ts';

/** A fault, and the strongest promise that holds while it lasts and after it. */
export interface FaultRow {
  readonly kind: string;
  readonly what: string;
  readonly promise: string;
  readonly maxMs: number;
}

const RUNS_MOVE = 'Its runs continue on another worker; each has one terminal event, each call and charge happens once';
const CLIENTS_MOVE = 'Its clients resume on another node; they miss no event and receive none twice';
const REDIS_WAITS = 'Requests wait or are refused with a retryable error; no acknowledged event, run or record is lost';
const TOKENS_LAST = 'Connections live on with the token that they have; no run, event or charge is affected';

/** Every kind of fault that this tool injects. docs/reliability.md has one row for each. */
export const FAULTS: readonly FaultRow[] = [
  { kind: 'gateway-kill', what: 'SIGKILL of a gateway, then a restart', promise: CLIENTS_MOVE, maxMs: 5_000 },
  { kind: 'gateway-pause', what: 'SIGSTOP of a gateway, then SIGCONT', promise: CLIENTS_MOVE, maxMs: 60_000 },
  { kind: 'worker-kill', what: 'SIGKILL of a worker, then a restart', promise: RUNS_MOVE, maxMs: 5_000 },
  { kind: 'worker-pause', what: 'SIGSTOP of a worker, then SIGCONT', promise: RUNS_MOVE, maxMs: 60_000 },
  { kind: 'redis-restart', what: 'SIGKILL of Redis, then a restart from its AOF', promise: REDIS_WAITS, maxMs: 4_000 },
  { kind: 'redis-pause', what: 'SIGSTOP of Redis, then SIGCONT', promise: REDIS_WAITS, maxMs: 8_000 },
  { kind: 'redis-client-pause', what: '`CLIENT PAUSE` of all commands', promise: REDIS_WAITS, maxMs: 5_000 },
  { kind: 'redis-latency', what: '20 to 200 ms latency in front of Redis', promise: REDIS_WAITS, maxMs: 10_000 },
  { kind: 'redis-cut', what: 'All connections to Redis cut, new ones refused', promise: REDIS_WAITS, maxMs: 4_000 },
  { kind: 'redis-one-way', what: 'Redis receives, its replies are held', promise: REDIS_WAITS, maxMs: 4_000 },
  { kind: 'auth-errors', what: 'The auth service answers 503', promise: TOKENS_LAST, maxMs: 20_000 },
  { kind: 'auth-garbage', what: 'The auth service answers half a JSON text', promise: TOKENS_LAST, maxMs: 20_000 },
  { kind: 'auth-slow', what: 'The auth service answers after 8 s', promise: TOKENS_LAST, maxMs: 20_000 },
  {
    kind: 'tool-server-kill',
    what: 'SIGKILL of an MCP tool server, then a restart',
    promise: 'Calls to it end with TOOL_FAILED and are not charged; none is executed twice',
    maxMs: 5_000,
  },
  {
    kind: 'agent-kill',
    what: 'SIGKILL of an agent of kind `http`, then a restart',
    promise: 'Its runs end with AGENT_UNAVAILABLE or AGENT_FAILED; other runs are not affected',
    maxMs: 5_000,
  },
  { kind: 'haproxy-kill', what: 'SIGKILL of HAProxy, then a restart', promise: CLIENTS_MOVE, maxMs: 3_000 },
];

/** Ends a fault; resolves when what it stopped serves again. */
type Heal = () => Promise<void>;
type Inject = (deployment: Deployment, target: string, forMs: number) => Promise<Heal>;

const INJECTIONS: Readonly<Record<string, Inject>> = {
  'gateway-kill': killed,
  'worker-kill': killed,
  'gateway-pause': paused,
  'worker-pause': paused,
  'redis-restart': async ({ redis }) => {
    await redis.kill();
    return () => redis.restart();
  },
  'redis-pause': async ({ redis }) => {
    redis.signal('SIGSTOP');
    return async () => redis.signal('SIGCONT');
  },
  'redis-client-pause': async ({ redis }, _target, forMs) => {
    await pauseClients(redis.port, forMs);
    return async () => {};
  },
  'redis-latency': async ({ redisLink }, _target, forMs) => {
    redisLink.slow(20 + (forMs % 180));
    return async () => redisLink.heal();
  },
  'redis-cut': async ({ redisLink }) => {
    redisLink.cut();
    return async () => redisLink.heal();
  },
  'redis-one-way': async ({ redisLink }) => {
    redisLink.silence();
    return async () => redisLink.heal();
  },
  'auth-errors': authAnswers('unavailable'),
  'auth-garbage': authAnswers('garbage'),
  'auth-slow': authAnswers('slow'),
  'tool-server-kill': async ({ toolServer }) => {
    await toolServer.kill();
    return () => toolServer.restart();
  },
  'agent-kill': async ({ agent }) => {
    await agent.kill();
    return () => agent.restart();
  },
  'haproxy-kill': async ({ balancer }) => {
    await balancer?.kill();
    return async () => balancer?.restart();
  },
};

/** Returns the kinds with their targets in a deployment. All faults of Redis and of its link share a target. */
export function kindsFor({ stack, balancer }: Deployment, only: readonly string[] | undefined): FaultKind[] {
  const names = (processes: readonly StackProcess[]) => processes.map(({ name }) => name);
  const targetsOf = (kind: string): readonly string[] => {
    if (kind.startsWith('gateway-')) return names(stack.gateways);
    if (kind.startsWith('worker-')) return names(stack.workers);
    if (kind === 'haproxy-kill') return balancer ? ['haproxy'] : [];
    return [kind.slice(0, kind.indexOf('-'))];
  };
  const chosen = FAULTS.filter(({ kind }) => only === undefined || only.includes(kind));
  const kinds = chosen.map(({ kind, maxMs }) => ({ kind, maxMs, targets: targetsOf(kind) }));
  return kinds.filter(({ targets }) => targets.length > 0);
}

/** Begins a fault. @returns how to end it */
export async function inject(
  deployment: Deployment,
  { kind, target, forMs }: { readonly kind: string; readonly target: string; readonly forMs: number },
): Promise<Heal> {
  const injection = INJECTIONS[kind];
  if (!injection) throw new Error(`there is no fault ${kind}`);
  return injection(deployment, target, forMs);
}

async function killed({ stack }: Deployment, target: string): Promise<Heal> {
  const process = processOf(stack.all, target);
  await process.kill('SIGKILL');
  return () => startAgain(process);
}

async function paused({ stack }: Deployment, target: string): Promise<Heal> {
  const { pid } = processOf(stack.all, target);
  if (pid === undefined) throw new Error(`${target} is not running`);
  process.kill(pid, 'SIGSTOP');
  return async () => void process.kill(pid, 'SIGCONT');
}

function authAnswers(fault: HttpFault): Inject {
  return async ({ authLink }) => {
    authLink.fault = fault;
    return async () => {
      authLink.fault = 'none';
    };
  };
}

function processOf(all: readonly StackProcess[], name: string): StackProcess {
  const found = all.find((process) => process.name === name);
  if (!found) throw new Error(`there is no process ${name}`);
  return found;
}

async function pauseClients(port: number, forMs: number): Promise<void> {
  const redis = new Redis({ host: LOOPBACK, port, lazyConnect: true, retryStrategy: () => null });
  redis.on('error', () => {});
  await redis.connect();
  await redis.call('CLIENT', 'PAUSE', String(forMs), 'ALL');
  redis.disconnect();
}
