import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../src/lib/clock.ts';
import { createLogger } from '../src/lib/logger.ts';
import { connectRedis, disconnectRedis, type Redis } from '../src/redis/client.ts';
import { Keys, partitionOf } from '../src/redis/keys.ts';
import { BEGINNING, Ledger } from '../src/usage/ledger/ledger.ts';
import { LedgerWriter } from '../src/usage/ledger/ledger-writer.ts';
import { Verifier } from '../src/usage/ledger/verifier.ts';
import { Windows } from '../src/usage/ledger/windows.ts';
import { usageRecord } from '../src/usage/records.ts';
import { Tallies } from '../src/usage/reports/tallies.ts';
import { cpuMicros } from './lib/cpu.ts';
import { Deployment, KEY_PREFIX } from './lib/deployment.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { median, medianAndRange, percentile } from './lib/statistics.ts';

const PER_SECOND = 1_000;
/** Interval of record production; each tick produces a tenth of a second's worth. */
const TICK_MS = 100;
const USERS = 1_000;
const TOOLS = ['analyze_workload', 'list_agents', 'create_thread', 'cost_analyzer'];
const APPEND_AT_ONCE = 1_000;

interface IngestedBacklog {
  readonly perSecond: number;
  /** CPU time per record, in microseconds. */
  readonly writer: number;
  readonly redis: number;
}

/** Appends records of many users and tools as the event log does; resolves when Redis has them. */
async function append(redis: Redis, keys: Keys, count: number, userCount: number): Promise<void> {
  for (let done = 0; done < count; done += APPEND_AT_ONCE) {
    const pipeline = redis.pipeline();
    for (let at = done; at < Math.min(count, done + APPEND_AT_ONCE); at++) {
      const userId = `user_${at % userCount}`;
      const completedAt = Date.now();
      const record = usageRecord({
        callId: `call_${completedAt}_${at}`,
        user_id: userId,
        plan: 'pro',
        tool: TOOLS[at % TOOLS.length] ?? '',
        permission: 'analytics',
        status: 'success',
        units: 5,
        run_id: 'run_0123456789abcdefghij',
        thread_id: 'thread_0123456789abcdefghij',
        request_id: 'req_0123456789abcdefghij',
        idempotency_key: null,
        transport: 'websocket',
        acceptedAt: completedAt - 40,
        startedAt: completedAt - 40,
        completedAt,
      });
      pipeline.xadd(keys.outbox(partitionOf(userId)), '*', 'r', JSON.stringify(record));
    }
    await pipeline.exec();
  }
}

/** Ingests a backlog with one writer in this process. */
async function ingestBacklog(
  redis: Redis,
  redisPid: number,
  records: number,
  userCount: number,
): Promise<IngestedBacklog> {
  const keys = new Keys(`fold${Math.random().toString(36).slice(2)}`);
  await append(redis, keys, records, userCount);
  const writer = new LedgerWriter({ redis, keys });
  const cpu = () => [cpuMicros(process.pid), cpuMicros(redisPid)] as const;
  const [ownBefore, redisBefore] = cpu();
  const startedAt = performance.now();
  let moved = 0;
  for (let at: number | undefined; at === undefined; ) {
    const ingested = await writer.ingest(Date.now());
    moved += ingested.records;
    at = ingested.completeUntil;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const [own, ofRedis] = cpu();
  if (moved !== records) throw new Error(`${moved} of ${records} records were ingested`);
  await expectClean(redis, keys);
  return { perSecond: moved / seconds, writer: (own - ownBefore) / moved, redis: (ofRedis - redisBefore) / moved };
}

/** Verifies that fast ingestion has produced correct tallies. */
async function expectClean(redis: Redis, keys: Keys): Promise<number> {
  const ledger = new Ledger({ redis, keys });
  const windows = new Windows({ redis, keys, ledger });
  const verifier = new Verifier({ ledger, windows, tallies: new Tallies({ redis, keys }), clock: systemClock });
  const [first] = (await ledger.read({ after: BEGINNING, limit: 1 })).records;
  const now = new Date().toISOString().slice(0, 'YYYY-MM-DDTHH'.length);
  const startedAt = performance.now();
  const hours = [...new Set([first?.period ?? now, now])];
  const { problem, checked_records } = await verifier.verify(hours, Number.POSITIVE_INFINITY);
  if (problem) throw new Error(`verify: ${problem.what}`);
  return checked_records / ((performance.now() - startedAt) / 1000);
}

/** Measures the time from completion to the ledger per record, with a real worker on its schedule. */
async function lags(deployment: Deployment, redis: Redis, seconds: number): Promise<number[]> {
  const keys = new Keys(KEY_PREFIX);
  const worker = await deployment.worker();
  const startedAt = performance.now();
  for (let tick = 1; tick <= (seconds * 1000) / TICK_MS; tick++) {
    await append(redis, keys, (PER_SECOND * TICK_MS) / 1000, USERS);
    await delay(Math.max(0, startedAt + tick * TICK_MS - performance.now()));
  }
  const total = PER_SECOND * seconds;
  const deadline = performance.now() + 30_000;
  while ((await redis.xlen(keys.ledger)) < total && performance.now() < deadline) await delay(100);
  await worker.stop();
  const entries = await redis.xrange(keys.ledger, '-', '+');
  if (entries.length !== total) throw new Error(`${entries.length} of ${total} records were ingested`);
  return entries.map(([, [, json = '{}', , appended = '0']]) => {
    const { completed_at } = JSON.parse(json) as { completed_at: string };
    return Math.max(0, Number(appended) - Date.parse(completed_at));
  });
}

/** Measures the throughput of ledger ingestion and its lag under a steady load. */
export async function ledger({ quick }: BenchOptions): Promise<Report> {
  const size = quick ? { records: 5_000, rounds: 1, seconds: 3 } : { records: 50_000, rounds: 3, seconds: 20 };
  const deployment = await Deployment.start();
  const redis = await connectRedis(deployment.redis.url, 'commands', createLogger('bench', 'silent'));
  try {
    progress(`ledger: ${size.records} records, ${size.rounds} rounds`);
    const spread: IngestedBacklog[] = [];
    const single: IngestedBacklog[] = [];
    for (let round = 0; round < size.rounds; round++) {
      spread.push(await ingestBacklog(redis, deployment.redisPid, size.records, USERS));
      single.push(await ingestBacklog(redis, deployment.redisPid, size.records, 1));
      await redis.flushall();
    }
    const checkedPerSecond = await checkSpeed(redis, size.records);
    progress(`ledger: ${PER_SECOND} records per second for ${size.seconds} s`);
    const lag = await lags(deployment, redis, size.seconds);
    const row = (name: string, runs: readonly IngestedBacklog[]) => [
      name,
      medianAndRange(
        runs.map((run) => run.perSecond),
        0,
      ),
      medianAndRange(
        runs.map((run) => run.writer),
        1,
      ),
      medianAndRange(
        runs.map((run) => run.redis),
        1,
      ),
    ];
    const ingestHeader = ['backlog', 'records/s', 'writer CPU, µs per record', 'Redis CPU, µs per record'];
    const ingestRows = [row(`${USERS} users, 4 tools`, spread), row('one user, one outbox', single)];
    const lagRows = [[0.5, 0.99, 1].map((share) => percentile(lag, share).toFixed(0))];
    return {
      name: 'Ledger',
      about: `A backlog of ${size.records} records, ingested by one writer (one core for it, one for Redis), ${size.rounds} rounds; then ${PER_SECOND} records per second for ${size.seconds} s, ingested by a worker.`,
      tables: [
        { title: 'Ingestion, with chain, tallies and windows', header: ingestHeader, rows: ingestRows },
        { title: 'Verifying', header: ['records/s'], rows: [[checkedPerSecond.toFixed(0)]] },
        {
          title: `Lag at ${PER_SECOND} per second, ms from completion to the ledger`,
          header: ['p50', 'p99', 'max'],
          rows: lagRows,
        },
      ],
      data: {
        spread,
        single,
        checkedPerSecond,
        lag: { p50: median(lag), p99: percentile(lag, 0.99), max: Math.max(...lag) },
      },
    };
  } finally {
    await disconnectRedis(redis);
    await deployment.close();
  }
}

async function checkSpeed(redis: Redis, records: number): Promise<number> {
  const keys = new Keys('check');
  await append(redis, keys, records, USERS);
  const writer = new LedgerWriter({ redis, keys });
  while ((await writer.ingest(Date.now())).completeUntil === undefined);
  const perSecond = await expectClean(redis, keys);
  await redis.flushall();
  return perSecond;
}

if (import.meta.main) await runAsProgram([ledger]);
