import { expect, it } from '@jest/globals';
import tools from '../../config/tools.json' with { type: 'json' };
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Caller, type ChaosUser, Observations } from '../support/chaos/callers.ts';
import { CrashingConsumer } from '../support/chaos/crashing-consumer.ts';
import {
  type CompletedCall,
  effectsOf,
  Reports,
  readUserRecord,
  type UserRecord,
  unended,
} from '../support/chaos/invariants.ts';
import { type Kills, killEverything } from '../support/chaos/kills.ts';
import { Random } from '../support/chaos/random.ts';
import { silentLogger } from '../support/core.ts';
import { killableRedis } from '../support/killable-redis.ts';
import type { BilledRecord } from '../support/ledger.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type StackAddresses, StackProcesses } from '../support/stack-processes.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** `npm run faults:billing` sets 100,000. */
const CALLS = Number(process.env.FAULT_ALL_CALLS ?? 400);
/** Kills of gateways, and of workers; Redis is killed half as often. */
const KILLS = Number(process.env.FAULT_ALL_KILLS ?? 1);
/** Concurrent callers. */
const CALLERS = Number(process.env.FAULT_ALL_LANES ?? 6);
/** Reproduces the same kills and retries, as far as the machine allows. */
const SEED = Number(process.env.FAULT_SEED ?? Math.floor(Math.random() * 2 ** 32));
/** Enough users that each log can be read in one go, and that no user reaches the limit of kept threads. */
const USERS = Math.min(200, Math.max(CALLERS, Math.ceil(CALLS / 250)));
const TASKS_AT_ONCE = 20;
const AT_ONCE = 4;

/**
 * A run whose worker was killed is taken over within 15 s, an interrupted call ended within 11 s; each may be hit by
 * the next kill.
 */
const QUIET_MS = 90_000;
const TIMEOUT_MS = 120_000 + QUIET_MS + 20 * CALLS;

const PRICES = new Map(tools.tools.map(({ name, units }) => [name, units]));

const env = {
  EVENT_LOG_LENGTH: '1000000',
  EVENT_LOG_BYTES: String(2 ** 30),
  MESSAGE_RATE_PER_MINUTE: '1000000',
  TOOL_TIMEOUT_SECONDS: '1',
  MAX_CONNECTIONS_PER_USER: '50',
  // The warning would appear for each of thousands of cut connections.
  LOG_LEVEL: 'error',
};

it(
  `executes, reports and charges every call once while all processes are killed (${CALLS} calls, ${KILLS} kills of each kind)`,
  async () => {
    const since = new Date();
    const store = await killableRedis();
    const stack = await StackProcesses.start({ gateways: 3, workers: 2, env, redisUrl: store.url });
    closeAfter('test', () => stack.close());
    const random = new Random(SEED);
    const consumer = new CrashingConsumer(stack.addresses, new Random(random.below(2 ** 32)));
    let wanted = Number.POSITIVE_INFINITY;
    const pulling = consumer.pull(() => consumer.kept.length >= wanted);
    closeAfter('test', () => {
      wanted = 0;
      return pulling;
    });

    const startedAt = performance.now();
    const { observations, users, kills } = await runChaos(stack, random, (signal, done) => {
      return killEverything(stack, store, new Random(random.below(2 ** 32)), {
        kills: KILLS,
        total: CALLS,
        signal,
        done,
      });
    });
    const seconds = (performance.now() - startedAt) / 1_000;

    const redis = await connectRedis(store.url, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    const isQuiet = async () => (await unended(redis, stack.addresses)) === 0;
    await until(isQuiet, { timeoutMs: QUIET_MS, everyMs: 100, label: 'every call and run to have ended' });
    const userRecords = await readUserRecords(redis, stack.addresses, users);
    const completed = userRecords.flatMap((record) => record.completed);
    wanted = completed.filter(({ recordId }) => recordId !== null).length;
    await until(() => consumer.kept.length >= wanted, { timeoutMs: QUIET_MS, label: 'the whole bill' });
    await pulling;

    report({ observations, kills, consumer, completed, userRecords, seconds });
    expectGaplessLogs(userRecords);
    expectLogsToEqualAnswers(observations, userRecords, consumer.kept);
    expectLedgerToEqualLogs(consumer, userRecords);
    expectChargesToEqualEffects(userRecords, kills);
    await expectSumsToAgree(await Reports.open(stack.addresses, since), consumer.kept, userRecords);
  },
  TIMEOUT_MS,
);

/** Runs the work of all callers, the kills and the consumer until the calls are made and every process is up again. */
async function runChaos(
  stack: StackProcesses,
  random: Random,
  beside: (signal: AbortSignal, done: () => number) => Promise<Kills>,
): Promise<{ observations: Observations; users: readonly ChaosUser[]; kills: Kills }> {
  const { addresses } = stack;
  const users: ChaosUser[] = Array.from({ length: USERS }, () => ({
    ...mintToken({ plan: 'enterprise' }, { stack: addresses, expiresInSeconds: 7_200 }),
    threads: 0,
  }));
  const observations = new Observations();
  const stop = new AbortController();
  closeAfter('test', () => stop.abort());
  const urls = addresses.gateways.map(({ url }) => url);
  let shift = 0;
  let isBesideDone = false;
  const caller = async (seed: number) => {
    const deps = { urls, observations, random: new Random(seed), signal: stop.signal };
    while (!stop.signal.aborted && (observations.requested < CALLS || !isBesideDone)) {
      const user = users[shift % USERS];
      shift += 1;
      if (user) await new Caller(deps, user, String(shift)).work(TASKS_AT_ONCE);
    }
  };
  const other = beside(stop.signal, () => observations.requested).finally(() => {
    isBesideDone = true;
  });
  const callers = Array.from({ length: CALLERS }, () => caller(random.below(2 ** 32)));
  for (const part of [other, ...callers]) part.catch(() => stop.abort());
  // A failure ends the rest, and nothing is closed before the rest has ended.
  const failure = (await Promise.allSettled([other, ...callers])).find(({ status }) => status === 'rejected');
  if (failure?.status === 'rejected') throw failure.reason;
  return { observations, users, kills: await other };
}

async function readUserRecords(redis: Redis, of: StackAddresses, users: readonly ChaosUser[]): Promise<UserRecord[]> {
  const waiting = [...users];
  const userRecords: UserRecord[] = [];
  const reader = async () => {
    for (let user = waiting.pop(); user; user = waiting.pop()) userRecords.push(await readUserRecord(redis, of, user));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, reader));
  return userRecords;
}

/** Expects that each log is gapless, and that everything that started has ended exactly once. */
function expectGaplessLogs(userRecords: readonly UserRecord[]): void {
  expect(userRecords.filter(({ isGapless }) => !isGapless).map(({ userId }) => userId)).toEqual([]);
  for (const { executing, completed } of userRecords) {
    expect(new Set(executing).size).toBe(executing.length);
    expect(completed.map(({ callId }) => callId).toSorted()).toEqual(executing.toSorted());
  }
  expect(userRecords.filter(({ inFlight }) => inFlight !== 0)).toEqual([]);
}

/** Expects that each key and each request id is one call and one run, with the outcome that its clients received. */
function expectLogsToEqualAnswers(
  observations: Observations,
  userRecords: readonly UserRecord[],
  records: readonly BilledRecord[],
): void {
  expect(observations.contradictions).toEqual([]);
  const outcomes = new Map(
    userRecords.flatMap(({ completed }) => completed.map((call) => [call.callId, call.success])),
  );
  const answer = [...observations.keyed.values(), ...observations.unkeyed];
  expect(answer.filter(({ callId, success }) => outcomes.get(callId) !== success)).toEqual([]);

  const keys = records.flatMap(({ idempotency_key: key }) => (typeof key === 'string' ? [key] : []));
  expect(keys.toSorted()).toEqual([...observations.keyed.keys()].toSorted());
  const once = records.filter(({ idempotency_key: key, run_id }) => key === null && run_id === null);
  expect(once.length).toBeGreaterThanOrEqual(observations.unkeyed.length);
  expect(once.length).toBeLessThanOrEqual(observations.unkeyedSent);
  expect(userRecords.flatMap(({ endedRuns }) => endedRuns).toSorted()).toEqual(
    [...observations.runs.keys()].toSorted(),
  );
}

/**
 * Expects that the pulled feed has every record that a log names, with the same user and the right price, and no other.
 */
function expectLedgerToEqualLogs({ kept, faults }: CrashingConsumer, userRecords: readonly UserRecord[]): void {
  expect(faults).toEqual([]);
  expect(kept.findIndex(({ sequence }, at) => sequence !== at + 1)).toBe(-1);
  const named = new Map<string, CompletedCall & { readonly userId: string }>();
  for (const { userId, completed } of userRecords) {
    for (const call of completed) {
      if (call.recordId !== null) named.set(call.recordId, { ...call, userId });
      // Only refused or unstarted calls have no record.
      else expect(call.success).toBe(false);
    }
  }
  expect(kept).toHaveLength(named.size);
  const wrong = kept.filter(({ id, user_id, tool, units, status }) => {
    const call = named.get(id);
    named.delete(id);
    const price = call?.success ? PRICES.get(call.tool) : 0;
    return user_id !== call?.userId || tool !== call.tool || units !== price || (status === 'success') !== call.success;
  });
  expect(wrong).toEqual([]);
  expect([...named.keys()]).toEqual([]);
}

/**
 * Expects that every charged call was executed. An executed call is charged unless its process or Redis was killed in
 * the middle.
 */
function expectChargesToEqualEffects(userRecords: readonly UserRecord[], { gateways, workers, redis }: Kills): void {
  const effects = userRecords.map(effectsOf);
  const failed = userRecords.flatMap(({ completed }) => completed).filter(({ success }) => !success);
  // A caller has one call in flight.
  expect(failed.length).toBeLessThanOrEqual(CALLERS * (gateways + workers + redis));
  expect(effects.flatMap(({ chargedWithoutEffect }) => chargedWithoutEffect)).toEqual([]);
  expect(effects.flatMap(({ strays }) => strays)).toEqual([]);
}

/** Expects that feed, tallies, windows, users' counters and hash chain agree. */
async function expectSumsToAgree(reports: Reports, kept: readonly BilledRecord[], userRecords: readonly UserRecord[]) {
  const ofUser = new Map<string, { executions: number; succeeded: number; units: number }>();
  for (const { user_id, units, status } of kept) {
    const sum = ofUser.get(user_id) ?? { executions: 0, succeeded: 0, units: 0 };
    sum.executions += 1;
    sum.succeeded += Number(status === 'success');
    sum.units += Number(units);
    ofUser.set(user_id, sum);
  }
  const tallies = await reports.tallies();
  expect(tallies).toHaveLength(ofUser.size);
  for (const tally of tallies) expect(tally).toMatchObject(ofUser.get(tally.user) ?? { units: 'no such user' });
  for (const { userId, thisMonth } of userRecords) {
    const own = kept.filter(({ user_id, period }) => user_id === userId && String(period).startsWith(thisMonth.period));
    expect(thisMonth.units).toBe(own.reduce((sum, { units }) => sum + Number(units), 0));
  }
  expect(await reports.inWindows()).toBe(kept.length);
  const { checked_records, ...proof } = await reports.verify();
  expect(proof).toMatchObject({ ok: true, problem: null, unsettled: [] });
  // A test across an hour boundary needs two calls, both of which read the records at the boundary.
  expect(checked_records).toBeGreaterThanOrEqual(kept.length);
}

interface Figures {
  readonly observations: Observations;
  readonly kills: Kills;
  readonly consumer: CrashingConsumer;
  readonly completed: readonly CompletedCall[];
  readonly userRecords: readonly UserRecord[];
  readonly seconds: number;
}

/** Prints what happened in the test. */
function report({ observations, kills, consumer, completed, userRecords, seconds }: Figures): void {
  const uncharged = userRecords.flatMap((record) => effectsOf(record).effectWithoutCharge);
  const figures = {
    seed: SEED,
    seconds: Math.round(seconds),
    calls: completed.length,
    calls_per_second: Math.round(completed.length / seconds),
    runs: observations.runs.size,
    kills,
    repeated: observations.repeated,
    refusals: Object.fromEntries(observations.refusals),
    unkeyed: { sent: observations.unkeyedSent, answered: observations.unkeyed.length },
    failed: completed.filter(({ success }) => !success).length,
    cut_off: completed.filter(({ cutOff }) => cutOff).length,
    effects_without_charge: {
      of_cut_off: uncharged.filter(({ cutOff }) => cutOff).length,
      of_failed: uncharged.filter(({ cutOff }) => !cutOff).length,
    },
    records: consumer.kept.length,
    units: consumer.kept.reduce((sum, { units }) => sum + Number(units), 0),
    consumer: { crashes: consumer.crashes, records_read_again: consumer.readAgain },
  };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}
