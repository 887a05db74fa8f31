import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { type RedisServerOptions, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { LOG_BYTES, silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller, toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';
import { until } from '../support/until.ts';

/** A private Redis with a paid and a free tool, and a hook that runs during the paid one. */
async function fullNode(options: RedisServerOptions = {}) {
  const server = await startRedisServer(options);
  closeAfter('test', () => server.stop());
  const redis = await connectRedis(server.url, 'commands', silentLogger);
  closeAfter('test', () => disconnectRedis(redis));
  const [keys, metrics, tracing] = [new Keys('full'), new Metrics(), NO_TRACING];
  const files = catalogues({
    tools: [toolRow({ name: 'paid', units: 1 }), toolRow({ name: 'gratis', units: 0 })],
    plans: { one: planRow() },
  });
  const log = new UserLogWriter(
    { redis, keys, metrics, tracing },
    { length: 100, maxAgeMs: 3_600_000, maxBytes: LOG_BYTES },
  );
  const meanwhile = { fill: async (): Promise<unknown> => undefined };
  let executions = 0;
  const paid = async () => {
    await meanwhile.fill();
    return { execution: ++executions };
  };
  const executors = { paid, gratis: async () => ({ free: true }) };
  const { service } = toolNode(
    { redis, keys, metrics, tracing, log, plans: files.plans },
    { catalogues: files, executors },
  );
  const userId = freshUserId();
  const call = async (tool: string, idempotencyKey: string | null = null) => {
    return (await service.call(toolRequest(userId, { tool, caller: anyCaller('one'), idempotencyKey }), UNLIMITED))
      .finished;
  };
  const { log: logKey, recentUsage, reservations } = keys.user(userId);
  /** Events, records and calls in flight. */
  const state = async () => [await redis.xlen(logKey), await redis.llen(recentUsage), await redis.zcard(reservations)];
  const refused = () => metrics.registry.getSingleMetricAsString('tollgate_refused_writes_total');
  return { redis, call, state, refused, meanwhile, executions: () => executions };
}

describe('a Redis whose memory is full', () => {
  it('B91 refuses paid tools, runs free ones unrecorded, and accepts both again when there is room', async () => {
    const { redis, call, state, refused, meanwhile, executions } = await fullNode();
    await call('paid');
    expect(await state()).toEqual([2, 1, 0]);

    await redis.config('SET', 'maxmemory', '1kb');
    await expect(call('paid')).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(executions()).toBe(1);
    expect(await call('gratis')).toMatchObject({ success: true, result: { free: true }, usage_record_id: null });
    // A call with a key must be stored, so it is refused.
    await expect(call('gratis', 'k')).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(await state()).toEqual([2, 1, 0]);
    expect(await refused()).toContain('{reason="oom"} 3');

    await redis.config('SET', 'maxmemory', '0');
    // Full during the execution: the call is recorded nevertheless.
    meanwhile.fill = () => redis.config('SET', 'maxmemory', '1kb');
    expect(await call('paid')).toMatchObject({ success: true, result: { execution: 2 } });
    expect(await state()).toEqual([4, 2, 0]);
    meanwhile.fill = async () => undefined;
    await redis.config('SET', 'maxmemory', '0');
    expect(await call('paid')).toMatchObject({ success: true, result: { execution: 3 } });
    expect(await state()).toEqual([6, 3, 0]);
  });
});

describe('a Redis that cannot write to its disk', () => {
  it('B91 refuses paid tools, runs free ones, and records running calls as soon as it can', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tollgate-disk-'));
    closeAfter('test', () => rmSync(dir, { recursive: true }));
    const { redis, call, state, refused, meanwhile, executions } = await fullNode({ dir });
    await call('paid');
    await redis.config('SET', 'save', '3600 1');
    // A folder in the place of the snapshot file, so that the snapshot fails for root too.
    const inTheWay = join(dir, 'dump.rdb');
    const snapshot = async (result: 'ok' | 'err') => {
      await redis.bgsave();
      const ended = new RegExp(`rdb_bgsave_in_progress:0[^]*rdb_last_bgsave_status:${result}`);
      await until(async () => ended.test(await redis.info('persistence')), { timeoutMs: 10_000, label: 'a snapshot' });
    };
    const fill = async () => {
      mkdirSync(inTheWay);
      await snapshot('err');
    };
    const makeRoom = async () => {
      rmdirSync(inTheWay);
      await snapshot('ok');
      rmSync(inTheWay);
    };

    await fill();
    await expect(call('paid')).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(executions()).toBe(1);
    expect(await call('gratis')).toMatchObject({ success: true, result: { free: true }, usage_record_id: null });
    await expect(call('gratis', 'k')).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(await state()).toEqual([2, 1, 0]);
    expect(await refused()).toContain('{reason="misconf"} 3');

    await makeRoom();
    meanwhile.fill = fill;
    const running = call('paid');
    await until(async () => (await redis.info('persistence')).includes('rdb_last_bgsave_status:err'));
    // Started and not ended: its commit is refused and retried.
    await until(() => executions() === 2);
    expect(await state()).toEqual([3, 1, 1]);
    await makeRoom();
    expect(await running).toMatchObject({ success: true, result: { execution: 2 } });
    expect(await state()).toEqual([4, 2, 0]);
  });
});

describe('a Redis without the replicas that it shall have', () => {
  it('B91 refuses tools before they run, and takes them again when that many are not asked for', async () => {
    const { redis, call, state, executions } = await fullNode();
    await call('paid');
    await redis.config('SET', 'min-replicas-to-write', '1');
    for (const tool of ['paid', 'gratis']) await expect(call(tool)).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(executions()).toBe(1);
    expect(await state()).toEqual([2, 1, 0]);
    await redis.config('SET', 'min-replicas-to-write', '0');
    expect(await call('paid')).toMatchObject({ success: true, result: { execution: 2 } });
    expect(await state()).toEqual([4, 2, 0]);
  });
});
