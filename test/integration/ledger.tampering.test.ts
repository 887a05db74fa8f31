import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import type { LedgerRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { chainHash } from '../../src/usage/ledger/ledger.ts';
import { Verifier } from '../../src/usage/ledger/verifier.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { EVERYTHING_PASSED, HOUR, NEXT_HOUR, type UsageFixture, usageFixture } from '../support/usage.ts';

let redis: Redis;
let usage: UsageFixture;
let original: LedgerRecord[];
const HOURS = [HOUR, NEXT_HOUR];

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
});

/** Seven records in two hours: a closed window, one late record of it, and an open window. */
beforeEach(async () => {
  usage = usageFixture(redis);
  await usage.execute({}, { userId: 'user_b', units: 2 }, {}, { tool: 'list_agents' });
  await usage.refuse('user_a');
  await usage.ingestAll();
  await usage.windows.closeDue(EVERYTHING_PASSED);
  await usage.execute({ hour: NEXT_HOUR });
  await usage.ingestAll();
  await usage.execute({ units: 11 });
  await usage.execute({ hour: NEXT_HOUR, userId: 'user_b' });
  await usage.ingestAll();
  original = await usage.records();
});

const problem = async () => (await usage.verifier.verify(HOURS)).problem;

/** Rewrites the ledger, like an attacker with access to Redis. */
async function rewrite(records: readonly (readonly [id: number, record: LedgerRecord])[]): Promise<void> {
  await redis.del(usage.keys.ledger);
  for (const [id, record] of records) {
    await redis.xadd(usage.keys.ledger, `${id}-0`, 'r', JSON.stringify(record), 'a', '1');
  }
}

const keepingIds = (records: readonly LedgerRecord[]) => records.map((record) => [record.sequence, record] as const);

/** Returns the records with recomputed hashes from the first changed one on. */
function chainedAgain(records: readonly LedgerRecord[]): LedgerRecord[] {
  let previous = '';
  return records.map(({ hash: _, ...record }) => {
    previous = chainHash(previous, record);
    return { ...record, hash: previous };
  });
}

describe('verify', () => {
  it('finds nothing where nothing was touched', async () => {
    expect(await usage.verifier.verify(HOURS)).toEqual({
      ok: true,
      problem: null,
      checked_records: 7,
      checked_windows: 2,
      archive: 'none',
      archived_records: 0,
      unsettled: [],
      next: null,
    });
  });

  it.each([1, 3, 7])('names record %i when it was removed', async (sequence) => {
    await redis.xdel(usage.keys.ledger, `${sequence}-0`);
    expect(await problem()).toMatchObject({ kind: 'chain', sequence, what: 'The record is missing.' });
  });

  it('names the record that was removed, also when those after it were moved up', async () => {
    const moved = original.filter(({ sequence }) => sequence !== 3);
    await rewrite(moved.map((record, at) => [at + 1, record]));
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: 3 });
  });

  it.each([
    ['units', 0],
    ['user_id', 'user_mallory'],
    ['status', 'error'],
    ['completed_at', '2026-03-01T10:59:59.000Z'],
    ['period', NEXT_HOUR],
    ['hash', 'f'.repeat(64)],
  ])('names the record whose %s was changed', async (field, value) => {
    await rewrite(
      keepingIds(original.map((record) => (record.sequence === 2 ? { ...record, [field]: value } : record))),
    );
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: 2, record_id: original[1]?.id });
  });

  it('names a record that was written in other bytes of the same meaning', async () => {
    const entries = original.map((record) => JSON.stringify(record));
    await redis.del(usage.keys.ledger);
    for (const [at, json] of entries.entries()) {
      await redis.xadd(usage.keys.ledger, `${at + 1}-0`, 'r', at === 4 ? json.replace(':', ': ') : json, 'a', '1');
    }
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: 5 });
  });

  it('names the first of two records whose order was swapped', async () => {
    const [first, second] = [original[1], original[2]] as [LedgerRecord, LedgerRecord];
    await rewrite(original.map((record, at) => [at + 1, at === 1 ? second : at === 2 ? first : record]));
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: 2, what: 'The record contains the sequence 3.' });
  });

  it('finds an order that was swapped and chained again, by the head that was written last', async () => {
    const [first, second] = [original[1], original[2]] as [LedgerRecord, LedgerRecord];
    const swapped = original.with(1, { ...second, sequence: 2 }).with(2, { ...first, sequence: 3 });
    await rewrite(keepingIds(chainedAgain(swapped)));
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: 7 });
  });

  it('finds units that were changed and chained again up to the head, by the window', async () => {
    const changed = chainedAgain(original.map((record) => (record.sequence === 2 ? { ...record, units: 1 } : record)));
    await rewrite(keepingIds(changed));
    await redis.hset(usage.keys.ledgerState, 'hash', changed.at(-1)?.hash ?? '');
    expect(await problem()).toMatchObject({ kind: 'window', window: HOUR, sequence: 1 });
  });

  it('finds ids that were changed and chained again up to the head, by the SHA-256 of the window', async () => {
    const changed = chainedAgain(
      original.map((record) => (record.sequence === 2 ? { ...record, id: 'usage_x' } : record)),
    );
    await rewrite(keepingIds(changed));
    await redis.hset(usage.keys.ledgerState, 'hash', changed.at(-1)?.hash ?? '');
    expect(await problem()).toMatchObject({
      kind: 'window',
      window: HOUR,
      what: expect.stringContaining('Revision 1'),
    });
  });

  it('names the first record of a tail that was cut', async () => {
    await redis.xdel(usage.keys.ledger, '6-0', '7-0');
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: 6, what: 'The record is missing.' });
  });

  it('finds a tail that was cut from the head too, by the window that had it', async () => {
    await redis.xdel(usage.keys.ledger, '7-0');
    await redis.hset(usage.keys.ledgerState, { sequence: 6, hash: original[5]?.hash ?? '' });
    expect(await problem()).toMatchObject({ kind: 'window', window: NEXT_HOUR });
  });

  it('finds a record that was put at the end by hand', async () => {
    const forged = { ...original[6], sequence: 8, id: 'usage_forged' } as LedgerRecord;
    await redis.xadd(usage.keys.ledger, '8-0', 'r', JSON.stringify(forged), 'a', '1');
    await redis.hset(usage.keys.ledgerState, { sequence: 8 });
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: 8, record_id: 'usage_forged' });
  });

  it('names the first record of a row when the tally disagrees', async () => {
    const row = JSON.stringify(['user_b', 'analyze_workload', 'pro']);
    await redis.hset(usage.keys.tally(HOUR), row, '1 1 0 0 3 7 0 0');
    const second = original.find(({ user_id }) => user_id === 'user_b');
    expect(await problem()).toMatchObject({ kind: 'tally', window: HOUR, sequence: second?.sequence });
  });

  it('finds a row of a tally that no record stands for, and one that is gone', async () => {
    await redis.hset(usage.keys.tally(HOUR), JSON.stringify(['user_z', 'x', 'pro']), '1 1 0 0 5 7 0 0');
    expect(await problem()).toMatchObject({ kind: 'tally', window: HOUR, sequence: null });
    await redis.del(usage.keys.tally(HOUR));
    expect(await problem()).toMatchObject({ kind: 'tally', window: HOUR, sequence: 1 });
  });

  it('accepts that a tally expired before its records', async () => {
    await redis.del(usage.keys.tally(HOUR), usage.keys.tally(NEXT_HOUR));
    const clock = new ManualClock(Date.parse(`${HOUR}:00:00Z`) + 397 * 24 * 3_600_000);
    const verified = await new Verifier({ ...usage, clock }).verify(HOURS);
    expect(verified).toMatchObject({ ok: true, problem: null, checked_records: 7, unsettled: HOURS });
    const stillKept = new ManualClock(clock.now() - 2 * 24 * 3_600_000);
    const missing = await new Verifier({ ...usage, clock: stillKept }).verify(HOURS);
    expect(missing.problem).toMatchObject({ kind: 'tally', window: HOUR });
  });

  it.each(['record_count', 'sha256', 'revision', 'last_sequence', 'totals'])(
    'finds a closed window whose %s was changed',
    async (field) => {
      const window = JSON.parse((await redis.hget(usage.keys.window(HOUR), 'r1')) ?? '') as Record<string, unknown>;
      const changed = {
        record_count: 3,
        sha256: 'f'.repeat(64),
        revision: 2,
        last_sequence: 3,
        totals: { ...(window.totals as object), units: 1 },
      }[field];
      await redis.hset(usage.keys.window(HOUR), 'r1', JSON.stringify({ ...window, [field]: changed }));
      expect(await problem()).toMatchObject({ kind: 'window', window: HOUR });
    },
  );

  it('finds a closed window that cannot be read, one that is gone, and an open one that was changed', async () => {
    const window = await redis.hgetall(usage.keys.window(HOUR));
    await redis.hset(usage.keys.window(HOUR), 'r1', '{}');
    expect(await problem()).toMatchObject({ kind: 'window', window: HOUR });
    await redis.del(usage.keys.window(HOUR));
    expect(await problem()).toMatchObject({ kind: 'window', window: HOUR, sequence: 4 });
    await redis.hset(usage.keys.window(HOUR), window);
    await redis.hset(usage.keys.window(NEXT_HOUR), 'count', 1);
    expect(await problem()).toMatchObject({ kind: 'window', window: NEXT_HOUR });
  });

  it('does a bounded part of the work at once, and says where to go on', async () => {
    const first = await usage.verifier.verify(HOURS, 3);
    expect(first).toMatchObject({ ok: true, checked_windows: 1, next: NEXT_HOUR });
    expect(await usage.verifier.verify([NEXT_HOUR], 3)).toMatchObject({ ok: true, checked_windows: 1, next: null });
  });
});
