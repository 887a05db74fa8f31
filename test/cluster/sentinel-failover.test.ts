import { beforeAll, describe, expect, it } from '@jest/globals';
import { EventLog } from '../../src/events/event-log.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { type Acknowledged, AcknowledgedCaller, SeenLosses } from '../support/chaos/acknowledged.ts';
import { Reports } from '../support/chaos/invariants.ts';
import { silentLogger } from '../support/core.ts';
import { billedRecords } from '../support/ledger.ts';
import { runMainPath } from '../support/main-path.ts';
import { closeAfter } from '../support/open-resources.ts';
import type { RedisProcess, Settings } from '../support/redis-process.ts';
import { SentinelProcesses } from '../support/redis-sentinels.ts';
import { StackProcesses } from '../support/stack-processes.ts';
import { until } from '../support/until.ts';

/** `npm run faults:sentinel` sets more of both, and all faults. */
const USERS = Number(process.env.FAILOVER_USERS ?? 10);
const ROUNDS = Number(process.env.FAILOVER_ROUNDS ?? 1);
const EVERYTHING = process.env.FAILOVER_FAULTS === 'all';
/** Duration of load before the fault, and after service is restored. */
const CALM_MS = 1_000;
/** Writes acknowledged longer ago than this when a master died had reached a replica. */
const REPLICATION_MS = 1_000;
const PASSWORD = 'p@ss:w/rd';
const SENTINEL_PASSWORD = 'of-the-sentinels';

interface Fault {
  /** Applies the fault to the master. @returns undoes it */
  strike(sentinels: SentinelProcesses, master: RedisProcess): Promise<() => Promise<unknown>>;
  /**
   * Acknowledgements after this time belong to the new master. Earlier ones, while the old master still accepted
   * writes, may be lost.
   */
  readonly splitBrain: boolean;
}

const FAULTS: Record<string, Fault> = {
  'is killed': {
    splitBrain: false,
    async strike(_sentinels, master) {
      await master.kill('SIGKILL');
      return () => master.restart();
    },
  },
  'hangs for a while': {
    splitBrain: false,
    async strike(_sentinels, master) {
      await master.kill('SIGSTOP');
      return () => master.kill('SIGCONT');
    },
  },
  'is cut off from everybody but its clients': {
    splitBrain: true,
    strike: (sentinels, master) => sentinels.partition(master),
  },
};

const env = {
  REDIS_SENTINEL_PASSWORD: SENTINEL_PASSWORD,
  MESSAGE_RATE_PER_MINUTE: '1000000',
  EVENT_LOG_LENGTH: '100000',
  EVENT_LOG_BYTES: String(2 ** 30),
  ACCESS_TOKEN_SECONDS: '5',
  // The sweep ends interrupted calls soon after.
  TOOL_TIMEOUT_SECONDS: '1',
  LOG_LEVEL: 'error',
};

async function deployment(settings: Settings = []) {
  const options = { password: PASSWORD, sentinelPassword: SENTINEL_PASSWORD, settings };
  const sentinels = await SentinelProcesses.start(options);
  closeAfter('file', () => sentinels.close());
  const stack = await StackProcesses.start({ gateways: 2, workers: 2, env, redisUrl: sentinels.url });
  closeAfter('file', () => stack.close());
  return { sentinels, stack };
}

type Deployment = Awaited<ReturnType<typeof deployment>>;

/** Load with a fault in the middle, and what remains of the acknowledged writes. */
async function failover({ sentinels, stack }: Deployment, fault: Fault) {
  await sentinels.complete();
  const sights = new SeenLosses();
  const callers = Array.from({ length: USERS }, (_, at) => new AcknowledgedCaller(stack.addresses, sights, at));
  const stop = new AbortController();
  closeAfter('test', () => stop.abort());
  const working = Promise.all(callers.map((caller) => caller.work(stop.signal)));
  const acknowledged = (since: number) => sights.acknowledged.filter(({ at }) => at >= since);
  const calmUntil = performance.now() + CALM_MS;
  await until(() => performance.now() >= calmUntil && acknowledged(0).length >= USERS, { timeoutMs: 20_000 });

  const before = await sentinels.master();
  const struckAt = performance.now();
  const undo = await fault.strike(sentinels, before);
  await sentinels.failedOver(before);
  const switchedAt = performance.now();
  // The new master has served every user; what a client still has from the old one came before.
  const served = () => new Set(acknowledged(switchedAt).map(({ userId }) => userId)).size === USERS;
  await until(served, { timeoutMs: 40_000, label: 'everybody to be served again' });
  const servedAt = performance.now();
  await undo();
  stop.abort();
  await working;
  return { sights, callers, struckAt, switchedAt, servedAt };
}

type Failover = Awaited<ReturnType<typeof failover>>;

async function lossesOf({ sights, callers }: Failover, { sentinels, stack }: Deployment) {
  const variables = { REDIS_URL: sentinels.url, REDIS_SENTINEL_PASSWORD: SENTINEL_PASSWORD };
  const redis = await connectRedis(variables, 'commands', silentLogger);
  closeAfter('test', () => disconnectRedis(redis));
  const logs = await Promise.all(callers.map(({ userId }) => callsInLog(redis, stack.addresses.keyPrefix, userId)));
  const inLogs = new Set(logs.flat());
  const since = new Date(Date.now() - 3_600_000);
  const reports = await Reports.open(stack.addresses, since);
  await until(async () => (await reports.verify()).ok, { timeoutMs: 20_000, label: 'a ledger that proves itself' });
  const users = new Set(callers.map(({ userId }) => userId));
  const isOurs = (record: { user_id: string }) => users.has(record.user_id);
  // An acknowledged call is ingested within half a second.
  const kept = (records: { id: string }[]) => new Set(records.map(({ id }) => id));
  let records = (await billedRecords(undefined, stack.addresses)).filter(isOurs);
  const ingested = async () => {
    records = (await billedRecords(undefined, stack.addresses)).filter(isOurs);
    const ids = kept(records);
    return sights.acknowledged.every(({ callId, recordId }) => ids.has(recordId) || !inLogs.has(callId));
  };
  await until(ingested, { timeoutMs: 20_000, label: 'the record of every call that is in a log' });
  const ids = kept(records);
  const keys = records.map((record) => String(record.idempotency_key));
  return {
    events: sights.acknowledged.filter(({ callId }) => !inLogs.has(callId)),
    records: sights.acknowledged.filter(({ recordId }) => !ids.has(recordId)),
    twice: keys.filter((key, at) => keys.indexOf(key) !== at),
  };
}

async function callsInLog(redis: Redis, prefix: string, userId: string): Promise<string[]> {
  const log = new EventLog({ redis, keys: new Keys(prefix), metrics: new Metrics() });
  const calls: string[] = [];
  // The log may have a new epoch.
  const { epoch } = await log.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
  for (let after = 0; ; ) {
    const { entries, head } = await log.read(userId, { epoch, after, delivered: undefined }, 500);
    for (const { type, json } of entries) if (type === 'tool_completed') calls.push(JSON.parse(json).tool_call_id);
    after = entries.at(-1)?.seq ?? head;
    if (after >= head) return calls;
  }
}

/** The longest time in which a user got no answer. */
function longestGap(acknowledged: readonly Acknowledged[]): number {
  const last = new Map<string, number>();
  let longest = 0;
  for (const { userId, at } of acknowledged) {
    longest = Math.max(longest, at - (last.get(userId) ?? at));
    last.set(userId, at);
  }
  return Math.round(longest);
}

function report(name: string, done: Failover, losses: Awaited<ReturnType<typeof lossesOf>>): void {
  const { sights, struckAt, switchedAt, servedAt } = done;
  const figures = {
    acknowledged: sights.acknowledged.length,
    events_lost: losses.events.length,
    records_lost: losses.records.length,
    charged_twice: losses.twice.length,
    another_master_after_ms: Math.round(switchedAt - struckAt),
    everybody_served_after_ms: Math.round(servedAt - struckAt),
    longest_gap_ms: longestGap(sights.acknowledged),
    connections_lost: sights.connectionsLost,
    connections_refused: sights.connectionsRefused,
    refusals: Object.fromEntries(sights.refusals),
    told_of_loss: sights.replayGaps,
  };
  process.stdout.write(`failover, the master ${name}: ${JSON.stringify(figures)}\n`);
}

async function round(on: Deployment, name: string, fault = FAULTS[name] as Fault): Promise<void> {
  const done = await failover(on, fault);
  const losses = await lossesOf(done, on);
  report(name, done, losses);
  // No command is sent twice, and one history never charges a key twice.
  expect(losses.twice).toEqual([]);
  // Clients of the old master leave it when the Sentinels do. It had acknowledged what is lost, shortly before.
  const from = fault.splitBrain ? done.struckAt : done.struckAt - REPLICATION_MS;
  const until = fault.splitBrain ? done.switchedAt + REPLICATION_MS : done.struckAt;
  const outside = [...losses.events, ...losses.records].filter(({ at }) => at < from || at > until);
  expect(outside).toEqual([]);
}

describe('a deployment on a master that Sentinels watch', () => {
  let on: Deployment;

  beforeAll(async () => {
    on = await deployment();
  }, 90_000);

  it('B171 does all that clients, operators and billing want of it', async () => {
    await runMainPath(on.stack.addresses);
  }, 60_000);

  it.each(EVERYTHING ? Object.keys(FAULTS) : ['is killed'])(
    `follows the Sentinels when its master %s, and loses nothing but what only that one had (${ROUNDS} rounds)`,
    async (name) => {
      for (let number = 0; number < ROUNDS; number++) await round(on, name);
    },
    120_000 * ROUNDS,
  );
});

if (EVERYTHING) {
  it(
    `a partitioned master with min-replicas-to-write loses no acknowledged write (${ROUNDS} rounds)`,
    async () => {
      const on = await deployment([
        ['min-replicas-to-write', '1'],
        ['min-replicas-max-lag', '2'],
      ]);
      const name = 'is cut off from everybody but its clients, and takes no writes without a replica';
      const { strike } = FAULTS['is cut off from everybody but its clients'] as Fault;
      for (let number = 0; number < ROUNDS; number++) await round(on, name, { strike, splitBrain: false });
    },
    120_000 * ROUNDS,
  );
}
