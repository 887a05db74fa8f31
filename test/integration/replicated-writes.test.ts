import { describe, expect, it } from '@jest/globals';
import { Redis as RedisServer } from 'ioredis';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys, partitionOf } from '../../src/redis/keys.ts';
import { ReplicatedWrites } from '../../src/redis/replicated-writes.ts';
import { integer } from '../../src/redis/replies.ts';
import { LuaScript } from '../../src/redis/scripts.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { LOG_BYTES, silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { replicatedRedis } from '../support/replicated-redis.ts';
import { testRedisUrl } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller, toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';
import { until } from '../support/until.ts';

const TIMEOUT_MS = 200;

async function connected(url: string): Promise<Redis> {
  const redis = await connectRedis(url, 'commands', silentLogger);
  closeAfter('test', () => disconnectRedis(redis));
  return redis;
}

/** A node that waits for one replica, with a paid tool and a free one. */
async function waitingNode(timeoutMs = TIMEOUT_MS) {
  const server = await replicatedRedis();
  const [redis, second] = await Promise.all([connected(server.url), connected(server.url)]);
  const replica = new RedisServer(server.replicaUrl);
  closeAfter('test', () => replica.disconnect());
  const [keys, metrics, tracing] = [new Keys('waiting'), new Metrics(), NO_TRACING];
  const watch = { unreplicated: metrics.unreplicatedWrites, logger: silentLogger };
  const replicated = new ReplicatedWrites(second, watch, { replicas: 1, timeoutMs });
  const log = new UserLogWriter(
    { redis, keys, metrics, tracing, replicated },
    { length: 100, maxAgeMs: 3_600_000, maxBytes: LOG_BYTES },
  );
  const files = catalogues({
    tools: [toolRow({ name: 'paid', units: 1 }), toolRow({ name: 'gratis', units: 0 })],
    plans: { one: planRow() },
  });
  const executors = { paid: async () => ({}), gratis: async () => ({}) };
  const { service } = toolNode(
    { redis, keys, metrics, tracing, log, plans: files.plans },
    { catalogues: files, executors },
  );
  const userId = freshUserId();
  const call = async (tool: string) => {
    return (await service.call(toolRequest(userId, { tool, caller: anyCaller('one') }), UNLIMITED)).finished;
  };
  const unreplicated = async () => (await metrics.unreplicatedWrites.get()).values[0]?.value ?? 0;
  const outbox = keys.outbox(partitionOf(userId));
  return { server, call, unreplicated, recorded: () => replica.xlen(outbox), written: () => redis.xlen(outbox) };
}

describe('a paid call whose record shall be on a replica', () => {
  it('is answered when the replica has it', async () => {
    // Longer than a replica takes on a busy machine.
    const { call, recorded, unreplicated } = await waitingNode(5_000);
    for (let calls = 1; calls <= 20; calls++) {
      expect(await call('paid')).toMatchObject({ success: true });
      expect(await recorded()).toBe(calls);
    }
    expect(await unreplicated()).toBe(0);
  });

  it('stands if the replica does not answer in time, is counted, and delays no other call', async () => {
    const { server, call, unreplicated } = await waitingNode();
    await call('paid');
    server.lag();
    // The first may have been late on a busy machine.
    const before = await unreplicated();
    const watch = await Stopwatch.start();
    const results = await Promise.all(Array.from({ length: 60 }, () => call('paid')));
    // Sequential execution would take twelve seconds.
    expect(watch.ms).toBeLessThan(watch.allow(10 * TIMEOUT_MS));
    for (const result of results) expect(result).toMatchObject({ success: true, usage_record_id: expect.any(String) });
    expect(await unreplicated()).toBe(before + 60);
    expect(await call('gratis')).toMatchObject({ success: true });
    expect(await unreplicated()).toBe(before + 60);
    await server.catchUp();
    const isReplicated = async () => {
      const late = await unreplicated();
      await call('paid');
      return (await unreplicated()) === late;
    };
    await until(isReplicated, { label: 'a call that the replica has in time' });
  });

  it('is recorded again, once, when Redis dies while the replica is waited for', async () => {
    const { server, call, recorded, written, unreplicated } = await waitingNode(2_000);
    await call('paid');
    server.lag();
    const waiting = call('paid');
    await until(async () => (await written()) === 2);
    await server.failOver();
    expect(await waiting).toMatchObject({ success: true });
    expect(await recorded()).toBe(2);
    // The promoted server has no replica.
    expect(await unreplicated()).toBe(1);
  });

  it('has WAIT behind its script in the same flight', async () => {
    const redis = await connected(testRedisUrl());
    const sent: string[] = [];
    const watched = new Proxy(redis, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target) as unknown;
        if (typeof value !== 'function') return value;
        if (typeof name === 'string' && /^(wait$|revoke:)/.test(name)) {
          return (...args: unknown[]) => {
            sent.push(name.split(':')[0] ?? '');
            return value.apply(target, args);
          };
        }
        return value.bind(target);
      },
    });
    const watch = { unreplicated: new Metrics().unreplicatedWrites, logger: silentLogger };
    const writes = new ReplicatedWrites(watched, watch, { replicas: 1, timeoutMs: 1 });
    const script = LuaScript.load('revoke-2', integer);
    const failed = writes.run(script, ['{w}:a', '{w}:b'], []);
    // Before any reply arrived.
    expect(sent).toEqual(['revoke', 'wait']);
    await expect(failed).rejects.toThrow();
  });
});
