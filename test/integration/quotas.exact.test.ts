import { beforeAll, describe, expect, it } from '@jest/globals';
import type { Catalogues } from '../../src/catalogue/catalogues.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import { sweepCalls } from '../../workers/sweep-calls.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller, type ToolNode, toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';
import { until } from '../support/until.ts';

const NODES = 3;
const LIMIT = 100;

let core: Core;
let files: Catalogues;

beforeAll(async () => {
  core = await startCore();
  files = catalogues(
    {
      tools: [
        toolRow({ name: 'limited' }),
        toolRow({ name: 'free_of_limits' }),
        toolRow({ name: 'measured', permission: 'analytics' }),
      ],
      plans: {
        one: planRow({ rank: 0, allowances: { limited: LIMIT } }),
        two: planRow({ rank: 1, allowances: { limited: 2 * LIMIT } }),
        narrow: planRow({ rank: 2, concurrency: 5 }),
      },
    },
    'file',
  );
});

/** Components of gateways, each with its own connection to Redis. */
async function nodes(executor = async () => ({}), options: { reservationMs?: number } = {}): Promise<ToolNode[]> {
  return Promise.all(
    Array.from({ length: NODES }, async () => {
      const redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
      closeAfter('test', () => disconnectRedis(redis));
      const executors = { limited: executor, free_of_limits: executor, measured: executor };
      return toolNode({ ...core, redis }, { catalogues: files, executors, ...options });
    }),
  );
}

/**
 * A node whose calls count as interrupted at once and continue when `finish` is called, as if its process had been
 * stopped.
 */
async function stoppedNode(): Promise<{ readonly node: ToolNode; readonly finish: () => void }> {
  const { promise, resolve } = Promise.withResolvers<object>();
  const [node] = await nodes(async () => ({ ...(await promise) }), { reservationMs: 1 });
  if (!node) throw new Error('no node');
  return { node, finish: () => resolve({ late: true }) };
}

/** Calls a tool on the nodes in rotation, all concurrently; returns the code of each refusal, or `ok`. */
async function callAll(on: readonly ToolNode[], userId: string, calls: { tool: string; plan: string; times: number }) {
  const { tool, plan, times } = calls;
  return Promise.all(
    Array.from({ length: times }, async (_, at) => {
      const node = on[at % on.length];
      if (!node) throw new Error('no node');
      try {
        const { finished } = await node.service.call(toolRequest(userId, { tool, caller: anyCaller(plan) }), UNLIMITED);
        return (await finished).success ? 'ok' : 'failed';
      } catch (error) {
        return (error as { code?: string }).code ?? 'thrown';
      }
    }),
  );
}

const count = (answers: readonly string[], wanted: string) => answers.filter((answer) => answer === wanted).length;
const reservations = (userId: string) => core.redis.zcard(core.keys.user(userId).reservations);

describe('a tool call', () => {
  it('is indexed with its expiry from its begin, and after its end it is in flight nowhere', async () => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    const { calls, activeCalls } = keys;
    const running = Promise.withResolvers<object>();
    const [node] = await nodes(async () => ({ ...(await running.promise) }));
    await core.redis.zadd(calls, Date.now() - 1, 'call_expired');
    const request = toolRequest(userId, { tool: 'limited', caller: anyCaller('one') });
    const begun = await node?.service.call(request, UNLIMITED);
    const isActive = async () =>
      (await core.redis.zrange(activeCalls, 0, '-1')).some((one) => one.includes(request.callId));
    const expectIndexed = async () => {
      expect(await core.redis.zrange(calls, 0, '-1')).toEqual([request.callId]);
      const [indexed, expiry] = [
        await core.redis.zscore(calls, request.callId),
        await core.redis.pexpiretime(keys.call(request.callId)),
      ];
      expect(Math.abs(Number(indexed) - expiry)).toBeLessThan(100);
    };
    expect(await isActive()).toBe(true);
    await expectIndexed();
    running.resolve({});
    await begun?.finished;
    expect([await isActive(), await reservations(userId)]).toEqual([false, 0]);
    await expectIndexed();
  });

  it('adds its cost to those of its day and month', async () => {
    const userId = freshUserId();
    const on = await nodes();
    for (const tool of ['limited', 'free_of_limits', 'limited'])
      await callAll(on, userId, { tool, plan: 'one', times: 1 });
    const [day, month] = await core.redis.hmget(core.keys.user(userId).quota, 'day', 'month');
    expect(day).toMatch(/^\d{4}-\d\d-\d\d 3 3$/);
    expect(month).toMatch(/^\d{4}-\d\d 3 3$/);
  });
});

describe('a limit', () => {
  it('B88 B92 of a hundred lets exactly a hundred of two hundred parallel calls on three nodes through', async () => {
    const userId = freshUserId();
    const on = await nodes();
    const answers = await callAll(on, userId, { tool: 'limited', plan: 'one', times: 2 * LIMIT });
    expect([count(answers, 'ok'), count(answers, 'QUOTA_EXCEEDED')]).toEqual([LIMIT, LIMIT]);
    expect(await reservations(userId)).toBe(0);
    // Refused calls consumed nothing: a higher plan still has exactly the rest.
    const above = await callAll(on, userId, { tool: 'limited', plan: 'two', times: 2 * LIMIT });
    expect(count(above, 'ok')).toBe(LIMIT);
    const records = await core.redis.lrange(core.keys.user(userId).recentUsage, 0, -1);
    expect(new Set(records.map((json) => JSON.parse(json).id)).size).toBe(2 * LIMIT);
  });

  it('of a permission is one for all its tools, and one of an hour is for trying again later', async () => {
    const userId = freshUserId();
    const answers = await callAll(await nodes(), userId, { tool: 'measured', plan: 'one', times: 120 });
    expect([count(answers, 'ok'), count(answers, 'RATE_LIMITED')]).toEqual([100, 20]);
  });

  it('on calls at once counts those of all nodes, and lets go on when they have ended', async () => {
    const userId = freshUserId();
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const on = await nodes(async () => {
      await held;
      return {};
    });
    const calling = callAll(on, userId, { tool: 'free_of_limits', plan: 'narrow', times: 12 });
    await until(async () => (await reservations(userId)) === 5);
    release();
    const answers = await calling;
    expect([count(answers, 'ok'), count(answers, 'RATE_LIMITED')]).toEqual([5, 7]);
    expect(count(await callAll(on, userId, { tool: 'free_of_limits', plan: 'narrow', times: 5 }), 'ok')).toBe(5);
  });

  it('that there is not costs no key: a user without limits has the totals and nothing else', async () => {
    const userId = freshUserId();
    await callAll(await nodes(), userId, { tool: 'free_of_limits', plan: 'one', times: 9 });
    const { quota } = core.keys.user(userId);
    expect(Object.keys(await core.redis.hgetall(quota)).toSorted()).toEqual(['day', 'month']);
    expect(await core.redis.pttl(quota)).toBeGreaterThan(0);
  });
});

describe('an abandoned reservation', () => {
  it('is free again after its time, its call is ended by the sweep, and its use was never counted', async () => {
    const userId = freshUserId();
    const [node] = await nodes(() => new Promise(() => undefined), { reservationMs: 300 });
    if (!node) throw new Error('no node');
    const request = toolRequest(userId, { tool: 'limited', caller: anyCaller('one'), idempotencyKey: 'k' });
    // Started by a process that then dies.
    void node.service.call(request, UNLIMITED);
    await until(async () => (await reservations(userId)) === 1);
    await until(async () => (await node.quotas.summary(userId, anyCaller('one'))).under_way.calls === 0);
    // The sweep uses the time of Redis, in whole seconds.
    const sweep = { calls: node.calls, clock: systemClock, logger: silentLogger };
    await until(async () => (await sweepCalls(sweep)) === 1, { timeoutMs: 5_000 });
    expect(await sweepCalls(sweep)).toBe(0);
    const [record, ...others] = await core.redis.lrange(core.keys.user(userId).recentUsage, 0, -1);
    expect(others).toEqual([]);
    expect(JSON.parse(record ?? '{}')).toMatchObject({
      status: 'error',
      units: 0,
      tool: 'limited',
      idempotency_key: 'k',
    });
    const again = await (await node.service.call(request, UNLIMITED)).finished;
    expect(again).toMatchObject({ repeated: true, success: false, error: { code: 'TOOL_FAILED' } });
    const summary = await node.quotas.summary(userId, anyCaller('one'));
    expect(summary.tools.find(({ tool }) => tool === 'limited')?.limits).toMatchObject([{ used: 0 }]);
  });

  it('of a user whose data is damaged keeps no other call from being ended', async () => {
    const [damaged = '', sound = ''] = [freshUserId(), freshUserId()].toSorted(
      (a, b) => partitionOf(a) - partitionOf(b),
    );
    const [node] = await nodes(() => new Promise(() => undefined), { reservationMs: 300 });
    if (!node) throw new Error('no node');
    for (const userId of [damaged, sound]) {
      void node.service.call(toolRequest(userId, { tool: 'limited', caller: anyCaller('one') }), UNLIMITED);
      await until(async () => (await reservations(userId)) === 1);
    }
    await core.redis.del(core.keys.user(damaged).logState);
    const sweep = { calls: node.calls, clock: systemClock, logger: silentLogger };
    await until(async () => (await sweepCalls(sweep)) === 1, { timeoutMs: 5_000 });
    expect(await core.redis.llen(core.keys.user(sound).recentUsage)).toBe(1);
    await core.redis.del(core.keys.user(damaged).log);
    expect(await sweepCalls(sweep)).toBe(1);
  });

  it('is not ended twice: the node that comes back after the sweep answers what the log says', async () => {
    const userId = freshUserId();
    const { node, finish } = await stoppedNode();
    const { finished } = await node.service.call(
      toolRequest(userId, { tool: 'limited', caller: anyCaller('one') }),
      UNLIMITED,
    );
    const sweep = { calls: node.calls, clock: systemClock, logger: silentLogger };
    await until(async () => (await sweepCalls(sweep)) === 1, { timeoutMs: 5_000 });
    finish();
    expect(await finished).toMatchObject({ success: false, error: { code: 'TOOL_FAILED' } });
    expect(await core.redis.llen(core.keys.user(userId).recentUsage)).toBe(1);
  });

  it('is not ended twice by a node that was stopped for an hour, after the sweep has ended it', async () => {
    const userId = freshUserId();
    const { node, finish } = await stoppedNode();
    const request = toolRequest(userId, { tool: 'limited', caller: anyCaller('one') });
    const { finished } = await node.service.call(request, UNLIMITED);
    const sweep = { calls: node.calls, clock: systemClock, logger: silentLogger };
    await until(async () => (await sweepCalls(sweep)) === 1, { timeoutMs: 5_000 });
    await letPass(3_600_000, [core.keys.user(userId).call(request.callId)]);
    finish();
    expect(await finished).toMatchObject({ success: false, error: { code: 'TOOL_FAILED' } });
    const records = await core.redis.lrange(core.keys.user(userId).recentUsage, 0, -1);
    expect(records.map((json) => JSON.parse(json).units)).toEqual([0]);
    const events = await core.redis.xrange(core.keys.user(userId).log, '-', '+');
    expect(events.map(([, fields]) => fields[1])).toEqual(['tool_executing', 'tool_completed']);
  });
});

describe('a call under an idempotency key', () => {
  it('that has been forgotten is another one the next day, and so is its record', async () => {
    const userId = freshUserId();
    const request = toolRequest(userId, { tool: 'limited', caller: anyCaller('one'), idempotencyKey: 'daily' });
    let today = 0;
    const clock = { ...systemClock, now: () => systemClock.now() + today };
    const executors = { limited: async () => ({}) };
    const node = toolNode(core, { catalogues: files, executors, clock });
    const first = await (await node.service.call(request, UNLIMITED)).finished;
    await letPass(DAY_MS, [core.keys.user(userId).call(request.callId)]);
    today = DAY_MS;
    const second = await (await node.service.call(request, UNLIMITED)).finished;
    expect([first.repeated, second.repeated]).toEqual([false, false]);
    const records = await core.redis.lrange(core.keys.user(userId).recentUsage, 0, -1);
    const ids = records.map((json) => JSON.parse(json).id);
    expect(ids).toEqual([second.usage_record_id, first.usage_record_id]);
    expect(new Set(ids).size).toBe(2);
  });

  it('can be made again under it when its message turned out to be over the limit after it had begun', async () => {
    const userId = freshUserId();
    let executions = 0;
    const [node] = await nodes(async () => {
      executions += 1;
      return {};
    });
    const request = toolRequest(userId, { tool: 'limited', caller: anyCaller('one'), idempotencyKey: 'k' });
    const refused = Promise.reject(new TollgateError('RATE_LIMITED', { retryAfterMs: 1 }));
    await expect(node?.service.call(request, { ...UNLIMITED, allowed: refused })).rejects.toThrow('Rate limit');
    expect(executions).toBe(0);
    expect(await reservations(userId)).toBe(0);
    const result = await (await node?.service.call(request, UNLIMITED))?.finished;
    expect(result).toMatchObject({ success: true, repeated: false });
    expect(executions).toBe(1);
  });

  it('waits for the one that is running, on another node too, and gets its outcome', async () => {
    const userId = freshUserId();
    let executions = 0;
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const on = await nodes(async () => {
      await held;
      return { execution: ++executions };
    });
    const callId = newId('call');
    const request = toolRequest(userId, {
      tool: 'limited',
      caller: anyCaller('one'),
      idempotencyKey: 'k',
      callId,
      args: { a: 1, b: 2 },
    });
    const begun = await Promise.all(on.map((node) => node.service.call(request, UNLIMITED)));
    release();
    const results = await Promise.all(begun.map(({ finished }) => finished));
    expect(results.map(({ result }) => result)).toEqual([1, 1, 1].map((execution) => ({ execution })));
    expect(results.filter(({ repeated }) => !repeated)).toHaveLength(1);
    expect(await core.redis.llen(core.keys.user(userId).recentUsage)).toBe(1);
    const [node] = on;
    // The order of the members makes no difference; another value does.
    const reordered = await node?.service.call({ ...request, args: { b: 2, a: 1 } }, UNLIMITED);
    expect(await reordered?.finished).toMatchObject({ repeated: true });
    await expect(node?.service.call({ ...request, args: { a: 2, b: 1 } }, UNLIMITED)).rejects.toMatchObject({
      code: 'IDEMPOTENCY_CONFLICT',
    });
    expect(await core.redis.pttl(core.keys.user(userId).call(callId))).toBeGreaterThan(23 * 3_600_000);
  });
});

describe('an execution', () => {
  const one = async (executor: () => Promise<object>, options: { timeoutMs?: number } = {}) => {
    const userId = freshUserId();
    const node = toolNode(core, {
      catalogues: files,
      executors: { limited: async () => ({ ...(await executor()) }) },
      ...options,
    });
    const { finished } = await node.service.call(
      toolRequest(userId, { tool: 'limited', caller: anyCaller('one') }),
      UNLIMITED,
    );
    const result = await finished;
    const record = JSON.parse((await core.redis.lindex(core.keys.user(userId).recentUsage, 0)) ?? '{}');
    const used = (await node.quotas.summary(userId, anyCaller('one'))).tools[0]?.limits[0]?.used;
    return { result, record, used };
  };

  it('that fails is counted and charged nothing, and says nothing of why', async () => {
    const { result, record, used } = await one(() => Promise.reject(new Error('secret detail')));
    expect(result).toMatchObject({ success: false, error: { code: 'TOOL_FAILED' } });
    expect(JSON.stringify(result)).not.toContain('secret');
    expect([record.status, record.units, used]).toEqual(['error', 0, 1]);
  });

  it('that ignores its signal is given up at its deadline', async () => {
    const { result, used } = await one(() => new Promise(() => undefined), { timeoutMs: 50 });
    expect(result).toMatchObject({
      success: false,
      error: { code: 'TOOL_FAILED', message: 'The tool took too long.' },
    });
    expect(used).toBe(1);
  });

  it('with more than 64 KiB of result is cut, says so, and stays JSON', async () => {
    const { result } = await one(async () => ({ text: '"é'.repeat(60_000) }));
    const cut = result.result as { truncated: boolean; bytes: number; preview: string };
    expect(cut).toMatchObject({ truncated: true, bytes: expect.any(Number) });
    expect(cut.preview.startsWith('{"text":"')).toBe(true);
    const bytes = Buffer.byteLength(JSON.stringify(cut));
    expect(bytes).toBeLessThanOrEqual(64 * 1024);
    expect(bytes).toBeGreaterThan(50 * 1024);
  });

  it('that has not begun when its process stops is not counted', async () => {
    const userId = freshUserId();
    const node = toolNode(core, { catalogues: files, executors: { limited: async () => ({}) } });
    await node.service.close();
    const request = toolRequest(userId, { tool: 'limited', caller: anyCaller('one') });
    await expect(node.service.call(request, UNLIMITED)).rejects.toMatchObject({ code: 'SERVER_DRAINING' });
    expect(await reservations(userId)).toBe(0);
  });

  it('of a paid tool is refused to a session that could not be verified', async () => {
    const userId = freshUserId();
    const node = toolNode(core, { catalogues: files, executors: { limited: async () => ({}) } });
    const request = toolRequest(userId, { tool: 'limited', caller: anyCaller('one'), degraded: true });
    await expect(node.service.call(request, UNLIMITED)).rejects.toMatchObject({ code: 'AUTH_SERVICE_UNAVAILABLE' });
  });
});

const DAY_MS = 24 * 3_600_000;

/** Shortens the expiry of keys, as if this time had passed. */
async function letPass(ms: number, keys: readonly string[]): Promise<void> {
  for (const key of keys) await core.redis.pexpire(key, (await core.redis.pttl(key)) - ms);
}
