import { randomBytes } from 'node:crypto';
import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { REFUSAL_ENTRIES, RecentRefusals } from '../../src/figures/recent-refusals.ts';
import { userHash } from '../../src/lib/logger.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { until } from '../support/until.ts';

const WRITE_MS = 5_000;
const LIMITED = new TollgateError('RATE_LIMITED');
let redis: Redis;
let keys: Keys;
let clock: ManualClock;
let refusals: RecentRefusals;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
});

beforeEach(() => {
  keys = new Keys(`refusals-${randomBytes(6).toString('hex')}`);
  clock = new ManualClock();
  refusals = new RecentRefusals({ redis, keys, clock, logger: silentLogger });
  closeAfter('test', () => refusals.stop());
  refusals.start();
});

const countsOf = async () => (await refusals.read()).map(({ user_id, count }) => `${user_id} ${count}`);

/** Lets the timer write, and waits until the list has so many entries. */
async function written(entries: number): Promise<void> {
  clock.advance(WRITE_MS);
  await until(async () => (await refusals.read()).length === entries);
}

describe('the latest refusals', () => {
  it('are one entry per user, code and minute, and none is lost', async () => {
    for (let sent = 0; sent < 1_000; sent += 1) refusals.refused('u1', LIMITED);
    refusals.refused('u1', new TollgateError('QUOTA_EXCEEDED'));
    await written(2);
    for (let seconds = 0; seconds < 50; seconds += 5) {
      refusals.refused('u1', LIMITED);
      clock.advance(WRITE_MS);
    }
    expect((await countsOf()).toSorted()).toEqual(['u1 1', 'u1 1000']);
    await written(2);
    await written(3);
    expect((await countsOf()).toSorted()).toEqual(['u1 1', 'u1 10', 'u1 1000']);
  });

  it('have a bounded length, however many users are refused', async () => {
    for (let round = 0; round < 4; round += 1) {
      for (let user = 0; user < 3_000; user += 1) refusals.refused(`u${round} ${user}`, LIMITED);
      for (let write = 0; write < 15; write += 1) {
        const before = await redis.xlen(keys.refusals);
        clock.advance(WRITE_MS);
        await until(async () => (await redis.xlen(keys.refusals)) !== before || write > 0, { timeoutMs: 2_000 });
      }
    }
    expect(await redis.xlen(keys.refusals)).toBeLessThan(REFUSAL_ENTRIES + 200);
    expect((await refusals.read()).length).toBeLessThanOrEqual(REFUSAL_ENTRIES);
  });

  it('have nothing of a user whose data is being erased', async () => {
    await redis.zadd(keys.erasures, 1, 'erased_1 u1');
    refusals.refused('u1', LIMITED);
    refusals.refused('u2', LIMITED);
    await written(1);
    await redis.del(keys.erasures);
    clock.advance(60_000);
    refusals.refused('u3', LIMITED);
    await written(2);
    expect((await countsOf()).toSorted()).toEqual(['u2 1', 'u3 1']);
  });

  it('have nothing of a user who was refused before an erasure that has ended', async () => {
    refusals.refused('u1', LIMITED);
    refusals.refused('u2', LIMITED);
    await redis.zadd(keys.erasedUsers, clock.now(), userHash('u1'));
    await written(1);
    expect(await countsOf()).toEqual(['u2 1']);
  });

  it('lose the entries of a user whose erasure begins during their write', async () => {
    refusals.refused('u1', LIMITED);
    // The timer sends its look at the erasures first; this command follows on the same connection, before the entries.
    clock.advance(WRITE_MS);
    await redis.zadd(keys.erasures, 1, 'erased_1 u1');
    await until(async () => {
      const state: unknown = await redis.xinfo('STREAM', keys.refusals).catch(() => []);
      const fields = Array.isArray(state) ? state : [];
      return fields[fields.indexOf('entries-added') + 1] === 1 && fields[fields.indexOf('length') + 1] === 0;
    });
  });
});
