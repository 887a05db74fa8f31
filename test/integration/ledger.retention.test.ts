import { beforeAll, describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { BEGINNING, type LedgerPosition } from '../../src/usage/ledger/ledger.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { EVERYTHING_PASSED, HOUR, NEXT_HOUR, type UsageFixture, usageFixture } from '../support/usage.ts';

let redis: Redis;
/** A negative age, so that a record is old enough as soon as the clock of Redis has moved. */
const NO_AGE = -1_000;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
});

/** Six records in two closed windows, three each. */
async function sixRecords() {
  const usage = usageFixture(redis);
  await usage.execute({}, {}, {});
  await usage.ingestAll();
  await usage.execute({ hour: NEXT_HOUR }, { hour: NEXT_HOUR }, { hour: NEXT_HOUR });
  await usage.ingestAll();
  const positions = [BEGINNING, ...(await usage.records())] as LedgerPosition[];
  return { usage, positionOf: (sequence: number) => positions[sequence] as LedgerPosition };
}

const sequences = async (usage: UsageFixture) => {
  const entries = await redis.xrange(usage.keys.ledger, '-', '+');
  return entries.map(([id]) => Number.parseInt(id, 10));
};

describe('trimming', () => {
  it('removes nothing while no consumer has confirmed anything', async () => {
    const { usage } = await sixRecords();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    expect(await usage.consumers.trim(NO_AGE)).toBe(0);
    expect(await sequences(usage)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it('goes up to the lowest confirmed cursor, and on when that moves', async () => {
    const { usage, positionOf } = await sixRecords();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await usage.consumers.confirm('erp', 'billing', positionOf(6));
    await usage.consumers.confirm('warehouse', 'billing', positionOf(2));
    expect(await usage.consumers.trim(NO_AGE)).toBe(2);
    expect(await sequences(usage)).toEqual([3, 4, 5, 6]);
    await usage.consumers.confirm('warehouse', 'billing', positionOf(4));
    expect(await usage.consumers.trim(NO_AGE)).toBe(2);
    expect(await sequences(usage)).toEqual([5, 6]);
    await usage.consumers.forget('warehouse');
    expect(await usage.consumers.trim(NO_AGE)).toBe(2);
    expect(await sequences(usage)).toEqual([]);
  });

  it('trims past records that Redis cannot parse, and so does later ingestion', async () => {
    const usage = usageFixture(redis);
    const requestId = '\ud83d';
    await usage.execute({ requestId });
    // An id of a resubmitted record; each record is looked up among those.
    await redis.sadd(usage.keys.resubmittedIds, 'usage_other');
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    const [record] = await usage.records();
    await usage.consumers.confirm('erp', 'billing', record as LedgerPosition);
    expect(await usage.consumers.trim(NO_AGE)).toBe(1);
    expect(await redis.hget(usage.keys.ledgerState, 'trimmed_hash')).toBe(record?.hash);
  });

  it('leaves what is younger than 45 days, by the time it came into the ledger', async () => {
    const { usage, positionOf } = await sixRecords();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await usage.consumers.confirm('erp', 'billing', positionOf(6));
    expect(await usage.consumers.trim()).toBe(0);
    const days = 24 * 3_600_000;
    // Changes the ids of the first two to a second more, and a minute less, than 45 days ago.
    const [first, second, ...rest] = await redis.xrange(usage.keys.ledger, '-', '+');
    await redis.del(usage.keys.ledger);
    const ages = [45 * days + 1_000, 45 * days - 60_000];
    for (const [at, [id, [, json = '', , appended = '']]] of [first, second, ...rest].filter((e) => !!e).entries()) {
      const age = ages[at];
      const when = age === undefined ? appended : String(Date.now() - age);
      await redis.xadd(usage.keys.ledger, id, 'r', json, 'a', when);
    }
    expect(await usage.consumers.trim()).toBe(1);
    expect(await sequences(usage)).toEqual([2, 3, 4, 5, 6]);
  });

  it('leaves what an open window still has to be closed with', async () => {
    const { usage, positionOf } = await sixRecords();
    await usage.consumers.confirm('erp', 'billing', positionOf(6));
    await redis.zadd(usage.keys.openWindows, 0, HOUR);
    await usage.windows.closeDue(1);
    expect(await usage.consumers.trim(NO_AGE)).toBe(3);
    expect(await sequences(usage)).toEqual([4, 5, 6]);
    expect(await usage.windows.closeDue(EVERYTHING_PASSED)).toEqual({ closed: 1, disagreeing: [] });
  });

  it('is reported to a consumer that has not read the trimmed records; verify continues after them', async () => {
    const { usage, positionOf } = await sixRecords();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await usage.consumers.confirm('erp', 'billing', positionOf(3));
    await usage.consumers.trim(NO_AGE);
    const read = (after: LedgerPosition) => usage.ledger.read({ after, limit: 10 });
    expect(await read(positionOf(2))).toMatchObject({ gapDetected: true, records: [{ sequence: 4 }, {}, {}] });
    expect(await read(positionOf(3))).toMatchObject({ gapDetected: false, records: [{ sequence: 4 }, {}, {}] });
    expect(await usage.verifier.verify([HOUR, NEXT_HOUR])).toMatchObject({
      ok: true,
      checked_records: 3,
      unsettled: [HOUR],
    });
    await usage.consumers.confirm('erp', 'billing', positionOf(6));
    await usage.consumers.trim(NO_AGE);
    expect(await read(positionOf(4))).toMatchObject({ gapDetected: true, records: [], hasMore: false });
    expect(await read(positionOf(6))).toMatchObject({ gapDetected: false, records: [], hasMore: false });
    expect((await usage.verifier.verify([HOUR, NEXT_HOUR])).ok).toBe(true);
  });
});

describe('a consumer', () => {
  it('belongs to the service that named it first', async () => {
    const { usage, positionOf } = await sixRecords();
    expect(await usage.consumers.confirm('erp', 'billing', positionOf(1))).toBe('confirmed');
    expect(await usage.consumers.confirm('erp', 'bil', positionOf(6))).toBe('foreign');
    expect(await usage.consumers.list()).toEqual([
      { consumer: 'erp', sequence: 1, confirmed_at: expect.stringMatching(/Z$/), service: 'billing' },
    ]);
  });

  it('cannot confirm what the ledger does not have, or has under another hash', async () => {
    const { usage, positionOf } = await sixRecords();
    expect(await usage.consumers.confirm('erp', 'billing', { sequence: 7, hash: '' })).toBe('unknown');
    expect(await usage.consumers.confirm('erp', 'billing', { sequence: 3, hash: 'f'.repeat(16) })).toBe('unknown');
    expect(await usage.consumers.confirm('erp', 'billing', positionOf(0))).toBe('confirmed');
    expect(await usage.consumers.trim(NO_AGE)).toBe(0);
  });

  it('may go back, which keeps more; and is one of a hundred at most', async () => {
    const { usage, positionOf } = await sixRecords();
    await usage.consumers.confirm('erp', 'billing', positionOf(6));
    expect(await usage.consumers.confirm('erp', 'billing', positionOf(2))).toBe('confirmed');
    expect(await usage.consumers.list()).toMatchObject([{ sequence: 2 }]);
    for (let at = 1; at < 100; at++) await usage.consumers.confirm(`consumer_${at}`, 'billing', positionOf(1));
    expect(await usage.consumers.confirm('one_more', 'billing', positionOf(1))).toBe('full');
    expect(await usage.consumers.confirm('erp', 'billing', positionOf(3))).toBe('confirmed');
  });
});

describe('the feed', () => {
  it('says gap_detected to a cursor of another ledger, of one that is longer, and over a hole', async () => {
    const { usage, positionOf } = await sixRecords();
    const gap = async (after: LedgerPosition) => (await usage.ledger.read({ after, limit: 10 })).gapDetected;
    expect(await gap(positionOf(2))).toBe(false);
    expect(await gap({ sequence: 2, hash: 'f'.repeat(16) })).toBe(true);
    expect(await gap({ sequence: 9, hash: 'f'.repeat(16) })).toBe(true);
    await redis.xdel(usage.keys.ledger, '4-0');
    expect(await gap(positionOf(1))).toBe(true);
    expect(await gap(positionOf(4))).toBe(true);
    expect(await gap(positionOf(5))).toBe(false);
    await redis.xdel(usage.keys.ledger, '6-0');
    expect(await gap(positionOf(5))).toBe(true);
  });
});
