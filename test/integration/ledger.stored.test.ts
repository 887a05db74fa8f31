import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { duePartitions } from '../../src/redis/due-partitions.ts';
import { Keys } from '../../src/redis/keys.ts';
import { endOf } from '../../src/usage/hours.ts';
import {
  appendBatch,
  type Batch,
  RESUBMITTED_SECONDS,
  TALLY_SECONDS,
  WINDOW_GRACE_MS,
} from '../../src/usage/ledger/append-batch.ts';
import type { LedgerPosition } from '../../src/usage/ledger/ledger.ts';
import { type Core, startCore } from '../support/core.ts';
import { expectAbout, expectKept } from '../support/stored-runs.ts';
import { EVERYTHING_PASSED, HOUR, usageFixture } from '../support/usage.ts';

const HOUR_MS = 3_600_000;
/** A negative age, so that a record is old enough as soon as the clock of Redis has moved. */
const NO_AGE = -1_000;

let core: Core;

beforeAll(async () => {
  core = await startCore();
});

/** A ledger of its own, and batches for it. */
function ledger() {
  const keys = new Keys(`u${randomBytes(6).toString('hex')}`);
  const send = (batch: Partial<Batch>) => {
    const empty = { head: '', hour: HOUR, records: [], refusals: [], moves: [], resubmitted: [] };
    return appendBatch({ redis: core.redis, keys }, { ...empty, ...batch });
  };
  return { keys, send };
}

/** A record of the tool, chained under this hash. */
function record(id: string, hash: string, tool = 'tool_a') {
  const fields = {
    id,
    user_id: 'user_a',
    plan: 'pro',
    tool,
    permission: 'analytics',
    status: 'success',
    units: 5,
    hash,
  };
  return { json: JSON.stringify(fields), record: fields } as unknown as Batch['records'][number];
}

describe('a batch of the ledger', () => {
  it('is stored with its window, its tally and its cursors', async () => {
    const { keys, send } = ledger();
    const now = Date.now();
    const moves = [
      { outbox: 'o1', from: '', to: '5-0' },
      { outbox: 'o2', from: '', to: '6-0' },
    ];
    expect(await send({ records: [record('usage_1', 'h1'), record('usage_2', 'h2')], moves })).toBe(true);
    const entries = await core.redis.xrange(keys.ledger, '-', '+');
    expect(entries.map(([id, [, json]]) => [id, JSON.parse(String(json)).id])).toEqual([
      ['1-0', 'usage_1'],
      ['2-0', 'usage_2'],
    ]);
    expectAbout(entries[1]?.[1][3], now);
    expect(await core.redis.hgetall(keys.ledgerState)).toEqual({
      sequence: '2',
      hash: 'h2',
      'cursor:o1': '5-0',
      'cursor:o2': '6-0',
    });
    const { totals, ...window } = await core.redis.hgetall(keys.window(HOUR));
    expect(window).toEqual({ first: '1', last: '2', count: '2' });
    await expectKept(core, keys.tally(HOUR), TALLY_SECONDS * 1_000);
    expect(Object.values(await core.redis.hgetall(keys.tally(HOUR)))).toEqual([totals]);
    expect(await send({ head: 'h2', records: [record('usage_3', 'h3')] })).toBe(true);
    expect(await core.redis.hgetall(keys.window(HOUR))).toMatchObject({ first: '1', last: '3', count: '3' });
  });

  it('of cursors only leaves the expiry of the tally as it is', async () => {
    const { keys, send } = ledger();
    await send({ records: [record('usage_1', 'h1')] });
    await core.redis.pexpire(keys.tally(HOUR), 500_000);
    expect(await send({ head: 'h1', moves: [{ outbox: 'o1', from: '', to: '5-0' }] })).toBe(true);
    await expectKept(core, keys.tally(HOUR), 500_000);
  });

  it('is refused with another head, another cursor or another number of rewinds', async () => {
    const { keys, send } = ledger();
    const moves = [
      { outbox: 'o1', from: '1-0', to: '5-0' },
      { outbox: 'o2', from: '2-0', to: '6-0' },
    ];
    const state = { sequence: 7, hash: 'h7', rewinds: 'r1', 'cursor:o1': '1-0', 'cursor:o2': '2-0' };
    await core.redis.hset(keys.ledgerState, state);
    const batch = { head: 'h7', records: [record('usage_1', 'h8')], moves, rewinds: 'r1' };
    const [first, second] = moves as [Batch['moves'][number], Batch['moves'][number]];
    const wrong = [
      { head: 'h6' },
      { rewinds: '' },
      { moves: [{ ...first, from: '9-0' }, second] },
      { moves: [first, { ...second, from: '' }] },
    ];
    for (const one of wrong) expect(await send({ ...batch, ...one })).toBe(false);
    expect(await core.redis.hgetall(keys.ledgerState)).toMatchObject({ sequence: '7', hash: 'h7', 'cursor:o1': '1-0' });
    expect(await send(batch)).toBe(true);
    expect((await core.redis.xrange(keys.ledger, '-', '+')).map(([id]) => id)).toEqual(['8-0']);
    // A batch without cursors does not depend on the rewinds.
    expect(await send({ head: 'h8', records: [record('usage_2', 'h9')], rewinds: 'r0' })).toBe(true);
  });

  it('closes its window after the hour, or with the hour in which a late record arrives', async () => {
    const { keys, send } = ledger();
    const late = Date.now();
    await send({ records: [record('usage_1', 'h1')] });
    const closesAt = Number(await core.redis.zscore(keys.openWindows, HOUR));
    expect((closesAt - WINDOW_GRACE_MS) % HOUR_MS).toBe(0);
    expect(closesAt - WINDOW_GRACE_MS - late).toBeGreaterThan(0);
    expect(closesAt - WINDOW_GRACE_MS - Date.now()).toBeLessThanOrEqual(HOUR_MS);
    const current = new Date().toISOString().slice(0, 13);
    await send({ head: 'h1', hour: current, records: [record('usage_2', 'h2')] });
    expect(await core.redis.zscore(keys.openWindows, current)).toBe(String(endOf(current) + WINDOW_GRACE_MS));
    // The clock of a node may be ahead of that of Redis.
    const next = new Date(Date.now() + HOUR_MS).toISOString().slice(0, 13);
    await send({ head: 'h2', hour: next, records: [record('usage_3', 'h3')] });
    expect(await core.redis.zscore(keys.openWindows, next)).toBe(String(endOf(next) + WINDOW_GRACE_MS));
  });

  it('with a record that was resubmitted is refused, unless it resubmits records itself', async () => {
    const { keys, send } = ledger();
    expect(await send({ records: [record('usage_1', 'h1')], resubmitted: ['usage_1', 'usage_2'] })).toBe(true);
    expect((await core.redis.smembers(keys.resubmittedIds)).toSorted()).toEqual(['usage_1', 'usage_2']);
    await expectKept(core, keys.resubmittedIds, RESUBMITTED_SECONDS * 1_000);
    const later = [record('usage_3', 'h3'), record('usage_2', 'h2')];
    expect(await send({ head: 'h1', records: later })).toBe(false);
    await core.redis.pexpire(keys.resubmittedIds, 500_000);
    expect(await send({ head: 'h1', records: [record('usage_3', 'h3')] })).toBe(true);
    await expectKept(core, keys.resubmittedIds, 500_000);
    expect(await send({ head: 'h3', records: [record('usage_2', 'h2')], resubmitted: ['usage_2'] })).toBe(true);
  });

  it.each([499, 500, 501, 1_000])('adds %i rows to a tally, twice', async (rows) => {
    const { keys, send } = ledger();
    const refusals = Array.from({ length: rows }, (_, at) => ({
      user_id: 'u',
      plan: 'pro',
      tool: `tool_${at}`,
      refused_at: '',
    }));
    const sent = { refusals: refusals as unknown as Batch['refusals'] };
    for (let pass = 0; pass < 2; pass += 1) expect(await send(sent)).toBe(true);
    const tally = await core.redis.hgetall(keys.tally(HOUR));
    expect(Object.keys(tally)).toHaveLength(rows);
    expect(new Set(Object.values(tally)).size).toBe(1);
    expect(
      Object.values(tally)[0]
        ?.split(' ')
        .filter((measure) => measure !== '0'),
    ).toEqual(['2']);
    expect(await core.redis.exists(keys.ledger, keys.window(HOUR), keys.openWindows)).toBe(0);
  });
});

describe('a closed window', () => {
  it('is closed once, as its records were read, and stays as it is when a revision follows', async () => {
    const usage = usageFixture(core.redis);
    const { keys, windows } = usage;
    await usage.execute({}, {});
    await usage.ingestAll();
    expect(await windows.closeDue(EVERYTHING_PASSED)).toMatchObject({ closed: 1 });
    const first = await core.redis.hgetall(keys.window(HOUR));
    expect(Object.keys(first).toSorted()).toEqual(['closed', 'r1']);
    expect(await core.redis.zcard(keys.openWindows)).toBe(0);
    await usage.execute({});
    await usage.ingestAll();
    expect(await core.redis.hgetall(keys.window(HOUR))).toMatchObject({ ...first, first: '3', last: '3', count: '1' });
    await windows.closeDue(EVERYTHING_PASSED);
    const second = await core.redis.hgetall(keys.window(HOUR));
    expect(Object.keys(second).toSorted()).toEqual(['closed', 'r1', 'r2']);
    expect(second).toMatchObject({ closed: '2', r1: first.r1 });
  });
});

describe('trimming with erased records', () => {
  /** Five confirmed records, of which the second, fourth and fifth are erased. */
  async function erased() {
    const usage = usageFixture(core.redis);
    const { keys, consumers } = usage;
    await usage.execute({}, {}, {}, {}, {});
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    const records = (await usage.records()) as LedgerPosition[];
    for (const sequence of [2, 4, 5]) {
      const [[id, [, json, , appended]]] = (await core.redis.xrange(keys.ledger, `${sequence}-0`, `${sequence}-0`)) as [
        [string, string[]],
      ];
      await core.redis.zadd(keys.erasedRecords, sequence, `${sequence} ${appended} ${json}`);
      await core.redis.xdel(keys.ledger, id);
    }
    const left = async () => ({
      stream: (await core.redis.xrange(keys.ledger, '-', '+')).map(([id]) => Number.parseInt(id, 10)),
      erased: (await core.redis.zrange(keys.erasedRecords, 0, '-1')).map((member) => Number.parseInt(member, 10)),
    });
    const confirm = (sequence: number) => consumers.confirm('erp', 'billing', records[sequence - 1] as LedgerPosition);
    return { keys, consumers, records, left, confirm };
  }

  it('removes both kinds in the order of the ledger, up to the confirmed one', async () => {
    const { keys, consumers, records, left, confirm } = await erased();
    await confirm(3);
    expect(await consumers.trim(NO_AGE)).toBe(3);
    expect(await left()).toEqual({ stream: [], erased: [4, 5] });
    const state = () => core.redis.hmget(keys.ledgerState, 'trimmed', 'trimmed_hash');
    expect(await state()).toEqual(['3', records[2]?.hash]);
    await core.redis.zadd(keys.erasedRecords, 2, '2 0 {"left by":"an older version"}');
    await consumers.trim(NO_AGE);
    expect(await left()).toEqual({ stream: [], erased: [4, 5] });
    await confirm(5);
    expect(await consumers.trim(NO_AGE)).toBe(2);
    expect(await left()).toEqual({ stream: [], erased: [] });
    expect(await state()).toEqual(['5', records[4]?.hash]);
  });

  it('leaves an erased record that is too young, and those after it', async () => {
    const { keys, consumers, records, left, confirm } = await erased();
    await confirm(5);
    await core.redis.zrem(keys.erasedRecords, ...(await core.redis.zrangebyscore(keys.erasedRecords, 2, 2)));
    await core.redis.zadd(keys.erasedRecords, 2, `2 ${Date.now() + HOUR_MS} {"hash":"${records[1]?.hash}"}`);
    expect(await consumers.trim(NO_AGE)).toBe(1);
    expect(await left()).toEqual({ stream: [3], erased: [2, 4, 5] });
  });
});

describe('a consumer', () => {
  it('is stored with its position, the time and its service', async () => {
    const usage = usageFixture(core.redis);
    await usage.execute({});
    await usage.ingestAll();
    const [position] = (await usage.records()) as LedgerPosition[];
    if (!position) throw new Error('one record');
    const now = Date.now();
    await usage.consumers.confirm('erp', 'billing service', position);
    const [sequence, at, ...service] = String(await core.redis.hget(usage.keys.consumers, 'erp')).split(' ');
    expect([sequence, service.join(' ')]).toEqual(['1', 'billing service']);
    expectAbout(at, now);
    expect(await usage.consumers.confirm('erp', 'billing service', position)).toBe('confirmed');
  });
});

describe('a correction', () => {
  const KEPT_MS = 45 * 24 * HOUR_MS;

  it('is stored once, with the sum of the corrections of its record, for 45 days', async () => {
    const usage = usageFixture(core.redis);
    const { keys, corrections } = usage;
    const [executed] = await usage.execute({ units: 5 });
    await usage.ingestAll();
    const [original] = await usage.records();
    if (!original) throw new Error('one record');
    const correct = (idempotencyKey: string, units: number) =>
      corrections.record(
        { serviceId: 'erp', idempotencyKey },
        { recordId: original.id, sequence: 1, units, reason: 'r' },
      );
    expect(await correct('a', -6)).toEqual({ outcome: 'excessive', remaining: 5 });
    expect(await correct('b', -3)).toMatchObject({ outcome: 'recorded', record: { units: -3 } });
    expect(await correct('b', -3)).toMatchObject({ outcome: 'repeated', record: { units: -3 } });
    expect(await correct('b', -2)).toEqual({ outcome: 'conflict' });
    expect(await correct('c', -3)).toEqual({ outcome: 'excessive', remaining: 2 });
    expect(await correct('d', -2)).toMatchObject({ outcome: 'recorded' });
    expect(await core.redis.hgetall(keys.corrected)).toEqual({ [String(executed?.id)]: '-5' });
    const written = await core.redis.xrange(keys.corrections, '-', '+');
    expect(written.map(([, [field, json]]) => [field, JSON.parse(String(json)).units])).toEqual([
      ['r', -3],
      ['r', -2],
    ]);
    const used = keys.correctionsOf(original.user_id);
    const digests = await core.redis.smembers(used);
    expect(digests).toHaveLength(2);
    for (const key of [used, ...digests.map((one) => keys.correction(one))]) await expectKept(core, key, KEPT_MS);
  });

  it('is recorded once when the same request comes twice at the same moment', async () => {
    const usage = usageFixture(core.redis);
    await usage.execute({ units: 5 });
    await usage.ingestAll();
    const [original] = await usage.records();
    const request = { recordId: String(original?.id), sequence: 1, units: -3, reason: 'r' };
    const send = (units: number) =>
      usage.corrections.record({ serviceId: 'erp', idempotencyKey: 'a' }, { ...request, units });
    const outcomes = (await Promise.all([send(-3), send(-3), send(-2)])).map(({ outcome }) => outcome);
    expect(outcomes).toEqual(['recorded', 'repeated', 'conflict']);
    expect(await core.redis.hget(usage.keys.corrected, request.recordId)).toBe('-3');
  });
});

describe('the partitions with something due', () => {
  it('are those whose sorted set has a member of that time or an earlier one', async () => {
    const { keys } = ledger();
    const at = { 0: 1_000, 1: 1_001, 5: 999, 63: 1 };
    for (const [partition, time] of Object.entries(at)) {
      await core.redis.zadd(keys.activeRuns(Number(partition)), time, 'due', 5_000, 'later');
    }
    const due = (until: number) => duePartitions(core.redis, (one) => keys.activeRuns(one), until);
    expect(await due(1_000)).toEqual([0, 5, 63]);
    expect(await due(0)).toEqual([]);
  });
});
