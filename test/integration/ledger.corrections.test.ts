import { beforeAll, describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import type { LedgerRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { hourOf } from '../../src/usage/hours.ts';
import { keysOf } from '../support/keys-of.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { EVERYTHING_PASSED, HOUR, usageFixture } from '../support/usage.ts';

let redis: Redis;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
});

async function withOneRecord() {
  const usage = usageFixture(redis);
  await usage.execute({ units: 5 });
  await usage.ingestAll();
  const [original] = (await usage.records()) as [LedgerRecord];
  const correct = (idempotencyKey: string, units: number, reason = 'charged by mistake') => {
    const request = { recordId: original.id, sequence: original.sequence, units, reason };
    return usage.corrections.record({ serviceId: 'billing', idempotencyKey }, request);
  };
  return { usage, original, correct };
}

describe('a correction', () => {
  it('is a record of its own that points at the old one, and leaves its window as it was closed', async () => {
    const { usage, original, correct } = await withOneRecord();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    const closed = await redis.hget(usage.keys.window(HOUR), 'r1');
    const before = hourOf(Date.now());
    expect(await correct('key_1', -5)).toMatchObject({
      outcome: 'recorded',
      record: { corrects: original.id, units: -5, user_id: original.user_id, reason: 'charged by mistake' },
    });
    await usage.ingestAll();
    const [first, correction] = await usage.records();
    expect(first).toEqual(original);
    expect(correction).toMatchObject({ sequence: 2, corrects: original.id, units: -5, duration_ms: 0 });
    expect([before, hourOf(Date.now())]).toContain(correction?.period);
    expect(await redis.hget(usage.keys.window(HOUR), 'r1')).toBe(closed);

    const hours = [HOUR, correction?.period ?? ''];
    const [total] = await usage.tallies.query({ hours, groupBy: [] });
    expect(total).toMatchObject({ executions: 1, corrections: 1, units: 0 });
    expect((await usage.verifier.verify([HOUR])).problem).toBeNull();
    expect((await usage.verifier.verify(hours.slice(1))).problem).toBeNull();
  });

  it('is made once for a key, by however many who ask at once; all get the same answer', async () => {
    const { usage, correct } = await withOneRecord();
    const results = await Promise.all(Array.from({ length: 8 }, () => correct('key_1', -2)));
    expect(results.map(({ outcome }) => outcome).toSorted()).toEqual(['recorded', ...Array(7).fill('repeated')]);
    const records = results.map((result) => ('record' in result ? JSON.stringify(result.record) : ''));
    expect(new Set(records).size).toBe(1);
    await usage.ingestAll();
    expect(await usage.records()).toHaveLength(2);
  });

  it('gets the same answer again after the record was ingested and trimmed', async () => {
    const { usage, correct } = await withOneRecord();
    const first = await correct('key_1', -2);
    await usage.ingestAll();
    await redis.xtrim(usage.keys.ledger, 'MINID', '2-0');
    const again = await correct('key_1', -2);
    expect(again).toEqual({ ...first, outcome: 'repeated' });
    expect(await correct('key_2', -2)).toEqual({ outcome: 'missing' });
  });

  it('has an id of its own, also when its key is used again after it has been forgotten', async () => {
    const { usage, correct } = await withOneRecord();
    await correct('key_1', -2);
    const [remembered = ''] = await keysOf(redis, usage.keys.correction('*'));
    expect(await redis.del(remembered)).toBe(1);
    expect(await correct('key_1', -1)).toMatchObject({ outcome: 'recorded' });
    await usage.ingestAll();
    const ids = (await usage.records()).map(({ id }) => id);
    expect(new Set(ids).size).toBe(3);
  });

  it('is refused when its key was used for another one', async () => {
    const { usage, correct } = await withOneRecord();
    await correct('key_1', -2);
    expect(await correct('key_1', -3)).toEqual({ outcome: 'conflict' });
    expect(await correct('key_1', -2, 'another reason')).toEqual({ outcome: 'conflict' });
    await usage.ingestAll();
    expect(await usage.records()).toHaveLength(2);
  });

  it('never takes back more than the record has, with others before it or at the same time', async () => {
    const { correct } = await withOneRecord();
    expect(await correct('key_1', -6)).toEqual({ outcome: 'excessive', remaining: 5 });
    const results = await Promise.all([1, 2, 3, 4].map((at) => correct(`key_2_${at}`, -2)));
    expect(results.filter(({ outcome }) => outcome === 'recorded')).toHaveLength(2);
    expect(results.filter(({ outcome }) => outcome === 'excessive')).toEqual(
      Array(2).fill({ outcome: 'excessive', remaining: 1 }),
    );
    expect(await correct('key_3', 4)).toMatchObject({ outcome: 'recorded' });
    expect(await correct('key_4', -5)).toMatchObject({ outcome: 'recorded' });
  });

  it('is not made of a record that is not there, of one under another id, or of a correction', async () => {
    const { usage, original, correct } = await withOneRecord();
    const key = { serviceId: 'billing', idempotencyKey: 'key_9' };
    const request = { recordId: original.id, sequence: 1, units: -1, reason: 'x' };
    expect(await usage.corrections.record(key, { ...request, sequence: 2 })).toEqual({ outcome: 'missing' });
    expect(await usage.corrections.record(key, { ...request, recordId: 'usage_other' })).toEqual({
      outcome: 'missing',
    });
    await correct('key_1', -1);
    await usage.ingestAll();
    const correction = (await usage.records())[1] as LedgerRecord;
    expect(await usage.corrections.record(key, { ...request, recordId: correction.id, sequence: 2 })).toEqual({
      outcome: 'correction',
    });
  });
});
