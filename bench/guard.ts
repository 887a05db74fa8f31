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

/** Enough for exact medians, and short enough for `npm test`. */
const REPETITIONS = 3;
const HEAP = { connections: 60, messages: 900 };
/** Time for which the idle deployment is observed. */
const IDLE_MS = 4_000;

/** Measures the cost counters on a deployment of two gateways and one worker. None of them depends on CPU speed. */
export async function measureCosts(): Promise<Costs> {
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
    monitor = await ScriptMonitor.start(deployment.redis.port);
    inspector = await Inspector.connect(inspectorPort);
    const idle = await countIdleMinute(monitor, IDLE_MS);
    const inRedis = await countOperations(
      deployment,
      url,
      { gateway: forGateway, worker: forWorker, monitor },
      REPETITIONS,
    );
    const inProcess = await countProcessCosts(deployment, inspector, { url: inspected.url, ...HEAP });
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
  const command = new Command('npm run bench:guard --')
    .option('--update', 'write the measured figures to bench/guard.json', false)
    .parse();
  const { update } = command.opts<{ update: boolean }>();
  const measured = await measureCosts();
  print(measured);
  if (update) writeFileSync(COMMITTED, `${JSON.stringify(measured, null, 2)}\n`);
  const { worse, better } = compareCosts(committedCosts(), measured);
  for (const one of better) process.stdout.write(`lower: ${describeDifference(one)}\n`);
  for (const one of worse) process.stderr.write(`higher: ${describeDifference(one)}\n`);
  if (better.length > 0) process.stdout.write('Run npm run bench:guard -- --update to commit the lower figures.\n');
  if (worse.length > 0) process.exitCode = 1;
}
