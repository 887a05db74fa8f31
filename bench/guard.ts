import { readFileSync, writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { freePorts } from '../scripts/lib/ports.ts';
import { table } from '../scripts/lib/table.ts';
import { type Costs, compareCosts, describeDifference } from './guard/compare.ts';
import { countOperations } from './guard/operations.ts';
import { countIdleMinute, countProcessCosts } from './guard/process-costs.ts';
import { Deployment } from './lib/deployment.ts';
import { Inspector } from './lib/inspector.ts';
import { RedisMeter } from './lib/redis-meter.ts';
import { ScriptMonitor } from './lib/script-monitor.ts';

const COMMITTED = new URL('./guard.json', import.meta.url);

export interface GuardSize {
  readonly repetitions: number;
  readonly connections: number;
  readonly messages: number;
  /** Milliseconds for which the idle deployment is observed. */
  readonly idleMs: number;
}

export const SHORT: GuardSize = { repetitions: 3, connections: 40, messages: 800, idleMs: 3_000 };
const FULL: GuardSize = { repetitions: 9, connections: 200, messages: 5_000, idleMs: 60_000 };

/** Measures the cost counters on a deployment of two gateways and one worker. None of them depends on CPU speed. */
export async function measureCosts({ repetitions, idleMs, ...heap }: GuardSize): Promise<Costs> {
  const deployment = await Deployment.start();
  const meters: RedisMeter[] = [];
  let monitor: ScriptMonitor | undefined;
  let inspector: Inspector | undefined;
  try {
    for (let at = 0; at < 2; at++) meters.push(await RedisMeter.start(deployment.redis.port));
    const [forGateway, forWorker] = meters as [RedisMeter, RedisMeter];
    const [inspectorPort = 0] = await freePorts(1);
    // A lease this long is not renewed meanwhile.
    const quiet = { CONNECTION_LEASE_SECONDS: '600' };
    const [{ url }, inspected] = await Promise.all([
      deployment.gateway({ REDIS_URL: forGateway.url, ...quiet }),
      deployment.gateway({ NODE_OPTIONS: `--inspect=127.0.0.1:${inspectorPort}`, ...quiet }),
      deployment.worker({ REDIS_URL: forWorker.url }),
    ]);
    monitor = await ScriptMonitor.start(deployment.redis.url);
    inspector = await Inspector.connect(inspectorPort);
    const idle = await countIdleMinute(monitor, idleMs);
    const inRedis = await countOperations(
      deployment,
      url,
      { gateway: forGateway, worker: forWorker, monitor },
      repetitions,
    );
    const inProcess = await countProcessCosts(deployment, inspector, { url: inspected.url, ...heap });
    return { ...inRedis, ...inProcess, 'idle minute': idle };
  } finally {
    inspector?.close();
    monitor?.close();
    await deployment.close();
    for (const meter of meters) await meter.close();
  }
}

/** The committed costs, `bench/guard.json`. */
export function committedCosts(): Costs {
  return JSON.parse(readFileSync(COMMITTED, 'utf8')) as Costs;
}

function print(costs: Costs): void {
  const rows = Object.entries(costs).flatMap(([operation, counters]) =>
    Object.entries(counters).map(([counter, value]) => [operation, counter, String(value)]),
  );
  process.stdout.write(`${table(['operation', 'counter', 'measured'], rows, ['measured'])}\n`);
}

if (import.meta.main) {
  const command = new Command()
    .option('--update', 'write the measured figures to bench/guard.json', false)
    .option('--short', 'the form of npm test', false)
    .parse();
  const { update, short } = command.opts<{ update: boolean; short: boolean }>();
  const measured = await measureCosts(short ? SHORT : FULL);
  print(measured);
  if (update) writeFileSync(COMMITTED, `${JSON.stringify(measured, null, 2)}\n`);
  const { worse, better } = compareCosts(committedCosts(), measured);
  for (const one of better) process.stdout.write(`lower: ${describeDifference(one)}\n`);
  for (const one of worse) process.stderr.write(`higher: ${describeDifference(one)}\n`);
  if (better.length > 0) process.stdout.write('Run npm run bench:guard -- --update to commit the lower figures.\n');
  if (worse.length > 0) process.exitCode = 1;
}
