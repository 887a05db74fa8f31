import { beforeAll, describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { LedgerWriter } from '../../src/usage/ledger/ledger-writer.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { frozenBeforeWriting, HOUR, NEXT_HOUR, usageFixture } from '../support/usage.ts';

let redis: Redis;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
});

describe('two writers of the ledger', () => {
  it('never both write: one that froze before its write finds, when it wakes up, that its token is spent', async () => {
    const usage = usageFixture(redis);
    await usage.execute({ userId: 'user_a' }, { userId: 'user_b' });
    const frozen = frozenBeforeWriting(redis);
    const sleeper = new LedgerWriter({ redis: frozen.redis, keys: usage.keys }).ingest(Date.now());
    await frozen.reached;

    // It read the same outboxes and the same head as the faster one.
    await usage.ingestAll();
    await usage.execute({ userId: 'user_c' });
    await usage.ingestAll();
    frozen.go();
    expect(await sleeper).toMatchObject({ records: 0, completeUntil: undefined });

    const records = await usage.records();
    expect(records.map(({ user_id }) => user_id).toSorted()).toEqual(['user_a', 'user_b', 'user_c']);
    expect((await usage.verifier.verify([HOUR])).problem).toBeNull();
  });

  it('never both write, also when the frozen one and the other have different records for the same place', async () => {
    const usage = usageFixture(redis);
    await usage.execute({ userId: 'user_a' });
    const frozen = frozenBeforeWriting(redis);
    const sleeper = new LedgerWriter({ redis: frozen.redis, keys: usage.keys }).ingest(Date.now());
    await frozen.reached;
    // The ledger is lost, and grows to its former length from other outboxes.
    await usage.execute({ userId: 'user_d' });
    await redis.hset(usage.keys.ledgerState, { sequence: 0, hash: 'f'.repeat(64) });
    frozen.go();
    expect(await sleeper).toMatchObject({ records: 0 });
    expect(await usage.records()).toEqual([]);
  });

  it('never write entries that they read before the outboxes were rewound', async () => {
    const usage = usageFixture(redis);
    const [record] = await usage.execute({ userId: 'user_a' });
    const frozen = frozenBeforeWriting(redis);
    const sleeper = new LedgerWriter({ redis: frozen.redis, keys: usage.keys }).ingest(Date.now());
    await frozen.reached;
    // Head and cursors are the same again after a rewind that found only records that the ledger has.
    await redis.hincrby(usage.keys.ledgerState, 'rewinds', 1);
    frozen.go();
    expect(await sleeper).toMatchObject({ records: 0, completeUntil: undefined });
    await usage.ingestAll();
    expect(await usage.records()).toMatchObject([{ id: record?.id }]);
  });

  it('lose and duplicate nothing with six of them at once, over two hours and with refusals', async () => {
    const usage = usageFixture(redis);
    const ids: string[] = [];
    const writing = (async () => {
      for (let round = 0; round < 15; round++) {
        const hour = round % 2 ? HOUR : NEXT_HOUR;
        const users = Array.from({ length: 12 }, (_, i) => `user_${round}_${i}`);
        ids.push(...(await usage.execute(...users.map((userId) => ({ userId, hour })))).map(({ id }) => id));
        await usage.refuse(`user_${round}_0`, hour);
      }
    })();
    const ingesting = Array.from({ length: 6 }, async () => {
      const writer = new LedgerWriter(usage);
      for (let round = 0; round < 20; round++) await writer.ingest(Date.now());
    });
    await Promise.all([writing, ...ingesting]);
    await usage.ingestAll();
    expect((await usage.records()).map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
    const [total] = await usage.tallies.query({ hours: [HOUR, NEXT_HOUR], groupBy: [] });
    expect(total).toMatchObject({ executions: 180, units: 900, refusals: 15 });
    expect(await usage.verifier.verify([HOUR, NEXT_HOUR])).toMatchObject({ ok: true, checked_records: 180 });
  });
});

describe('a writer that crashes', () => {
  it('after its write and before it emptied the outboxes leaves nothing to be written again', async () => {
    const usage = usageFixture(redis);
    await usage.execute({ userId: 'user_a' }, { userId: 'user_a' });
    // Everything but the trimming of the outboxes reaches Redis.
    const crashing = new Proxy(redis, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target) as unknown;
        if (name !== 'xtrim') return typeof value === 'function' ? value.bind(target) : value;
        return () => {
          throw new Error('crashed');
        };
      },
    });
    await expect(new LedgerWriter({ redis: crashing, keys: usage.keys }).ingest(Date.now())).rejects.toThrow('crashed');
    expect(await usage.records()).toHaveLength(2);
    await usage.execute({ userId: 'user_a' });
    await usage.ingestAll();
    expect(await usage.records()).toHaveLength(3);
    expect(await usage.verifier.verify([HOUR])).toMatchObject({ ok: true, checked_records: 3 });
  });

  it('while an entry cannot be read: that outbox waits, the others continue, and no time has passed', async () => {
    const usage = usageFixture(redis);
    await usage.execute({ userId: 'user_a' });
    await redis.xadd(usage.keys.outbox(7), '*', 'r', 'no json');
    await redis.xadd(usage.keys.outbox(9), '*', 'r', JSON.stringify({ id: 'usage_x', period: 'never' }));
    expect(await usage.writer.ingest(Date.now())).toEqual({
      records: 1,
      lagMs: expect.any(Number),
      completeUntil: undefined,
      unreadable: ['7', '9'],
      recovered: {},
    });
    expect(await redis.xlen(usage.keys.outbox(7))).toBe(1);
  });
});
