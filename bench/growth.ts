import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../scripts/lib/processes.ts';
import { table } from '../scripts/lib/table.ts';
import { Keys } from '../src/redis/keys.ts';
import { clusterTraffic } from './growth/cluster.ts';
import { GrowthMeter, type OperationCost } from './growth/counters.ts';
import { memoryByKey } from './growth/memory.ts';
import { Deployment, KEY_PREFIX } from './lib/deployment.ts';
import { RedisMeter } from './lib/redis-meter.ts';
import { type BenchOptions, progress, type Report, type ReportTable, runAsProgram } from './lib/report.ts';
import { measureMemory } from './price/measures.ts';
import { Targets } from './price/targets.ts';

interface Sizes {
  readonly repetitions: number;
  readonly registry: readonly number[];
  readonly logs: readonly number[];
  readonly ledger: readonly number[];
  readonly plans: readonly number[];
  readonly connections: readonly number[];
  readonly clusterUsers: number;
}

const FULL: Sizes = {
  repetitions: 60,
  registry: [10, 1_000, 100_000],
  logs: [10, 100, 1_000],
  ledger: [10, 10_000, 300_000],
  plans: [4, 30, 100],
  // The limit of open files of one process bounds the clients.
  connections: [1_000, 5_000, 15_000],
  clusterUsers: 20_000,
};
const QUICK: Sizes = {
  repetitions: 2,
  registry: [1, 5],
  logs: [1, 5],
  ledger: [1, 5],
  plans: [4, 6],
  connections: [2, 8],
  clusterUsers: 50,
};

type Prepare = (meter: GrowthMeter, size: number) => Promise<void>;

/** Measures operations on one gateway and worker at each size of one dimension. */
async function measureAt(
  dimension: string,
  sizes: readonly number[],
  repetitions: number,
  options: {
    readonly prepare?: Prepare;
    readonly isLogLength?: boolean;
    readonly catalogue?: (size: number) => string;
  },
): Promise<ReportTable> {
  const rows: string[][] = [];
  for (const size of sizes) {
    progress(`growth: ${dimension} ${size}`);
    const catalogue = options.catalogue?.(size);
    const env = catalogue ? { CATALOGUE_DIR: catalogue } : {};
    const deployment = await Deployment.start();
    const meter = await RedisMeter.start(deployment.redis.port);
    const growth = new GrowthMeter(deployment);
    try {
      const [{ url }] = await Promise.all([
        deployment.gateway({ REDIS_URL: meter.url, CONNECTION_LEASE_SECONDS: '600', ...env }),
        deployment.worker(env),
      ]);
      await options.prepare?.(growth, size);
      // The first round sends the text of scripts, and compiles.
      await growth.measure(url, meter, { repetitions: 2 });
      const logLength = options.isLogLength ? size : 0;
      for (const cost of await growth.measure(url, meter, { repetitions, logLength })) rows.push(row(size, cost));
    } finally {
      growth.close();
      await deployment.close();
      await meter.close();
      if (catalogue) rmSync(catalogue, { recursive: true });
    }
  }
  return {
    title: dimension,
    header: ['size', 'operation', 'requests', 'bytes', 'script µs'],
    rows: rows.toSorted(([, a = ''], [, b = '']) => a.localeCompare(b)),
  };
}

function row(size: number, { operation, requests, bytes, scriptMicros }: OperationCost): string[] {
  return [size.toLocaleString('en'), operation, String(requests), String(bytes), String(scriptMicros)];
}

/** Adds users with one live connection each to the registry. */
const fillRegistry: Prepare = async ({ redis }, users) => {
  const keys = new Keys(KEY_PREFIX);
  const endsAt = Date.now() + 3_600_000;
  const details = JSON.stringify({ node: 'node_elsewhere', endpoint: '/ws', opened_at: new Date().toISOString() });
  for (let from = 0; from < users; from += 1_000) {
    const pipeline = redis.pipeline();
    for (let at = from; at < Math.min(users, from + 1_000); at++) {
      const user = keys.user(`registered-${at}`);
      pipeline.zadd(user.leases, endsAt, `ws_${at}`).hset(user.connections, `ws_${at}`, `1 ${details}`);
    }
    await pipeline.exec();
  }
};

/** Lengthens the ledger with copies of its first record; the chain continues behind them. */
const fillLedger: Prepare = async ({ redis }, records) => {
  const keys = new Keys(KEY_PREFIX);
  const record = JSON.stringify({ id: 'usage_of_the_growth_benchmark', user_id: 'u', units: 1, tool: 'list_agents' });
  for (let from = 1; from <= records; from += 1_000) {
    const pipeline = redis.pipeline();
    for (let at = from; at < Math.min(records + 1, from + 1_000); at++) {
      pipeline.xadd(keys.ledger, `${at}-0`, 'r', record.padEnd(560, ' '), 'a', Date.now());
    }
    await pipeline.exec();
  }
  await redis.hset(keys.ledgerState, { sequence: records, hash: 'f'.repeat(64) });
};

/** Writes a catalogue with more plans. Each has the tools and permissions of `free`. */
function catalogueWithPlans(plans: number): string {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-plans-'));
  cpSync(join(PROJECT_ROOT, 'config'), folder, { recursive: true });
  const file = join(folder, 'plans.json');
  const catalogue = JSON.parse(readFileSync(file, 'utf8')) as { plans: Record<string, { rank: number }> };
  const { free } = catalogue.plans;
  for (let at = Object.keys(catalogue.plans).length; at < plans && free; at++) {
    catalogue.plans[`plan_number_${at}`] = { ...free, rank: at };
  }
  writeFileSync(file, JSON.stringify(catalogue));
  return folder;
}

/** Memory per connection between two numbers of connections, and the bytes that a message allocates there. */
async function connectionsTable(connections: readonly number[]): Promise<ReportTable> {
  const rows: string[][] = [];
  const targets = await Targets.start([], '');
  try {
    for (const target of targets.list) {
      for (const [at, many] of connections.entries()) {
        const few = connections[at - 1];
        if (few === undefined) continue;
        progress(`growth: ${many} connections, ${target.name}`);
        const figures = await measureMemory(target, { memory: [few, many] });
        const kib = figures['memory per connection, KiB'] ?? Number.NaN;
        rows.push([target.name, `${few.toLocaleString('en')} to ${many.toLocaleString('en')}`, kib.toFixed(1)]);
      }
    }
  } finally {
    await targets.close();
  }
  return { title: 'Connections of one node', header: ['transport', 'connections', 'KiB per connection'], rows };
}

/** Measures how the cost of operations grows with each dimension of a deployment. */
export async function growth({ quick }: BenchOptions): Promise<Report> {
  const sizes = quick ? QUICK : FULL;
  const { repetitions } = sizes;
  const measurements = [
    () => measureAt('Users in the registry', sizes.registry, repetitions, { prepare: fillRegistry }),
    () => measureAt('Events in the log of the user', sizes.logs, repetitions, { isLogLength: true }),
    () => measureAt('Records in the ledger', sizes.ledger, repetitions, { prepare: fillLedger }),
    () => measureAt('Plans', sizes.plans, repetitions, { catalogue: catalogueWithPlans }),
    () => memoryByKey(quick ? 3 : 200),
    () => clusterTraffic(sizes.clusterUsers),
    () => connectionsTable(sizes.connections),
  ];
  const tables: ReportTable[] = [];
  for (const measure of measurements) {
    const measured = await measure();
    tables.push(measured);
    // An interrupted run keeps what it has measured.
    progress(`${measured.title}\n${table(measured.header, measured.rows)}`);
  }
  return {
    name: 'Growth',
    about: 'Requests of the gateway to Redis, their bytes in both directions, and the time of all scripts in Redis.',
    tables,
    data: tables,
  };
}

if (import.meta.main) await runAsProgram([growth]);
