import { beforeAll, describe, expect, it } from '@jest/globals';
import type { Catalogues } from '../../src/catalogue/catalogues.ts';
import type { ToolCallRequest } from '../../src/tools/tool-call.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { type Core, startCore } from '../support/core.ts';
import { expectAbout, expectKept, notAtTheEndOf } from '../support/stored-runs.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller, type ToolNode, toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';

const RESERVED_MS = 60_000;
const DAY_MS = 24 * 3_600_000;
/** How long an ended call without an idempotency key is kept. */
const UNKEYED_MS = 90_000;
/** The buckets of limits per day. */
const BUCKET_MS = 3_600_000;
const QUOTA_MS = 32 * DAY_MS;
const MAX_AGE_MS = 3_600_000;

let core: Core;
let files: Catalogues;
let node: ToolNode;
/** Calls of the tool `held` end when the test says so. */
let held: PromiseWithResolvers<object>;

beforeAll(async () => {
  core = await startCore({ maxAgeMs: MAX_AGE_MS });
  const tools = [toolRow({ name: 'limited', units: 3 }), toolRow({ name: 'held', units: 3 })];
  files = catalogues({ tools, plans: { pro: planRow({ allowances: { limited: 3 } }) } }, 'file');
  const executors = { limited: async () => ({}), held: async () => ({ ...(await held.promise) }) };
  node = toolNode(core, { catalogues: files, executors, reservationMs: RESERVED_MS });
});

async function call(userId: string, request: Partial<ToolCallRequest> = {}) {
  held = Promise.withResolvers<object>();
  const sent = toolRequest(userId, { tool: 'limited', ...request });
  const { finished } = await node.service.call(sent, UNLIMITED);
  const end = async () => {
    held.resolve({});
    return finished;
  };
  return { callId: sent.callId, key: core.keys.user(userId).call(sent.callId), end };
}

describe('a tool call in flight', () => {
  it('is stored for a day with the time after which it counts as interrupted', async () => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    const now = Date.now();
    const { callId, key, end } = await call(userId, { tool: 'held' });
    const { deadline, ...stored } = await core.redis.hgetall(key);
    expect(stored).toEqual({ digest: expect.any(String), status: 'running', details: expect.any(String) });
    expectAbout(deadline, now + RESERVED_MS);
    const [member, reservedUntil] = await core.redis.zrange(keys.reservations, 0, '-1', 'WITHSCORES');
    expect([member?.split(' ').slice(0, 2), reservedUntil]).toEqual([[callId, 'held'], deadline]);
    expect(await core.redis.zscore(keys.activeCalls, `${userId} ${callId}`)).toBe(deadline);
    const [listed, expires] = await core.redis.zrange(keys.calls, 0, '-1', 'WITHSCORES');
    expect(listed).toBe(callId);
    expectAbout(expires, now + DAY_MS);
    for (const one of [key, keys.calls]) await expectKept(core, one, DAY_MS);
    await expectKept(core, keys.reservations, 2 * RESERVED_MS);
    await end();
    const events = await core.redis.xrange(keys.log, '-', '+');
    const named = { tool_call_id: callId, tool_name: 'held' };
    expect(events.map(([, fields]) => JSON.parse(String(fields[7])))).toMatchObject([
      { seq: 1, ...named, status: 'executing' },
      { seq: 2, ...named, success: true },
    ]);
    expect(await core.redis.zcard(keys.reservations)).toBe(0);
    expect(await core.redis.zscore(keys.activeCalls, `${userId} ${callId}`)).toBeNull();
  });

  it('removes expired reservations and calls from the lists', async () => {
    const userId = freshUserId();
    const { reservations, calls } = core.keys.user(userId);
    const [past, later] = [Date.now() - 1, Date.now() + RESERVED_MS];
    await core.redis.zadd(reservations, past, 'call_dead limited basic', later, 'call_live limited basic');
    await core.redis.zadd(calls, past, 'call_dead', later, 'call_live');
    const { end } = await call(userId);
    await end();
    expect(await core.redis.zrange(reservations, 0, '-1')).toEqual(['call_live limited basic']);
    expect(await core.redis.zrange(calls, 0, '-1')).not.toContain('call_dead');
    expect(await core.redis.zrange(calls, 0, '-1')).toContain('call_live');
  });
});

describe('an ended tool call', () => {
  it('without an idempotency key is kept for the retries of its end, one with a key for a day', async () => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    for (const [idempotencyKey, keptMs] of [
      [null, UNKEYED_MS],
      ['key_1', DAY_MS],
    ] as const) {
      const { callId, key, end } = await call(userId, { tool: 'held', idempotencyKey });
      const now = Date.now();
      expect(await end()).toMatchObject({ success: true });
      const stored = await core.redis.hgetall(key);
      expect(stored).toMatchObject({ status: 'done' });
      expect(stored).not.toHaveProperty('details');
      expect('outcome' in stored).toBe(idempotencyKey !== null);
      await expectKept(core, key, keptMs);
      expectAbout(await core.redis.zscore(keys.calls, callId), now + keptMs - 5_000);
      await expectKept(core, keys.calls, DAY_MS);
    }
  });

  it('is kept for the age of its events if Redis lost it meanwhile', async () => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    const { callId, key, end } = await call(userId, { tool: 'held', idempotencyKey: 'key_1' });
    await core.redis.del(key, keys.calls);
    const now = Date.now();
    expect(await end()).toMatchObject({ success: true });
    await expectKept(core, key, MAX_AGE_MS);
    await expectKept(core, keys.calls, MAX_AGE_MS);
    expectAbout(await core.redis.zscore(keys.calls, callId), now + MAX_AGE_MS - 5_000);
  });
});

describe('the counted uses of a user', () => {
  const uses = (userId: string) => core.redis.hgetall(core.keys.user(userId).quota);

  it('are kept for 32 days from the latest new bucket', async () => {
    await notAtTheEndOf(BUCKET_MS);
    const userId = freshUserId();
    const { quota } = core.keys.user(userId);
    const run = async () => (await call(userId)).end();
    await run();
    await expectKept(core, quota, QUOTA_MS);
    await core.redis.pexpire(quota, 500_000);
    await run();
    await expectKept(core, quota, 500_000);
    const [field = '', packed = ''] = Object.entries(await uses(userId)).find(([, value]) => / 2$/.test(value)) ?? [];
    const current = Math.floor(Date.now() / BUCKET_MS);
    expect(packed).toBe(`${current} 2`);
    await core.redis.hset(quota, field, `${current - 1} 2`);
    await run();
    expect((await uses(userId))[field]).toBe(`${current - 1} 2 ${current} 1`);
    await expectKept(core, quota, QUOTA_MS);
  });

  it('count until their whole bucket is older than the window', async () => {
    await notAtTheEndOf(BUCKET_MS);
    const userId = freshUserId();
    const { quota } = core.keys.user(userId);
    await (await call(userId)).end();
    const field = Object.entries(await uses(userId)).find(([, value]) => /^\d+ 1$/.test(value))?.[0] ?? '';
    const current = Math.floor(Date.now() / BUCKET_MS);
    await core.redis.hset(quota, field, `${current - 24} 3`);
    await expect(call(userId)).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' });
    await core.redis.hset(quota, field, `${current - 25} 3 ${current - 24} 2`);
    await (await call(userId)).end();
    expect((await uses(userId))[field]).toBe(`${current - 24} 2 ${current} 1`);
  });

  it('are costs per day and month, and start anew with each', async () => {
    const userId = freshUserId();
    const { quota } = core.keys.user(userId);
    await (await call(userId)).end();
    const { day = '', month = '' } = await uses(userId);
    expect([day, month].map((text) => text.split(' ').slice(1))).toEqual([
      ['1', '3'],
      ['1', '3'],
    ]);
    await core.redis.hset(quota, 'day', '2001-01-01 7 70', 'month', '2001-01 7 70');
    await core.redis.pexpire(quota, 500_000);
    await (await call(userId)).end();
    expect(await uses(userId)).toMatchObject({ day, month });
    await expectKept(core, quota, QUOTA_MS);
    // A late call of an earlier day does not replace the later one.
    await core.redis.hset(quota, 'day', '9999-01-01 7 70');
    await (await call(userId)).end();
    expect(await uses(userId)).toMatchObject({ day: '9999-01-01 7 70', month: month.replace(' 1 3', ' 2 6') });
  });

  it('are in the summary with calls and runs in flight', async () => {
    const userId = freshUserId();
    const { reservations, runsInFlight } = core.keys.user(userId);
    const [past, later] = [Date.now() - 1, Date.now() + RESERVED_MS];
    await core.redis.zadd(reservations, past, 'call_dead limited basic', later, 'call_live limited basic');
    await core.redis.zadd(runsInFlight, past, 'run_dead', later, 'run_1', later, 'run_2');
    await (await call(userId)).end();
    const summary = await node.quotas.summary(userId, anyCaller('pro'));
    expect(summary.runs.in_flight).toMatchObject({ runs: 2 });
    expect(JSON.stringify(summary)).toContain('"used":2');
  });
});
