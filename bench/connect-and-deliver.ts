import { setTimeout as delay } from 'node:timers/promises';
import { freePorts } from '../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, whenReady } from '../scripts/lib/processes.ts';
import { startCpuClock } from './lib/cpu.ts';
import { Deployment, JWT_AUDIENCE, type Started } from './lib/deployment.ts';
import { type LoadClient, startLoadClient, type TransportName } from './lib/load-client.ts';
import { type BenchOptions, progress, type Report, type ReportTable, runAsProgram } from './lib/report.ts';
import { median, medianAndRange, percentile } from './lib/statistics.ts';
import type { PeerSettings } from './peers/token-check.ts';

const TRANSPORTS: readonly TransportName[] = ['tollgate-ws', 'bare-ws', 'tollgate-socket-io', 'bare-socket-io'];
const TITLES: Record<TransportName, string> = {
  'tollgate-ws': 'Tollgate, raw WebSocket',
  'bare-ws': 'bare ws',
  'tollgate-socket-io': 'Tollgate, Socket.IO',
  'bare-socket-io': 'bare Socket.IO, sharded adapter',
};
/** Wait after the last welcome. The gateway's wait for a `resume` (250 ms) is over by then, and its timers have run. */
const AFTER_CONNECT_MS = 400;
const AFTER_DELIVER_MS = 100;
const AFTER_DISCONNECT_MS = 700;

interface Size {
  readonly rounds: number;
  readonly users: number;
  readonly events: number;
  readonly perSecond: number;
  readonly idleMs: number;
}

/**
 * The events take 10 s, the interval of lease renewal, so each measurement contains exactly one renewal. The idle phase
 * of some rounds covers one interval of Engine.IO pings.
 */
const FULL: Size = { rounds: 5, users: 2_000, events: 20_000, perSecond: 2_000, idleMs: 25_000 };
const WARM_UP: Size = { ...FULL, users: 1_000, events: 5_000 };
const QUICK: Size = { rounds: 1, users: 50, events: 200, perSecond: 2_000, idleMs: 0 };

/** CPU time of server and Redis, in microseconds: per connect, per event, and per connection and idle second. */
interface Measured {
  readonly connect: readonly [server: number, redis: number];
  readonly event: readonly [server: number, redis: number];
  readonly idle: readonly [server: number, redis: number] | undefined;
  readonly latencyMs: readonly number[];
}

interface Bench {
  readonly deployment: Deployment;
  readonly servers: Readonly<Record<TransportName, Started>>;
  readonly client: LoadClient;
}

async function measure(bench: Bench, transport: TransportName, size: Size, idleMs: number): Promise<Measured> {
  const { deployment, client } = bench;
  const { pid, url } = bench.servers[transport];
  const run = Math.random().toString(36).slice(2, 10);
  const userIds = Array.from({ length: size.users }, (_, at) => `${run}-${at}`);
  const tokens = userIds.map((userId) => deployment.token(userId));
  const share = (times: number[], by: number) => times.map((time) => time / by) as [number, number];

  const sinceConnect = startCpuClock([pid, deployment.redisPid]);
  await client.send({ do: 'connect', transport, url, tokens, userIds });
  await delay(AFTER_CONNECT_MS);
  const connect = share(sinceConnect(), size.users);

  const sinceDeliver = startCpuClock([pid, deployment.redisPid]);
  const { latencyMs } = await client.send({ do: 'deliver', transport, events: size.events, perSecond: size.perSecond });
  await delay(AFTER_DELIVER_MS);
  const event = share(sinceDeliver(), size.events);

  const sinceIdle = startCpuClock([pid, deployment.redisPid]);
  await delay(idleMs);
  const idle = idleMs > 0 ? share(sinceIdle(), (size.users * idleMs) / 1_000) : undefined;

  await client.send({ do: 'disconnect' });
  await delay(AFTER_DISCONNECT_MS);
  return { connect, event, idle, latencyMs };
}

export async function connectAndDeliver({ quick }: BenchOptions): Promise<Report> {
  const size = quick ? QUICK : FULL;
  const deployment = await Deployment.start();
  const peers: ManagedProcess[] = [];
  const client = startLoadClient(deployment.redis.url);
  try {
    const servers = await startServers(deployment, peers);
    const bench = { deployment, servers, client };
    const results: Record<TransportName, Measured[]> = Object.fromEntries(
      TRANSPORTS.map((transport) => [transport, []]),
    ) as never;
    if (!quick) {
      progress('connect and deliver: warming up');
      for (const transport of TRANSPORTS) await measure(bench, transport, WARM_UP, 0);
    }
    for (let round = 0; round < size.rounds; round++) {
      progress(`connect and deliver: round ${round + 1} of ${size.rounds}`);
      // The order changes with each round, so that no transport always follows the same neighbour.
      for (const at of TRANSPORTS.keys()) {
        const transport = TRANSPORTS[(at + round) % TRANSPORTS.length] as TransportName;
        results[transport].push(await measure(bench, transport, size, round % 2 === 1 ? size.idleMs : 0));
      }
    }
    return report(results, size);
  } finally {
    client.close();
    for (const peer of peers) await peer.stop();
    await deployment.close();
  }
}

async function startServers(deployment: Deployment, peers: ManagedProcess[]): Promise<Record<TransportName, Started>> {
  const peer = async (name: string): Promise<Started> => {
    const [port = 0] = await freePorts(1);
    const url = `http://127.0.0.1:${port}`;
    const settings: PeerSettings = {
      port,
      redisUrl: deployment.redis.url,
      secret: deployment.jwtSecret,
      issuer: deployment.issuer,
      audience: JWT_AUDIENCE,
    };
    const args = [`bench/peers/${name}.ts`, JSON.stringify(settings)];
    const started = new ManagedProcess({ name, command: process.execPath, args, env: process.env });
    peers.push(started);
    await whenReady(started, { name, isReady: async () => (await httpStatus(url)) === 200 });
    return { url, pid: started.pid ?? 0, stop: async () => void (await started.stop()) };
  };
  const [ownWs, ownSocketIo, bareWs, bareSocketIo] = await Promise.all([
    deployment.gateway(),
    deployment.gateway(),
    peer('bare-ws'),
    peer('bare-socket-io'),
  ]);
  return {
    'tollgate-ws': ownWs,
    'tollgate-socket-io': ownSocketIo,
    'bare-ws': bareWs,
    'bare-socket-io': bareSocketIo,
  };
}

function report(results: Readonly<Record<TransportName, readonly Measured[]>>, size: Size): Report {
  const { rounds, users, events, perSecond } = size;
  return {
    name: 'Connect and deliver',
    about: [
      `Medians of ${rounds} rounds (smallest–greatest), four server processes in turn in one run, one Redis, one load client.`,
      `A round: ${users} connects of as many users, 16 at a time; then ${events} events of about 400 bytes at ${perSecond}/s.`,
      'Ratios are medians of the ratios within a round, Tollgate to the bare server of the same transport.',
    ].join('\n'),
    tables: [
      costTable('CPU per admitted connect, ms', results, (one) => one.connect, { divisor: 1_000, digits: 3 }),
      costTable('CPU per delivered event, µs', results, (one) => one.event, { divisor: 1, digits: 1 }),
      costTable('CPU per idle connection and second, µs', results, (one) => one.idle, { divisor: 1, digits: 2 }),
      latencyTable(results),
    ],
    data: { size, results },
  };
}

function costTable(
  title: string,
  results: Readonly<Record<TransportName, readonly Measured[]>>,
  pick: (one: Measured) => readonly [number, number] | undefined,
  { divisor, digits }: { readonly divisor: number; readonly digits: number },
): ReportTable {
  const column = (transport: TransportName, which: 0 | 1) =>
    results[transport].flatMap((one) => (pick(one)?.[which] ?? []) as number);
  const rows = TRANSPORTS.map((transport) => {
    const bare = transport.replace('tollgate', 'bare') as TransportName;
    const own = column(transport, 0);
    if (own.length === 0) return [TITLES[transport], '–', '–', '–'];
    const ratios = own.map((value, at) => value / (column(bare, 0)[at] ?? Number.NaN));
    return [
      TITLES[transport],
      medianAndRange(
        own.map((value) => value / divisor),
        digits,
      ),
      transport === bare ? '1' : median(ratios).toFixed(2),
      medianAndRange(
        column(transport, 1).map((value) => value / divisor),
        digits,
      ),
    ];
  });
  return { title, header: ['server', 'server CPU', 'ratio', 'Redis CPU'], rows };
}

function latencyTable(results: Readonly<Record<TransportName, readonly Measured[]>>): ReportTable {
  const rows = TRANSPORTS.map((transport) => {
    const shares = [0.5, 0.99].map((share) => results[transport].map(({ latencyMs }) => percentile(latencyMs, share)));
    return [TITLES[transport], ...shares.map((values) => medianAndRange(values, 0))];
  });
  return { title: 'From publishing to the client, ms (every tenth event)', header: ['server', 'p50', 'p99'], rows };
}

if (import.meta.main) await runAsProgram([connectAndDeliver]);
