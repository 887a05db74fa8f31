import { createHash } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { endOf, HOUR_MS, hourOf } from '../../src/usage/hours.ts';
import { WINDOW_GRACE_MS } from '../../src/usage/ledger/append-batch.ts';
import type { ClosedRevision } from '../../src/usage/ledger/windows.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { EVERYTHING_PASSED, HOUR, NEXT_HOUR, usageFixture } from '../support/usage.ts';

let redis: Redis;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
});

function digestOf(ids: readonly string[]): string {
  return createHash('sha256')
    .update(ids.map((id) => `${id}\n`).join(''))
    .digest('hex');
}

describe('a window', () => {
  it('closes a quarter of an hour after its hour, and not before all its records are ingested', async () => {
    const usage = usageFixture(redis);
    const hour = hourOf(Date.now());
    await usage.execute({ hour });
    const { completeUntil } = await usage.writer.ingest(Date.now());
    const due = endOf(hour) + WINDOW_GRACE_MS;
    expect(completeUntil).toBeLessThan(due);
    expect((await usage.windows.closeDue(due - 1)).closed).toBe(0);
    expect((await usage.windows.view(hour)).open).toMatchObject({ revision: 1, status: 'open', record_count: 1 });
    expect((await usage.windows.closeDue(due)).closed).toBe(1);
    expect((await usage.windows.view(hour)).open).toBeUndefined();
  });

  it('has not been passed while an outbox has more than one round can take', async () => {
    const usage = usageFixture(redis);
    await usage.execute(...Array.from({ length: 129 }, () => ({ userId: 'user_a' })));
    expect(await usage.writer.ingest(Date.now())).toMatchObject({ records: 128, completeUntil: undefined });
    expect(await usage.writer.ingest(Date.now())).toMatchObject({ records: 1, completeUntil: expect.any(Number) });
  });

  it('says how many records, what they add up to, and the SHA-256 of their ids in the order of the ledger', async () => {
    const usage = usageFixture(redis);
    await usage.execute({ units: 3 }, { units: 4, userId: 'user_b' }, { status: 'error' }, { status: 'cancelled' });
    await usage.execute({ hour: NEXT_HOUR });
    await usage.ingestAll();
    expect(await usage.windows.closeDue(EVERYTHING_PASSED)).toEqual({ closed: 2, disagreeing: [] });
    const records = (await usage.records()).filter(({ period }) => period === HOUR);
    const [window] = (await usage.windows.view(HOUR)).closed;
    expect(window).toEqual({
      window: HOUR,
      revision: 1,
      status: 'closed',
      record_count: 4,
      totals: {
        executions: 4,
        succeeded: 2,
        failed: 1,
        cancelled: 1,
        units: 7,
        duration_ms: 28,
        corrections: 0,
      },
      first_sequence: expect.any(Number),
      last_sequence: expect.any(Number),
      sha256: digestOf(records.map(({ id }) => id)),
      closed_at: '2100-01-01T00:00:00.000Z',
    });
  });

  it('keeps its bytes when something arrives late, which goes into the next revision, at most one an hour', async () => {
    const usage = usageFixture(redis);
    await usage.execute({}, {});
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    const stored = () => redis.hget(usage.keys.window(HOUR), 'r1');
    const before = await stored();

    const late = await usage.execute({ units: 9 }, { userId: 'user_late' });
    await usage.ingestAll();
    expect((await usage.windows.view(HOUR)).open).toMatchObject({ revision: 2, record_count: 2 });
    const closesAt = Number(await redis.zscore(usage.keys.openWindows, HOUR));
    expect(closesAt % HOUR_MS).toBe(WINDOW_GRACE_MS);
    expect(closesAt).toBeGreaterThan(Date.now());
    await usage.windows.closeDue(EVERYTHING_PASSED);

    expect(await stored()).toBe(before);
    const [, second] = (await usage.windows.view(HOUR)).closed as [ClosedRevision, ClosedRevision];
    const inLedger = (await usage.records()).filter(({ id }) => late.some((record) => record.id === id));
    expect(second).toMatchObject({
      revision: 2,
      record_count: 2,
      totals: { units: 14 },
      sha256: digestOf(inLedger.map(({ id }) => id)),
    });
  });

  it('is closed by one of several, once', async () => {
    const usage = usageFixture(redis);
    await usage.execute({});
    await usage.ingestAll();
    const closings = await Promise.all([1, 2, 3, 4].map(() => usage.windows.closeDue(EVERYTHING_PASSED)));
    expect(closings.map(({ closed }) => closed).toSorted()).toEqual([0, 0, 0, 1]);
    expect((await usage.windows.view(HOUR)).closed).toHaveLength(1);
  });

  it('that grows while it is being closed stays open, and is closed with everything the next time', async () => {
    const usage = usageFixture(redis);
    await usage.execute({});
    await usage.ingestAll();
    const { ledger } = usage;
    const range = ledger.range.bind(ledger);
    let grown = false;
    ledger.range = async (...args) => {
      const batch = await range(...args);
      if (!grown) {
        grown = true;
        await usage.execute({});
        await usage.ingestAll();
      }
      return batch;
    };
    expect(await usage.windows.closeDue(EVERYTHING_PASSED)).toEqual({ closed: 0, disagreeing: [] });
    expect(await usage.windows.closeDue(EVERYTHING_PASSED)).toEqual({ closed: 1, disagreeing: [] });
    expect((await usage.windows.view(HOUR)).closed).toMatchObject([{ record_count: 2 }]);
  });

  it('whose records are not those that were counted is not closed but reported', async () => {
    const usage = usageFixture(redis);
    await usage.execute({}, {}, {});
    await usage.ingestAll();
    const removed = await redis.xrange(usage.keys.ledger, '2-0', '2-0');
    await redis.xdel(usage.keys.ledger, '2-0');
    await usage.execute({ hour: NEXT_HOUR });
    await usage.ingestAll();
    expect(await usage.windows.closeDue(EVERYTHING_PASSED)).toEqual({ closed: 1, disagreeing: [HOUR] });
    // The other window is closed; this one is retried later, and not in every round.
    expect(await usage.windows.closeDue(EVERYTHING_PASSED + 1_000)).toEqual({ closed: 0, disagreeing: [HOUR] });
    const entries = await redis.xrange(usage.keys.ledger, '-', '+');
    await redis.del(usage.keys.ledger);
    for (const [id, fields] of [...entries, ...removed].toSorted(([one], [other]) => (one < other ? -1 : 1))) {
      await redis.xadd(usage.keys.ledger, id, ...fields);
    }
    expect(await usage.windows.closeDue(EVERYTHING_PASSED + 600_000)).toEqual({ closed: 1, disagreeing: [] });
  });

  it('that cannot be read any more keeps no other from being closed', async () => {
    const usage = usageFixture(redis);
    await usage.execute({});
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await redis.hset(usage.keys.window(HOUR), 'r1', 'no json');
    await usage.execute({}, { hour: NEXT_HOUR });
    await usage.ingestAll();
    expect(await usage.windows.closeDue(EVERYTHING_PASSED)).toEqual({ closed: 1, disagreeing: [HOUR] });
  });
});

describe('B93 tallies', () => {
  it('add up by user, tool, plan, hour and day, with refusals, which no window and no record has', async () => {
    const usage = usageFixture(redis);
    await usage.execute(
      { userId: 'user_1', plan: 'free', tool: 'list_agents', units: 1 },
      { userId: 'user_2', plan: 'enterprise', units: 8 },
      { userId: 'user_2', plan: 'enterprise', status: 'error' },
      { userId: 'user_2', plan: 'enterprise', hour: NEXT_HOUR, units: 2 },
    );
    await usage.refuse('user_1');
    await usage.refuse('user_1', NEXT_HOUR);
    await usage.ingestAll();
    const hours = [HOUR, NEXT_HOUR];
    const by = (...groupBy: Parameters<typeof usage.tallies.query>[0]['groupBy']) =>
      usage.tallies.query({ hours, groupBy });
    expect(await by()).toMatchObject([
      { executions: 4, succeeded: 3, failed: 1, units: 11, duration_ms: 28, refusals: 2 },
    ]);
    expect(await by('plan')).toMatchObject([
      { plan: 'enterprise', executions: 3, units: 10, refusals: 0 },
      { plan: 'free', executions: 1, units: 1, refusals: 2 },
    ]);
    expect(await by('hour')).toMatchObject([
      { hour: HOUR, executions: 3, refusals: 1 },
      { hour: NEXT_HOUR, executions: 1, refusals: 1 },
    ]);
    expect(await by('day', 'user')).toMatchObject([
      { user: 'user_1', day: '2026-03-01', executions: 1, refusals: 2 },
      { user: 'user_2', day: '2026-03-01', executions: 3, refusals: 0 },
    ]);
    expect(await usage.tallies.query({ hours, userId: 'user_2', groupBy: ['tool'] })).toMatchObject([
      { tool: 'analyze_workload', executions: 3, units: 10 },
    ]);
  });

  it('of one user are not those of another whose name is a pattern or a beginning', async () => {
    const usage = usageFixture(redis);
    await usage.execute({ userId: 'user_*' }, { userId: 'user_x' }, { userId: 'user_' }, { userId: 'a"],["' });
    await usage.ingestAll();
    for (const userId of ['user_*', 'user_', 'a"],["']) {
      const [tally] = await usage.tallies.query({ hours: [HOUR], userId, groupBy: ['user'] });
      expect(tally).toMatchObject({ user: userId, executions: 1 });
    }
    expect(await usage.tallies.query({ hours: [HOUR], userId: '*', groupBy: [] })).toEqual([]);
  });
});
