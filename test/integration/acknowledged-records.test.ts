import { describe, expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { UsageRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { AcknowledgedRecords, type AcknowledgedRecordsOptions } from '../../src/usage/recovery/acknowledged-records.ts';
import { LedgerServer } from '../../src/usage/recovery/ledger-server.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { until } from '../support/until.ts';
import { HOUR, usageFixture } from '../support/usage.ts';

/** A private Redis behind a proxy that can cut it off. It can be stopped and restarted without its data. */
async function ownRedis() {
  let server = await startRedisServer();
  const { port } = server;
  closeAfter('test', () => server.stop());
  const proxy = await TcpProxy.start(server.url);
  const redis = await connectRedis(proxy.url, 'commands', silentLogger);
  closeAfter('test', () => disconnectRedis(redis));
  const stop = async () => {
    server.process.kill('SIGKILL');
    await server.process.exited;
  };
  const start = async () => {
    server = await startRedisServer({ port });
  };
  return { redis, proxy, stop, start };
}

async function fixture(options: Partial<AcknowledgedRecordsOptions> = {}, clock = systemClock) {
  const own = await ownRedis();
  const usage = usageFixture(own.redis);
  const deps = { ...usage, server: new LedgerServer(usage), clock, logger: silentLogger };
  const acknowledgedRecords = new AcknowledgedRecords(deps, { keptMs: 60_000, ...options });
  closeAfter('test', () => acknowledgedRecords.stop());
  acknowledgedRecords.start();
  /** Executes like a process that receives the confirmations. */
  const execute: typeof usage.execute = async (...executions) => {
    const records = await usage.execute(...executions);
    for (const record of records) acknowledgedRecords.onAcknowledged(record);
    return records;
  };
  const ids = async () => (await usage.records()).map(({ id }) => id);
  const resubmitted = () => own.redis.xlen(usage.keys.resubmitted);
  return { ...own, usage, acknowledgedRecords, execute, ids, resubmitted };
}

describe('records that were acknowledged to a process', () => {
  it('are resubmitted to a Redis that was restarted without them, and billed once', async () => {
    const { usage, execute, ids, resubmitted, stop, start } = await fixture();
    const records = await execute({}, { userId: 'user_b', units: 3 });
    await usage.ingestAll();
    await stop();
    await start();
    await until(async () => (await resubmitted()) === 2, { timeoutMs: 15_000 });
    await usage.ingestAll();
    expect(await ids()).toEqual(records.map(({ id }) => id));
    expect(await usage.verifier.verify([HOUR])).toMatchObject({ ok: true, checked_records: 2 });
    expect(await resubmitted()).toBe(0);
  });

  it('are billed once if Redis still has them in an outbox, the ledger or from a repeated call', async () => {
    const { usage, execute, ids, resubmitted, stop, start, redis } = await fixture();
    const [first, second, third] = await execute({}, {}, {});
    await usage.ingestAll();
    await stop();
    await start();
    await until(async () => (await resubmitted()) === 3, { timeoutMs: 15_000 });
    // The replica's state: one record in the ledger, one in an outbox; the third is executed again later.
    await redis.xadd(usage.keys.outbox(3), '*', 'r', JSON.stringify(first));
    await redis.rename(usage.keys.resubmitted, `${usage.keys.resubmitted}-later`);
    await usage.ingestAll();
    await redis.rename(`${usage.keys.resubmitted}-later`, usage.keys.resubmitted);
    await redis.xadd(usage.keys.outbox(4), '*', 'r', JSON.stringify(second));
    await usage.ingestAll();
    await redis.xadd(usage.keys.outbox(5), '*', 'r', JSON.stringify({ ...third, units: 0 }));
    await usage.ingestAll();
    expect((await ids()).toSorted()).toEqual([first, second, third].map((record) => record?.id).toSorted());
    const [total] = await usage.tallies.query({ hours: [HOUR], groupBy: [] });
    expect(total).toMatchObject({ executions: 3, units: 15 });
    expect(await usage.verifier.verify([HOUR])).toMatchObject({ ok: true, checked_records: 3 });
  });

  it('stay where they are when only the connection was lost', async () => {
    const { execute, resubmitted, redis, proxy } = await fixture();
    await execute({});
    const again = new Promise<void>((resolve) => redis.once('ready', () => resolve()));
    proxy.cut();
    proxy.restore();
    await again;
    // Follows the command of the acknowledged records on the same connection.
    await redis.ping();
    await redis.ping();
    expect(await resubmitted()).toBe(0);
  });

  it('are a bounded number, of a bounded time before the latest, so that an outage takes none away', async () => {
    const clock = new ManualClock();
    const { acknowledgedRecords } = await fixture({ keptMs: 10_000, maxRecords: 100 }, clock);
    const acknowledge = (count: number) => {
      for (let n = 0; n < count; n++) acknowledgedRecords.onAcknowledged({ id: `usage_${n}` } as UsageRecord);
    };
    acknowledge(150);
    expect(acknowledgedRecords.size).toBe(100);
    clock.advance(3_600_000);
    expect(acknowledgedRecords.size).toBe(100);
    acknowledge(30);
    expect(acknowledgedRecords.size).toBe(30);
    clock.advance(9_999);
    acknowledge(1);
    expect(acknowledgedRecords.size).toBe(31);
    clock.advance(2);
    acknowledge(1);
    expect(acknowledgedRecords.size).toBe(2);
  });

  it('are none where none shall be kept', async () => {
    const { acknowledgedRecords, execute } = await fixture({ keptMs: 0 });
    await execute({});
    expect(acknowledgedRecords.size).toBe(0);
  });
});
