import { rmSync } from 'node:fs';
import type { Redis } from 'ioredis';
import { table } from '../scripts/lib/table.ts';
import { UserError } from '../scripts/lib/user-error.ts';
import { clusterTraffic } from './growth/cluster.ts';
import { connectionsTable } from './growth/connections.ts';
import { GrowthMeter, type OperationCost } from './growth/counters.ts';
import { memoryByKey } from './growth/memory.ts';
import { fillLedger, fillRegistry, largeCatalogue } from './growth/prepare.ts';
import { Deployment } from './lib/deployment.ts';
import { RedisMeter } from './lib/redis-meter.ts';
import { type BenchOptions, progress, type Report, type ReportTable, runAsProgram } from './lib/report.ts';

/** One size of a dimension. */
interface Case {
  /** The size, as the report shows it. */
  readonly size: string;
  readonly nodes?: number;
  readonly prepare?: (redis: Redis) => Promise<void>;
  /** Events in the log of each user. */
  readonly logLength?: number;
  /** Returns the folder of a catalogue, which is removed afterwards. */
  readonly catalogue?: () => string;
}

interface Sizes {
  readonly repetitions: number;
  readonly users: readonly number[];
  readonly logs: readonly number[];
  readonly ledger: readonly number[];
  readonly nodes: readonly number[];
  readonly tools: readonly number[];
  readonly plans: readonly (readonly [plans: number, permissions: number])[];
  readonly connections: readonly number[];
  readonly clusterUsers: number;
}

const FULL: Sizes = {
  repetitions: 200,
  users: [10, 1_000, 100_000],
  logs: [10, 100, 1_000],
  ledger: [10, 10_000, 1_000_000, 10_000_000],
  nodes: [1, 2, 4, 8],
  tools: [10, 100, 1_000],
  plans: [
    [4, 7],
    [30, 100],
    [100, 1_000],
  ],
  connections: [1_000, 5_000, 10_000, 20_000],
  clusterUsers: 20_000,
};
const QUICK: Sizes = {
  repetitions: 2,
  users: [1, 5],
  logs: [1, 5],
  ledger: [1, 5],
  nodes: [1, 2],
  tools: [30, 40],
  plans: [
    [4, 7],
    [6, 10],
  ],
  connections: [2, 8],
  clusterUsers: 50,
};

/** Measures operations on a deployment at each size of one dimension. */
async function measureAt(dimension: string, cases: readonly Case[], repetitions: number): Promise<ReportTable> {
  const rows: string[][] = [];
  for (const one of cases) {
    progress(`growth: ${dimension} ${one.size}`);
    for (const cost of await measureCase(one, repetitions)) rows.push(row(one.size, cost));
  }
  return {
    title: dimension,
    header: ['size', 'operation', 'requests', 'bytes', 'commands', 'script µs', 'gateway µs', 'worker µs', 'Redis µs'],
    rows: rows.toSorted(([, a = ''], [, b = '']) => a.localeCompare(b)),
  };
}

async function measureCase(one: Case, repetitions: number): Promise<OperationCost[]> {
  const catalogue = one.catalogue?.();
  const env = catalogue ? { CATALOGUE_DIR: catalogue } : {};
  const deployment = await Deployment.start();
  const meter = await RedisMeter.start(deployment.redis.port);
  const growth = new GrowthMeter(deployment);
  try {
    await one.prepare?.(growth.redis);
    const gatewayEnv = { REDIS_URL: meter.url, CONNECTION_LEASE_SECONDS: '600', ...env };
    const [worker, ...gateways] = await Promise.all([
      deployment.worker(env),
      ...Array.from({ length: one.nodes ?? 1 }, () => deployment.gateway(gatewayEnv)),
    ]);
    const measured = { gateways, worker, meter };
    // The first round sends the text of scripts, and compiles.
    await growth.measure(measured, { repetitions: Math.ceil(repetitions / 2) * gateways.length });
    return await growth.measure(measured, { repetitions, logLength: one.logLength ?? 0 });
  } finally {
    growth.close();
    await deployment.close();
    await meter.close();
    if (catalogue) rmSync(catalogue, { recursive: true });
  }
}

function row(size: string, cost: OperationCost): string[] {
  const { operation, requests, bytes, commands, scriptMicros, cpuMicros } = cost;
  return [size, operation, ...[requests, bytes, commands, scriptMicros, ...cpuMicros].map(String)];
}

function casesOf(sizes: readonly number[], caseOf: (size: number) => Omit<Case, 'size'>): Case[] {
  return sizes.map((size) => ({ size: size.toLocaleString('en'), ...caseOf(size) }));
}

/** The measurements by the name with which `--only` selects them. */
function measurementsOf(sizes: Sizes, quick: boolean): Readonly<Record<string, () => Promise<ReportTable>>> {
  const at = (title: string, cases: readonly Case[]) => () => measureAt(title, cases, sizes.repetitions);
  const catalogues = sizes.plans.map(([plans, permissions]) => ({
    size: `${plans} × ${permissions.toLocaleString('en')}`,
    catalogue: () => largeCatalogue({ plans, permissions }),
  }));
  return {
    users: at(
      'Users in the registry',
      casesOf(sizes.users, (size) => ({ prepare: (redis) => fillRegistry(redis, size) })),
    ),
    log: at(
      'Events in the log of the user',
      casesOf(sizes.logs, (logLength) => ({ logLength })),
    ),
    ledger: at(
      'Records in the ledger',
      casesOf(sizes.ledger, (size) => ({ prepare: (redis) => fillLedger(redis, size) })),
    ),
    nodes: at(
      'Nodes',
      casesOf(sizes.nodes, (nodes) => ({ nodes })),
    ),
    tools: at(
      'Tools',
      casesOf(sizes.tools, (tools) => ({ catalogue: () => largeCatalogue({ tools }) })),
    ),
    plans: at('Plans × permissions', catalogues),
    memory: () => memoryByKey(quick ? 3 : 200),
    cluster: () => clusterTraffic(sizes.clusterUsers, quick ? 1 : 20),
    connections: () => connectionsTable(sizes.connections, quick),
  };
}

/** Measures how the cost of operations grows with each dimension of a deployment. */
export async function growth({ quick, only }: BenchOptions): Promise<Report> {
  const measurements = measurementsOf(quick ? QUICK : FULL, quick);
  const names = only ?? Object.keys(measurements);
  const tables: ReportTable[] = [];
  for (const name of names) {
    const measure = measurements[name];
    if (!measure) throw new UserError(`There is no measurement ${name}: ${Object.keys(measurements).join(', ')}`);
    const measured = await measure();
    tables.push(measured);
    // An interrupted run keeps what it has measured.
    progress(`${measured.title}\n${table(measured.header, measured.rows)}`);
  }
  return {
    name: 'Growth',
    about:
      'Per operation: requests of the gateways to Redis and their bytes, commands that Redis executes, time of scripts, ' +
      'CPU of processes without what they use while idle.',
    tables,
    data: tables,
  };
}

if (import.meta.main) await runAsProgram([growth]);
