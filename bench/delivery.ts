import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { startRedisServer } from '../scripts/lib/redis-server.ts';
import { appender, VARIANTS, type VariantName } from './delivery-variants.ts';
import { type Child, startChild } from './lib/child.ts';
import { startCpuClock } from './lib/cpu.ts';
import type { NodeOrder } from './lib/delivery-node.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { medianAndRange } from './lib/statistics.ts';
import { atRate, thinkingFields } from './lib/user-events.ts';

const NODES = 8;
const NAMES = Object.keys(VARIANTS) as VariantName[];
const TIMEOUT_MS = 10_000;
const QUIET_MS = 200;

interface Size {
  readonly rounds: number;
  readonly usersPerNode: number;
  readonly events: number;
  readonly perSecond: number;
}

const FULL: Size = { rounds: 5, usersPerNode: 250, events: 12_000, perSecond: 2_000 };
const QUICK: Size = { rounds: 1, usersPerNode: 10, events: 400, perSecond: 2_000 };

/** CPU time in microseconds, of all nodes together and of Redis. */
interface Measured {
  readonly event: readonly [nodes: number, redis: number];
  readonly user: readonly [nodes: number, redis: number];
  readonly bytesPerUser: number;
}

type Node = Child<NodeOrder, { readonly arrived: number }>;

interface Bench {
  readonly nodes: readonly Node[];
  readonly redis: Redis;
  readonly redisPid: number;
  readonly redisUrl: string;
}

async function measure(bench: Bench, name: VariantName, size: Size): Promise<Measured> {
  const { nodes, redis, redisPid } = bench;
  await redis.flushall();
  const run = Math.random().toString(36).slice(2, 8);
  const userIds = Array.from({ length: NODES * size.usersPerNode }, (_, at) => `${run}-${at}`);
  const clock = () => startCpuClock([redisPid, ...nodes.map(({ pid }) => pid)]);
  const share = ([ofRedis = 0, ...ofNodes]: number[], by: number) =>
    [ofNodes.reduce((sum, time) => sum + time, 0) / by, ofRedis / by] as const;

  await Promise.all(nodes.map((node) => node.send({ do: 'connect' })));
  await delay(QUIET_MS);
  const bytesBefore = await usedMemory(redis);
  const sinceListen = clock();
  const listening = nodes.map((node, at) => {
    return node.send({ do: 'listen', variant: name, userIds: userIds.filter((_, i) => i % NODES === at) });
  });
  await Promise.all(listening);
  await delay(QUIET_MS);
  const user = share(sinceListen(), userIds.length);
  const bytesPerUser = ((await usedMemory(redis)) - bytesBefore) / userIds.length;

  const sinceDeliver = clock();
  await publishAll(bench, name, userIds, size);
  const event = share(sinceDeliver(), size.events);
  await Promise.all(nodes.map((node) => node.send({ do: 'leave' })));
  return { event, user, bytesPerUser };
}

async function publishAll(bench: Bench, name: VariantName, userIds: readonly string[], size: Size): Promise<void> {
  const publisher = new Redis(bench.redisUrl);
  const append = appender(publisher, VARIANTS[name]);
  const appended: Promise<unknown>[] = [];
  await atRate(size.perSecond, size.events, (at) => {
    // The step shares no factor with the number of users: every user gets events, and the nodes follow no fixed
    // pattern.
    const userId = userIds[(at * 7_919) % userIds.length] ?? '';
    appended.push(append(userId, JSON.stringify(thinkingFields(userId, at))));
  });
  await Promise.all(appended);
  publisher.disconnect();
  for (let waited = 0; waited < TIMEOUT_MS; waited += 50) {
    const counts = await Promise.all(bench.nodes.map((node) => node.send({ do: 'count' })));
    if (counts.reduce((sum, { arrived }) => sum + arrived, 0) === size.events) return;
    await delay(50);
  }
  throw new Error(`${name}: not every event arrived`);
}

async function usedMemory(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);
}

/** Measures the cost of delivering an appended event to the one node, of eight, that serves its user. */
export async function delivery({ quick }: BenchOptions): Promise<Report> {
  const size = quick ? QUICK : FULL;
  const server = await startRedisServer();
  const redis = new Redis(server.url);
  const nodes: Node[] = [];
  try {
    for (let at = 0; at < NODES; at++) nodes.push(startChild('./delivery-node.ts', [server.url, `node-${at}`]));
    const bench = { nodes, redis, redisPid: server.process.pid ?? 0, redisUrl: server.url };
    const results = Object.fromEntries(NAMES.map((name) => [name, []])) as unknown as Record<VariantName, Measured[]>;
    if (!quick) {
      progress('delivery: warming up');
      for (const name of NAMES) await measure(bench, name, { ...size, events: size.events / 4 });
    }
    for (let round = 0; round < size.rounds; round++) {
      progress(`delivery: round ${round + 1} of ${size.rounds}`);
      for (const at of NAMES.keys()) {
        const name = NAMES[(at + round) % NAMES.length] as VariantName;
        results[name].push(await measure(bench, name, size));
      }
    }
    return report(results, size);
  } finally {
    for (const node of nodes) node.close();
    redis.disconnect();
    await server.stop();
  }
}

function report(results: Readonly<Record<VariantName, readonly Measured[]>>, size: Size): Report {
  const rows = (pick: (one: Measured) => readonly number[], digits: number) =>
    NAMES.map((name) => {
      const columns = results[name].map(pick);
      const cells = (columns[0] ?? []).map((_, at) =>
        medianAndRange(
          columns.map((column) => column[at] ?? 0),
          digits,
        ),
      );
      return [VARIANTS[name].title, ...cells];
    });
  return {
    name: 'Delivery to the nodes',
    about: [
      `${NODES} nodes with ${size.usersPerNode} users each, every user on one node; ${size.events} events of about 400 bytes at`,
      `${size.perSecond}/s, appended to the user's log and published by one script. Nodes read and count, they write no socket.`,
      `Medians of ${size.rounds} rounds (smallest–greatest).`,
    ].join('\n'),
    tables: [
      {
        title: 'CPU per event, µs (Redis: with the append to the log)',
        header: ['variant', 'all nodes', 'Redis'],
        rows: rows(({ event }) => event, 1),
      },
      {
        title: 'CPU per subscribed user, µs, and Redis memory, bytes',
        header: ['variant', 'all nodes', 'Redis', 'bytes'],
        rows: rows(({ user, bytesPerUser }) => [...user, bytesPerUser], 0),
      },
    ],
    data: { size, results },
  };
}

if (import.meta.main) await runAsProgram([delivery]);
