import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { freePorts } from '../../scripts/lib/ports.ts';
import { httpStatus, PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { startCpuClock } from '../lib/cpu.ts';
import { Deployment, type Started } from '../lib/deployment.ts';
import { Inspector } from '../lib/inspector.ts';
import { progress, type ReportTable } from '../lib/report.ts';
import { type Load, SATURATED, startLoad } from '../price/load.ts';
import { inspected, newUsers } from '../price/targets.ts';

/** Client sockets of one process, below the usual limit of open files. */
const CLIENTS_PER_PROCESS = 10_000;
/** Descriptors of the gateway that are no client sockets. */
const OWN_DESCRIPTORS = 200;
const SETTLED_MS = 1_000;
const RECOVERY_MS = 60_000;
/** A lease is renewed every 10 s, a heartbeat is sent every 20 s. */
const IDLE_MS = 20_000;
const OPERATIONS = 10_000;
/** Users that send and receive. The others are idle: a user's messages are counted in batches, so more users cost more. */
const ACTIVE_USERS = 1_000;

interface Sizing {
  readonly counts: readonly number[];
  readonly operations: number;
  readonly idleMs: number;
}

/**
 * Measures one gateway with growing numbers of connections: memory, CPU while idle, and the CPU of messages and
 * deliveries of a thousand of them. The limit of open files bounds the largest number.
 */
export async function connectionsTable(connections: readonly number[], quick: boolean): Promise<ReportTable> {
  const most = openFiles() - OWN_DESCRIPTORS;
  const sizing = {
    counts: connections.map((count) => Math.min(count, most)),
    operations: quick ? 20 : OPERATIONS,
    idleMs: quick ? 100 : IDLE_MS,
  };
  const header = [
    ...['transport', 'connections', 'KiB per connection', 'µs per connection and second, idle'],
    ...['connect µs', 'message µs', 'delivery µs', 'Redis µs per delivery'],
  ];
  const rows: string[][] = [];
  progress(header.join(' | '));
  for (const transport of ['ws', 'io'] as const) {
    const deployment = await Deployment.start();
    try {
      rows.push(...(await measureTransport(deployment, transport, sizing)));
    } finally {
      await deployment.close();
    }
  }
  return {
    title: 'Connections of one node',
    header,
    rows,
  };
}

async function measureTransport(
  deployment: Deployment,
  transport: 'ws' | 'io',
  { counts, operations, idleMs }: Sizing,
): Promise<string[][]> {
  const [inspectorPort = 0] = await freePorts(1);
  const server = await deployment.gateway(inspected(inspectorPort));
  const inspector = await Inspector.connect(inspectorPort);
  const settings = { redisUrl: deployment.redis.url, publishing: 'append', root: PROJECT_ROOT, transport } as const;
  const processes = Math.ceil(Math.max(...counts) / CLIENTS_PER_PROCESS);
  const loads = Array.from({ length: processes }, () => startLoad(settings));
  const idleBefore = await measured(server, deployment, () => delay(idleMs));
  const rows: string[][] = [];
  let [connected, resident] = [0, 0];
  try {
    for (const count of counts) {
      progress(`growth: ${count} connections, ${transport}`);
      const [connect] = await measured(server, deployment, () => {
        return addConnections({ deployment, server, loads }, count - connected);
      });
      await delay(SETTLED_MS);
      const idle = await measured(server, deployment, () => delay(idleMs));
      const each = (do_: 'pings' | 'deliver') => () => {
        const order = {
          count: Math.ceil(operations / loads.length),
          perSecond: SATURATED,
          among: ACTIVE_USERS / loads.length,
        };
        return Promise.all(loads.map((load) => load.send({ do: do_, ...order })));
      };
      // The first round compiles.
      if (connected === 0) for (const work of ['pings', 'deliver'] as const) await each(work)();
      const background = { micros: idle, ms: idleMs };
      const [message] = await measured(server, deployment, each('pings'), background);
      const [delivery, redis] = await measured(server, deployment, each('deliver'), background);
      await inspector.collectGarbage();
      const now = residentBytes(server);
      await recovered(server);
      const kib = connected === 0 ? '–' : ((now - resident) / 1_024 / (count - connected)).toFixed(1);
      const idleMicros = ((idle[0] - idleBefore[0]) * 1_000) / idleMs / count;
      const costs = [connect / (count - connected), message / operations, delivery / operations, redis / operations];
      const row = [
        ...[transport === 'ws' ? 'raw' : 'Socket.IO', count.toLocaleString('en'), kib, idleMicros.toFixed(1)],
        ...costs.map((micros) => micros.toFixed(1)),
      ];
      progress(row.join(' | '));
      rows.push(row);
      [connected, resident] = [count, now];
    }
    return rows;
  } finally {
    inspector.close();
    for (const load of loads) load.close();
  }
}

/**
 * Waits until the gateway serves again. The collection blocks its event loop, for ten seconds with 14,000 Socket.IO
 * connections on a busy machine, and its commands to Redis time out.
 */
async function recovered({ url }: Started): Promise<void> {
  const deadlineAt = performance.now() + RECOVERY_MS;
  do await delay(SETTLED_MS);
  while ((await httpStatus(`${url}/health/ready`)) !== 200 && performance.now() < deadlineAt);
}

/** Opens connections from all client processes in equal parts. */
async function addConnections(
  { deployment, server, loads }: { deployment: Deployment; server: Started; loads: readonly Load[] },
  count: number,
): Promise<void> {
  const users = newUsers({ deployment }, count);
  const part = Math.ceil(count / loads.length);
  const shares = loads.map((load, at) => ({ load, users: users.slice(at * part, (at + 1) * part) }));
  await Promise.all(shares.map((one) => one.load.send({ do: 'connect', url: server.url, users: one.users })));
}

/**
 * Returns the CPU time of the gateway and of Redis during the work, µs.
 * @param background what both use in a time without work, which is subtracted in proportion
 */
async function measured(
  server: Started,
  deployment: Deployment,
  work: () => Promise<unknown>,
  background: { readonly micros: readonly [number, number]; readonly ms: number } = { micros: [0, 0], ms: 1 },
): Promise<readonly [gateway: number, redis: number]> {
  const since = startCpuClock([server.pid, deployment.redisPid]);
  const startedAt = performance.now();
  await work();
  const share = (performance.now() - startedAt) / background.ms;
  const [gateway = 0, redis = 0] = since();
  return [gateway - share * background.micros[0], redis - share * background.micros[1]];
}

function residentBytes({ pid }: Started): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1_024;
}

/** Returns the limit of open files, which processes inherit. */
function openFiles(): number {
  const limit = /^Max open files\s+\d+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
}
