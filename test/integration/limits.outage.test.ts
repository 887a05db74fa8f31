import { describe, expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { Nodes } from '../../src/connections/nodes.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Catalogues } from '../../src/policy/catalogues.ts';
import { MessageRate, type RateDecision } from '../../src/policy/message-rate.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODES = 3;
const PER_MINUTE = 30;

async function take(rate: MessageRate, userId: string, times: number): Promise<RateDecision[]> {
  const decisions: RateDecision[] = [];
  for (let i = 0; i < times; i++) decisions.push(await rate.take(userId, 'free'));
  return decisions;
}

const allowed = (decisions: readonly RateDecision[]) => decisions.filter((one) => one.allowed).length;

describe('the message limit of three nodes', () => {
  it('is exact while Redis counts, a share of it each while it does not, and begins nobody anew on return', async () => {
    const server = await startRedisServer();
    closeAfter('test', () => server.stop());
    const keys = new Keys('limits');
    const nodes = await Promise.all(
      Array.from({ length: NODES }, async (_, i) => {
        const redis = await connectRedis(server.url, 'commands', silentLogger);
        closeAfter('test', () => disconnectRedis(redis));
        const alive = new Nodes({ redis, keys, clock: systemClock, logger: silentLogger }, `node_${i}`);
        closeAfter('test', () => alive.stop());
        return { redis, alive };
      }),
    );
    // Twice: the first to be announced has not heard of the others yet.
    for (const { alive } of [...nodes, ...nodes]) await alive.start(() => 0);
    expect(nodes.map(({ alive }) => alive.alive)).toEqual([NODES, NODES, NODES]);
    const rates = nodes.map(({ redis, alive }) => {
      const deps = { redis, keys, plans: new Catalogues().plans, nodes: alive, logger: silentLogger };
      return new MessageRate(deps, { perMinute: PER_MINUTE });
    });
    const [counted, cutOff] = [freshUserId(), freshUserId()];

    const together = (await Promise.all(rates.map((rate) => take(rate, counted, 20)))).flat();
    expect(allowed(together)).toBe(PER_MINUTE);
    expect(together.every(({ degraded }) => !degraded)).toBe(true);

    // The line to Redis is cut, not Redis itself: its counters are there when it is mended.
    for (const { redis } of nodes) redis.disconnect(false);
    const alone = (await Promise.all(rates.map((rate) => take(rate, cutOff, 20)))).flat();
    expect(allowed(alone)).toBe(PER_MINUTE);
    expect(alone.every(({ degraded }) => degraded)).toBe(true);

    await until(() => nodes.every(({ redis }) => redis.status === 'end'));
    await Promise.all(nodes.map(({ redis }) => redis.connect()));
    // The first message on each node counts what that node granted; then the window is full, whoever asks.
    for (const rate of rates) await take(rate, freshUserId(), 1);
    const key = keys.user(cutOff).messageRate;
    await until(async () => Number(await nodes[0]?.redis.get(key)) === PER_MINUTE, { label: 'all messages counted' });
    expect(allowed((await Promise.all(rates.map((rate) => take(rate, cutOff, 10)))).flat())).toBe(0);
  });
});
