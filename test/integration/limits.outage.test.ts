import { describe, expect, it } from '@jest/globals';
import { type RedisServer, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { NodeRegistry } from '../../src/cluster/node-registry.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { MessageLimiter, type RateDecision } from '../../src/limits/message-limiter.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODES = 3;
const PER_MINUTE = 30;
const SHARE = PER_MINUTE / NODES;

/** A wall clock that can be set back and forth, as an operator or NTP does; timers keep running. */
class SetClock implements Clock {
  readonly after = systemClock.after;
  readonly every = systemClock.every;
  #offsetMs = 0;

  now(): number {
    return systemClock.now() + this.#offsetMs;
  }

  set(byMs: number): void {
    this.#offsetMs += byMs;
  }
}

interface LimitingNode {
  readonly redis: Redis;
  readonly rate: MessageLimiter;
  readonly clock: SetClock;
}

const keys = new Keys('limits');

async function startNodes(server: RedisServer): Promise<LimitingNode[]> {
  const nodes = await Promise.all(
    Array.from({ length: NODES }, async (_, i) => {
      const redis = await connectRedis(server.url, 'commands', silentLogger);
      closeAfter('test', () => disconnectRedis(redis));
      const alive = new NodeRegistry({ redis, keys, clock: systemClock, logger: silentLogger }, `node_${i}`);
      closeAfter('test', () => alive.stop());
      const clock = new SetClock();
      const deps = { redis, keys, plans: new Catalogues().plans, nodes: alive, clock, logger: silentLogger };
      const rate = new MessageLimiter(deps, { perMinute: PER_MINUTE });
      closeAfter('test', () => rate.close());
      return { redis, rate, clock, alive };
    }),
  );
  // Twice, because the first node to register does not see the others yet.
  for (const { alive } of [...nodes, ...nodes]) await alive.start(() => ({ connections: 0 }));
  expect(nodes.map(({ alive }) => alive.alive)).toEqual([NODES, NODES, NODES]);
  return nodes;
}

async function startCluster(): Promise<readonly [LimitingNode, LimitingNode, LimitingNode]> {
  const server = await startRedisServer();
  closeAfter('test', () => server.stop());
  const [a, b, c] = await startNodes(server);
  if (!a || !b || !c) throw new Error('a cluster has three nodes');
  return [a, b, c];
}

/** Cuts the connections to Redis, not Redis itself, which keeps its counters. */
async function cut(nodes: readonly LimitingNode[]): Promise<void> {
  for (const { redis } of nodes) redis.disconnect(false);
  await until(() => nodes.every(({ redis }) => redis.status === 'end'));
}

async function consume({ rate }: LimitingNode, userId: string, times: number): Promise<RateDecision[]> {
  const decisions: RateDecision[] = [];
  for (let i = 0; i < times; i++) decisions.push(await rate.consume(userId, 'free').decision);
  return decisions;
}

async function consumeAll(nodes: readonly LimitingNode[], userId: string, times: number): Promise<RateDecision[]> {
  return (await Promise.all(nodes.map((node) => consume(node, userId, times)))).flat();
}

const allowed = (decisions: readonly RateDecision[]) => decisions.filter((one) => one.allowed).length;

/**
 * Sends messages of the user every few milliseconds until Redis decides one. @returns the number of allowed messages
 */
async function consumeUntilCounted(node: LimitingNode, userId: string): Promise<number> {
  let granted = 0;
  const decide = async () => {
    const [decision] = await consume(node, userId, 1);
    if (decision?.allowed) granted += 1;
    return decision?.degraded === false;
  };
  await until(decide, { timeoutMs: 10_000, everyMs: 5, label: 'the cluster to count again' });
  return granted;
}

describe('the message limit of three nodes', () => {
  it('is exact while Redis counts, and a share of it each while it does not', async () => {
    const nodes = await startCluster();
    const [counted, cutOff] = [freshUserId(), freshUserId()];
    const together = await consumeAll(nodes, counted, 20);
    expect(allowed(together)).toBe(PER_MINUTE);
    expect(together.every(({ degraded }) => !degraded)).toBe(true);

    await cut(nodes);
    const alone = await Promise.all(nodes.map((node) => consume(node, cutOff, 20)));
    expect(alone.map(allowed)).toEqual([SHARE, SHARE, SHARE]);
    expect(alone.flat().every(({ degraded }) => degraded)).toBe(true);
  });

  it('still refuses, while Redis is away, whom Redis had refused in this minute', async () => {
    const [node, ...others] = await startCluster();
    const userId = freshUserId();
    expect(allowed(await consume(node, userId, PER_MINUTE + 1))).toBe(PER_MINUTE);
    await cut([node, ...others]);
    // A message of another user detects the outage.
    await consume(node, freshUserId(), 1);
    expect(allowed(await consume(node, userId, 20))).toBe(0);
  });

  it('resets no user’s count when Redis is back, on any node and without contact to the others', async () => {
    const nodes = await startCluster();
    const [first, second] = nodes;
    const [everywhere, elsewhere] = [freshUserId(), freshUserId()];
    await cut(nodes);
    expect(allowed(await consumeAll(nodes, everywhere, 20))).toBe(PER_MINUTE);
    expect(allowed(await consume(second, elsewhere, 20))).toBe(SHARE);

    // The largest possible time between two nodes, with the user at the first one to reconnect.
    await first.redis.connect();
    const lateReturns = new Promise<void>((resolve) => {
      systemClock.after(
        1_000,
        () => void Promise.all(nodes.slice(1).map(({ redis }) => redis.connect())).then(() => resolve()),
      );
    });
    const [more, rest] = await Promise.all([
      consumeUntilCounted(first, everywhere),
      consumeUntilCounted(first, elsewhere),
      lateReturns,
    ]);
    expect(more + allowed(await consumeAll(nodes, everywhere, 20))).toBe(0);
    expect(rest + allowed(await consume(first, elsewhere, PER_MINUTE))).toBe(PER_MINUTE - SHARE);
  });

  it('counts the current minute of an outage, not the ones before', async () => {
    const nodes = await startCluster();
    const [node] = nodes;
    const userId = freshUserId();
    await cut(nodes);
    expect(allowed(await consume(node, userId, 20))).toBe(SHARE);
    node.clock.set(61_000);
    expect(allowed(await consume(node, userId, 20))).toBe(SHARE);
    await Promise.all(nodes.map(({ redis }) => redis.connect()));
    const { messageRate } = keys.user(userId);
    await until(async () => (await node.redis.get(messageRate)) !== null, { label: 'the messages to be counted' });
    expect(Number(await node.redis.get(messageRate))).toBe(SHARE);
    expect(await node.redis.pttl(messageRate)).toBeLessThanOrEqual(60_000);
  });

  it('ends when Redis says so, though the clock of the node was set back an hour', async () => {
    const [node] = await startCluster();
    const userId = freshUserId();
    await consume(node, userId, PER_MINUTE);
    await node.redis.pexpire(keys.user(userId).messageRate, 1_500);
    const [refusal] = await consume(node, userId, 1);
    expect(refusal).toMatchObject({ allowed: false, degraded: false });
    node.clock.set(-3_600_000);
    const oneIsAllowed = async () => allowed(await consume(node, userId, 1)) === 1;
    await until(oneIsAllowed, { timeoutMs: 15_000, label: 'the end of the refusal' });
  });

  it('asks Redis about a user who shouts once a second, not for every message', async () => {
    const [node] = await startCluster();
    const userId = freshUserId();
    const startedAt = performance.now();
    expect(allowed(await consume(node, userId, 1_000))).toBe(PER_MINUTE);
    const seconds = Math.ceil((performance.now() - startedAt) / 1_000);
    const asked = Number(await node.redis.get(keys.user(userId).messageRate));
    expect(asked).toBeLessThanOrEqual(PER_MINUTE + 1 + seconds);
  });
});
