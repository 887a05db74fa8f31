import { describe, expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { EventLog } from '../../src/events/event-log.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller, toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';

describe('a Redis whose memory is full', () => {
  it('B91 refuses paid tools before they run, lets free ones go on unrecorded, and takes both again when there is room', async () => {
    const server = await startRedisServer();
    closeAfter('test', () => server.stop());
    const redis = await connectRedis(server.url, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    const [keys, metrics] = [new Keys('full'), new Metrics()];
    const files = catalogues({
      tools: [toolRow({ name: 'paid', units: 1 }), toolRow({ name: 'gratis', units: 0 })],
      plans: { one: planRow() },
    });
    const log = new EventLog({ redis, keys, metrics, tracing: NO_TRACING }, { length: 100, maxAgeMs: 3_600_000 });
    let paid = 0;
    let filling = async (): Promise<unknown> => undefined;
    const pay = async () => {
      await filling();
      return { execution: ++paid };
    };
    const executors = { paid: pay, gratis: async () => ({ free: true }) };
    const { service } = toolNode(
      { redis, keys, metrics, tracing: NO_TRACING, log, plans: files.plans },
      { catalogues: files, executors },
    );
    const userId = freshUserId();
    const call = async (tool: string, idempotencyKey: string | null = null) => {
      return (await service.call(toolRequest(userId, { tool, caller: anyCaller('one'), idempotencyKey }), UNLIMITED))
        .finished;
    };
    await call('paid');
    const { log: logKey, recentUsage, reservations } = keys.user(userId);
    const state = async () => [
      await redis.xlen(logKey),
      await redis.llen(recentUsage),
      await redis.zcard(reservations),
    ];
    expect(await state()).toEqual([2, 1, 0]);

    await redis.config('SET', 'maxmemory', '1kb');
    await expect(call('paid')).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(paid).toBe(1);
    expect(await call('gratis')).toMatchObject({ success: true, result: { free: true }, usage_record_id: null });
    // What must be remembered cannot go on.
    await expect(call('gratis', 'k')).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(await state()).toEqual([2, 1, 0]);
    expect(await metrics.registry.getSingleMetricAsString('tollgate_refused_writes_total')).toContain(
      '{reason="oom"} 3',
    );

    await redis.config('SET', 'maxmemory', '0');
    // Full while the tool was running: what was executed is recorded all the same.
    filling = () => redis.config('SET', 'maxmemory', '1kb');
    expect(await call('paid')).toMatchObject({ success: true, result: { execution: 2 } });
    expect(await state()).toEqual([4, 2, 0]);
    filling = async () => undefined;
    await redis.config('SET', 'maxmemory', '0');
    expect(await call('paid')).toMatchObject({ success: true, result: { execution: 3 } });
    expect(await state()).toEqual([6, 3, 0]);
  });
});
