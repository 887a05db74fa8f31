import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { RedisUnavailable } from '../../src/redis/errors.ts';
import { LedgerWriter } from '../../src/usage/ledger/ledger-writer.ts';
import { killableRedis } from '../support/killable-redis.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';
import { EVERYTHING_PASSED, HOUR, NEXT_HOUR, type UsageFixture, usageFixture } from '../support/usage.ts';

/** `npm run faults` sets more. */
const KILLS = Number(process.env.FAULT_KILLS ?? 3);

/** Returns false if Redis was unavailable. */
async function whenThere(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    const away = !(error instanceof TollgateError) || error instanceof RedisUnavailable;
    expect(away).toBe(true);
    await delay(20);
    return false;
  }
}

/** Appends, ingests, closes windows and corrects, all concurrently, until stopped. */
function workOn(usage: UsageFixture) {
  const acknowledged: string[] = [];
  let running = true;
  const repeat = async (work: () => Promise<unknown>) => {
    while (running) {
      await whenThere(work);
      await delay(1);
    }
  };
  let turn = 0;
  const append = async () => {
    turn += 1;
    const hour = turn % 3 ? HOUR : NEXT_HOUR;
    acknowledged.push(...(await usage.execute({ userId: `user_${turn % 40}`, hour })).map(({ id }) => id));
  };
  const close = async () => {
    const { completeUntil } = await usage.writer.ingest(Date.now());
    if (completeUntil !== undefined) await usage.windows.closeDue(EVERYTHING_PASSED);
    await delay(30);
  };
  const other = new LedgerWriter(usage);
  const loops = [repeat(append), repeat(append), repeat(close), repeat(() => other.ingest(Date.now()))];
  const stop = async () => {
    running = false;
    await Promise.all(loops);
  };
  return { acknowledged, stop };
}

describe('a ledger whose Redis is killed', () => {
  it(`${KILLS} times in the middle of everything has all that was acknowledged, once, and verify is clean`, async () => {
    const { url, kill } = await killableRedis();
    const redis = await connectRedis(url, 'commands', createLogger('test', 'silent'));
    closeAfter('test', () => disconnectRedis(redis));
    const usage = usageFixture(redis);
    const work = workOn(usage);
    for (let killed = 0; killed < KILLS; killed++) {
      const before = work.acknowledged.length;
      await until(() => work.acknowledged.length > before + 60, { timeoutMs: 30_000, label: 'some work' });
      await kill();
    }
    await until(() => redis.status === 'ready', { timeoutMs: 15_000, label: 'Redis again' });
    await work.stop();
    await until(() => whenThere(() => usage.ingestAll()), { timeoutMs: 15_000, label: 'the last fold' });

    const ids = (await usage.records()).map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    const inLedger = new Set(ids);
    expect(work.acknowledged.filter((id) => !inLedger.has(id))).toEqual([]);
    // An append may have arrived without its reply: at most the two that were in flight at each kill.
    expect(ids.length - work.acknowledged.length).toBeLessThanOrEqual(2 * KILLS);
    expect(await usage.verifier.verify([HOUR, NEXT_HOUR])).toMatchObject({
      problem: null,
      checked_records: ids.length,
    });
    const [total] = await usage.tallies.query({ hours: [HOUR, NEXT_HOUR], groupBy: [] });
    expect(total).toMatchObject({ executions: ids.length, units: 5 * ids.length });
  }, 120_000);
});
