import { beforeAll, describe, expect, it } from '@jest/globals';
import { EventLog } from '../../src/events/event-log.ts';
import { LiveTail } from '../../src/events/live-tail.ts';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis, isResponsive, masters, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import type { ConnectionRole } from '../../src/redis/options.ts';
import { slotOf } from '../../src/redis/slots.ts';
import { LOG_BYTES, silentLogger, thinking } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisClusterProcesses } from '../support/redis-cluster.ts';
import type { RedisProcess } from '../support/redis-process.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

describe('connections to a Redis Cluster', () => {
  let cluster: RedisClusterProcesses;
  let redis: Redis;
  const keys = new Keys('cluster');

  beforeAll(async () => {
    cluster = await RedisClusterProcesses.start();
    closeAfter('file', () => cluster.close());
    redis = await connect('commands');
  }, 60_000);

  async function connect(role: ConnectionRole): Promise<Redis> {
    const connection = await connectRedis(cluster.url, role, silentLogger);
    closeAfter('file', () => disconnectRedis(connection));
    return connection;
  }

  const shardOf = (key: string) => cluster.masters[Math.floor((slotOf(key) * 3) / 16_384)] as RedisProcess;

  /** Returns a user whose log is on the shard. */
  /** Slots that a test moved: `shardOf` states where a slot was at first. */
  const moved = new Set<number>();

  function userOn(shard: RedisProcess | undefined): string {
    for (;;) {
      const userId = freshUserId();
      const { log: key } = keys.user(userId);
      if (shardOf(key) === shard && !moved.has(slotOf(key))) return userId;
    }
  }

  /** Subscribes to users and records what arrives. */
  async function listen(userIds: readonly string[]) {
    const tail = new LiveTail({ redis: await connect('subscriber'), keys, clock: systemClock, logger: silentLogger });
    const received = new Map<string, number[]>(userIds.map((userId) => [userId, []]));
    const gaps = new Map<string, number>(userIds.map((userId) => [userId, 0]));
    for (const userId of userIds) {
      await tail.listen(userId, {
        onEntry: ({ seq }) => received.get(userId)?.push(seq),
        onControl: () => {},
        onGap: () => gaps.set(userId, (gaps.get(userId) ?? 0) + 1),
      });
    }
    return { received, gaps };
  }

  function log(): UserLogWriter {
    return new UserLogWriter(
      { redis, keys, metrics: new Metrics(), tracing: NO_TRACING },
      { length: 1_000, maxAgeMs: 3_600_000, maxBytes: LOG_BYTES },
    );
  }

  it('know the slot of a key as Redis does', async () => {
    const names = [
      'a',
      '{a}b',
      'b{a}',
      '{}a',
      'a{',
      '{a',
      '}{a}',
      '{{a}}',
      '{a}{b}',
      'ä{ö}ü',
      keys.invalidationChannel,
    ];
    const [node] = masters(redis);
    for (const name of names) expect(await node?.cluster('KEYSLOT', name)).toBe(slotOf(name));
  });

  it('hear what is published on every shard, and of a gap when the connections for it are lost', async () => {
    const users = cluster.masters.map(userOn);
    const { received, gaps } = await listen(users);
    for (const userId of users) await log().append({ userId, events: [thinking('one')] });
    await until(() => users.every((userId) => received.get(userId)?.length === 1), {
      label: 'what was appended first',
    });

    for (const master of cluster.masters) await master.ask((node) => node.call('CLIENT', 'KILL', 'TYPE', 'pubsub'));
    await until(() => users.every((userId) => (gaps.get(userId) ?? 0) > 0), { label: 'everybody to hear of the gap' });
    for (const userId of users) {
      const notified = gaps.get(userId);
      await log().append({ userId, events: [thinking('two')] });
      // An event that does not arrive is reported as a gap, after which the log has it.
      const isKnown = () => received.get(userId)?.includes(2) || gaps.get(userId) !== notified;
      await until(isKnown, { label: 'what was appended next' });
    }
  });

  it('send no command again whose connection was lost before its answer', async () => {
    const victim = cluster.masters[1] as RedisProcess;
    const key = keys.user(userOn(victim)).log;
    await redis.xadd(key, '*', 'n', '0');
    await victim.kill('SIGSTOP');
    const sent = redis.xadd(key, '*', 'n', '1').then(
      () => 'answered',
      (error: Error) => error.message,
    );
    const connection = masters(redis).find(({ options }) => options.port === victim.port);
    // Once the kernel has accepted it.
    await until(() => connection?.stream.writableLength === 0);
    connection?.stream.destroy();
    expect(await sent).toMatch(/closed/);
    await victim.kill('SIGCONT');
    await until(async () => (await redis.xlen(key)) === 2, { label: 'the shard again' });
    await redis.xadd(key, '*', 'n', '2');
    const entries = await redis.xrange(key, '-', '+');
    expect(entries.map(([, [, n]]) => n)).toEqual(['0', '1', '2']);
  });

  it('refuse at once what is for a shard that hangs, and serve the others', async () => {
    const [hanging, ...others] = cluster.masters;
    await hanging?.kill('SIGSTOP');
    const watch = await Stopwatch.start();
    const refused = log().append({ userId: userOn(hanging), events: [thinking('x')] });
    const served = Promise.all(others.map((shard) => log().append({ userId: userOn(shard), events: [thinking('x')] })));
    await expect(refused).rejects.toMatchObject({ code: 'OVERLOADED' });
    expect(watch.ms).toBeLessThan(watch.allow(6_000));
    expect((await served).map(({ outcome }) => outcome)).toEqual(['appended', 'appended']);
    // A majority of the nodes answers.
    expect(await isResponsive(redis, 500)).toBe(true);
    await hanging?.kill('SIGCONT');
    await cluster.healthy();
    await until(() => log().append({ userId: userOn(hanging), events: [thinking('y')] }), { timeoutMs: 15_000 });
  }, 40_000);

  it('follow a slot to another shard, with what is stored and what is published', async () => {
    const [from, to] = cluster.masters as [RedisProcess, RedisProcess];
    const userId = userOn(from);
    const { received } = await listen([userId]);
    await log().append({ userId, events: [thinking('before')] });
    await until(() => received.get(userId)?.length === 1);

    await moveSlot(slotOf(keys.user(userId).log), from, to);
    let last = 1;
    const isReceived = async () => {
      const appended = await log().append({ userId, events: [thinking('after')] });
      last = 'seq' in appended ? appended.seq : last;
      return received.get(userId)?.some((seq) => seq > 1);
    };
    await until(isReceived, { timeoutMs: 20_000, everyMs: 100, label: 'an event from the new shard' });
    const eventLog = new EventLog({ redis, keys, metrics: new Metrics() });
    const page = await eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    const whole = await eventLog.read(userId, { epoch: page.epoch, after: 0, delivered: undefined }, 1_000);
    expect(whole.entries.map(({ seq }) => seq)).toEqual(Array.from({ length: last }, (_, at) => at + 1));
  }, 40_000);

  it('refuse as OVERLOADED what is for a slot between two shards, and serve it when the slot is stable', async () => {
    const [from, to] = cluster.masters as [RedisProcess, RedisProcess];
    const userId = userOn(from);
    const slot = slotOf(keys.user(userId).log);
    await openSlot(slot, from, to);
    await expect(log().append({ userId, events: [thinking('x')] })).rejects.toMatchObject({ code: 'OVERLOADED' });
    for (const node of [from, to]) await node.ask((asked) => asked.call('CLUSTER', 'SETSLOT', slot, 'STABLE'));
    await until(() => log().append({ userId, events: [thinking('y')] }), { timeoutMs: 15_000 });
  }, 40_000);

  /** Begins the move of a slot. Its keys stay until they are migrated. @returns the id of `to` */
  async function openSlot(slot: number, from: RedisProcess, to: RedisProcess): Promise<string> {
    const idOf = async (node: RedisProcess) => String(await node.ask((asked) => asked.call('CLUSTER', 'MYID')));
    const [source, target] = await Promise.all([idOf(from), idOf(to)]);
    await to.ask((node) => node.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', source));
    await from.ask((node) => node.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', target));
    return target;
  }

  async function moveSlot(slot: number, from: RedisProcess, to: RedisProcess): Promise<void> {
    moved.add(slot);
    const target = await openSlot(slot, from, to);
    await from.ask(async (node) => {
      const stored = (await node.call('CLUSTER', 'GETKEYSINSLOT', slot, 1_000)) as string[];
      await node.call('MIGRATE', '127.0.0.1', to.port, '', 0, 5_000, 'KEYS', ...stored);
    });
    await to.ask((node) => node.call('CLUSTER', 'SETSLOT', slot, 'NODE', target));
    await from.ask((node) => node.call('CLUSTER', 'SETSLOT', slot, 'NODE', target));
  }

  it('are refused with a plain URL, which would reach one shard only', async () => {
    const [{ port }] = cluster.masters as [RedisProcess];
    const connecting = connectRedis(`redis://127.0.0.1:${port}`, 'commands', silentLogger);
    await expect(connecting).rejects.toThrow(/requires a redis\+cluster:\/\/ URL/);
  });
});
