import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { freePorts } from '../../scripts/lib/ports.ts';
import { startCpuClock } from '../lib/cpu.ts';
import type { Started } from '../lib/deployment.ts';
import { Inspector } from '../lib/inspector.ts';
import { percentile } from '../lib/statistics.ts';
import { SATURATED } from './load.ts';
import { newUsers, type Target } from './targets.ts';

/** Sizes of one round. */
export interface Size {
  readonly users: number;
  readonly messages: number;
  readonly deliveries: number;
  readonly turns: number;
  readonly nodes: number;
  readonly nodeDeliveries: number;
  /** Connections of the two memory measurements, whose difference is the slope. */
  readonly memory: readonly [number, number];
  /** Rounds that measure memory, which varies little. */
  readonly memoryRounds: number;
  /** All connections of the storm, and those on the killed server. */
  readonly storm: readonly [all: number, lost: number];
}

export const RATE_PER_SECOND = 2_000;
export const TURNS_PER_SECOND = 200;
/** The wait of a connection for a `resume` (250 ms) is over by then, and its timers have run. */
const SETTLED_MS = 400;

/** The figures of one round of one target, by row of the table. */
export type Figures = Readonly<Record<string, number>>;

/** Measures connects, messages, deliveries and turns on one server. Times in µs and ms, as the rows name them. */
export async function measureServer(target: Target, server: Started, size: Size): Promise<Figures> {
  const { load, worker, deployment } = target;
  const clock = () => startCpuClock([server.pid, deployment.redisPid, worker.pid]);
  const cpu = async (by: number, work: () => Promise<unknown>) => {
    const since = clock();
    await work();
    return since().map((micros) => micros / by) as [server: number, redis: number, worker: number];
  };
  const [connect] = await cpu(size.users, async () => {
    await load.send({ do: 'connect', url: server.url, users: newUsers(target, size.users) });
    await delay(SETTLED_MS);
  });
  const [message] = await cpu(size.messages, () => {
    return load.send({ do: 'pings', count: size.messages, perSecond: SATURATED });
  });
  const atRate = size.messages / 4;
  const [, limited] = await cpu(atRate, () => load.send({ do: 'pings', count: atRate, perSecond: RATE_PER_SECOND }));
  let deliverMs = 0;
  const [delivery, appended] = await cpu(size.deliveries, async () => {
    deliverMs = (await load.send({ do: 'deliver', count: size.deliveries, perSecond: SATURATED })).ms;
  });
  let first: readonly number[] = [];
  const turn = await cpu(size.turns, async () => {
    first = (await load.send({ do: 'turns', count: size.turns, perSecond: TURNS_PER_SECOND })).firstEventMs;
  });
  await load.send({ do: 'disconnect' });
  await delay(SETTLED_MS);
  return {
    'connect, server ms': connect / 1_000,
    'message saturated, server µs': message,
    'message at 2,000/s, Redis µs': limited,
    'delivery saturated, server µs': delivery,
    'delivery saturated, Redis µs': appended,
    'deliveries per second': (size.deliveries * 1_000) / deliverMs,
    'turn, gateway µs': turn[0],
    'turn, worker µs': turn[2],
    'turn, Redis µs': turn[1],
    'first event p50, ms': percentile(first, 0.5),
    'first event p99, ms': percentile(first, 0.99),
  };
}

/** Measures the CPU of all servers together per delivery, each user on one of them. */
export async function measureNodes(target: Target, size: Size): Promise<Figures> {
  const { load } = target;
  const servers: Started[] = [];
  try {
    for (let at = 0; at < size.nodes; at++) servers.push(await target.server());
    for (const server of servers) {
      await load.send({ do: 'connect', url: server.url, users: newUsers(target, size.users / size.nodes) });
    }
    await delay(SETTLED_MS);
    // Warms up the code, which each server compiles for itself.
    await load.send({ do: 'deliver', count: size.nodeDeliveries, perSecond: RATE_PER_SECOND });
    const since = startCpuClock(servers.map(({ pid }) => pid));
    await load.send({ do: 'deliver', count: size.nodeDeliveries, perSecond: RATE_PER_SECOND });
    const micros = since().reduce((sum, one) => sum + one, 0);
    await load.send({ do: 'disconnect' });
    return { 'delivery over eight nodes, µs': micros / size.nodeDeliveries };
  } finally {
    for (const server of servers) await server.stop();
  }
}

/** Measures the memory of idle connections, after collections of garbage. */
export async function measureMemory(target: Target, size: Pick<Size, 'memory'>): Promise<Figures> {
  const { load } = target;
  const [port = 0] = await freePorts(1);
  const server = await target.server(port);
  const inspector = await Inspector.connect(port);
  const [few, many] = size.memory;
  try {
    const residentAfter = async (count: number) => {
      await load.send({ do: 'connect', url: server.url, users: newUsers(target, count) });
      await delay(SETTLED_MS);
      await inspector.collectGarbage();
      return residentBytes(server.pid);
    };
    const before = await residentAfter(few);
    const after = await residentAfter(many - few);
    await load.send({ do: 'disconnect' });
    return { 'memory per connection, KiB': (after - before) / 1_024 / (many - few) };
  } finally {
    inspector.close();
    await server.stop();
  }
}

/** Measures the time from the death of a server until its clients have a connection to another one. */
export async function measureStorm(target: Target, size: Size): Promise<Figures> {
  const { load } = target;
  const [all, lost] = size.storm;
  const [dying, staying] = [await target.server(), await target.server()];
  try {
    await load.send({ do: 'connect', url: dying.url, users: newUsers(target, lost) });
    await load.send({ do: 'connect', url: staying.url, users: newUsers(target, all - lost) });
    await delay(SETTLED_MS);
    const back = load.send({ do: 'storm', url: staying.url, count: lost });
    await delay(SETTLED_MS / 4);
    const killedAt = performance.now();
    process.kill(dying.pid, 'SIGKILL');
    await back;
    const ms = performance.now() - killedAt;
    await load.send({ do: 'disconnect' });
    return { 'storm, ms until all are back': ms };
  } finally {
    await dying.stop();
    await staying.stop();
  }
}

function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1_024;
}
