import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { NodeRegistry } from '../../src/cluster/node-registry.ts';
import type { Figures } from '../../src/figures/figures.ts';
import { Sampler } from '../../src/figures/sampler.ts';
import { KEPT_STEPS, MAX_SAMPLE_BYTES, SeriesStore, STEP_MS } from '../../src/figures/series-store.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { until } from '../support/until.ts';

let redis: Redis;
let keys: Keys;
let store: SeriesStore;
beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
  keys = new Keys(`figures-${randomBytes(6).toString('hex')}`);
  store = new SeriesStore({ redis, keys });
});

const MINUTE = STEP_MS.minute;
const START = Math.floor(Date.now() / STEP_MS.hour) * STEP_MS.hour;
const figures = (messages: number, connections: number): Figures => ({
  counters: { messages },
  gauges: { connections, 'event_loop.p99_ms': connections },
});
/** More names than any process has. */
const LARGE: Figures = {
  counters: Object.fromEntries(Array.from({ length: 150 }, (_, i) => [`refusals.A_LONG_NAME_${i}`, 123_456 + i])),
  gauges: {},
};

describe('the series of figures', () => {
  it('keep 1,440 minutes and 720 hours per process, in bounded memory', async () => {
    const process = 'node_full';
    for (let minute = 0; minute < KEPT_STEPS.minute + 50; minute += 1) {
      await store.write(process, START + minute * MINUTE, { minute: LARGE, hour: LARGE });
    }
    for (let hour = 26; hour < KEPT_STEPS.hour + 100; hour += 1) {
      await store.write(process, START + hour * STEP_MS.hour, { minute: LARGE, hour: LARGE });
    }
    expect(await redis.xlen(keys.seriesMinutes(process))).toBe(KEPT_STEPS.minute);
    expect(await redis.hlen(keys.seriesHours(process))).toBeLessThanOrEqual(KEPT_STEPS.hour);
    const bytes = await Promise.all(
      [keys.seriesMinutes(process), keys.seriesHours(process)].map((key) => redis.memory('USAGE', key)),
    );
    const samples = KEPT_STEPS.minute + KEPT_STEPS.hour;
    for (const size of bytes) expect(Number(size)).toBeLessThan(samples * (MAX_SAMPLE_BYTES + 256));
    expect(await redis.pttl(keys.seriesMinutes(process))).toBeGreaterThan(0);
    expect(await redis.pttl(keys.seriesHours(process))).toBeGreaterThan(0);
  });

  it('add counters over processes, and take the largest of other gauges; a minute without a report is unknown', async () => {
    const at = START + 7 * STEP_MS.hour;
    await store.write('node_a', at, { minute: figures(5, 10), hour: figures(5, 10) });
    await store.write('node_b', at, { minute: figures(7, 20), hour: figures(7, 20) });
    // A repetition changes nothing.
    await store.write('node_b', at, { minute: figures(700, 20), hour: figures(7, 20) });
    const all = await store.read({ step: 'minute', from: at - MINUTE, to: at + MINUTE, process: undefined });
    const added = { messages: 12 };
    expect(all.map((point) => point.figures?.counters)).toEqual([undefined, added, undefined]);
    expect(all[1]?.figures?.gauges).toEqual({ connections: 30, 'event_loop.p99_ms': 20 });
    const [one] = await store.read({ step: 'hour', from: at, to: at, process: 'node_a' });
    expect(one?.figures?.counters).toEqual({ messages: 5 });
  });

  it('get one sample per minute from a process, and the hour so far with it', async () => {
    const clock = new ManualClock(START + 9 * STEP_MS.hour);
    const metrics = new Metrics();
    const sampler = new Sampler({ metrics, clock, logger: silentLogger, store }, 'node_live');
    sampler.start();
    await until(() => sampler.live.gauges['memory.rss_bytes']);
    const minutes = () => redis.xlen(keys.seriesMinutes('node_live'));
    for (let minute = 1; minute <= 3; minute += 1) {
      metrics.messages.inc({ type: 'ping', result: 'ok' }, 10);
      metrics.firstEventSeconds.observe(0.03);
      for (let tick = 0; tick < 12; tick += 1) {
        await clock.advance(5_000);
        await new Promise(setImmediate);
      }
      await until(async () => (await minutes()) === minute);
    }
    await sampler.stop();
    const from = START + 9 * STEP_MS.hour;
    const [hour] = await store.read({ step: 'hour', from, to: from, process: 'node_live' });
    expect(hour?.figures?.counters).toMatchObject({ messages: 30, 'first_event.le.0.05': 3 });
    expect(hour?.figures?.gauges['memory.rss_bytes']).toBeGreaterThan(1e6);
  });
});

describe('the end that an administrator requests', () => {
  it('reaches a process that allows it, and changes nothing for any other', async () => {
    const clock = new ManualClock();
    const reached: string[] = [];
    const onDrainRequested = () => reached.push('drain');
    const deps = { redis, keys, clock, logger: silentLogger, onDrainRequested };
    const allows = new NodeRegistry({ ...deps, onKillRequested: () => reached.push('kill') }, 'node_allows');
    const ignores = new NodeRegistry(deps, 'node_ignores');
    for (const [id, registry] of [['node_allows', allows] as const, ['node_ignores', ignores] as const]) {
      await registry.requestKill(id);
      await registry.start(() => ({ connections: 0 }));
      closeAfter('test', () => registry.stop());
    }
    expect(reached).toEqual(['kill']);
    expect((await allows.list()).filter(({ draining }) => draining)).toEqual([]);
  });
});

describe('a drain that an administrator requests', () => {
  it('reaches the process within a renewal, once, and no other process', async () => {
    const clock = new ManualClock();
    const requested: string[] = [];
    const registryOf = (id: string) =>
      new NodeRegistry({ redis, keys, clock, logger: silentLogger, onDrainRequested: () => requested.push(id) }, id);
    const [one, other] = [registryOf('node_one'), registryOf('node_other')];
    for (const registry of [one, other]) {
      await registry.start(() => ({ connections: 0 }));
      closeAfter('test', () => registry.stop());
    }
    await other.requestDrain('node_one');
    await until(async () => {
      await clock.advance(5_000);
      return requested.length > 0;
    });
    await until(async () => {
      await clock.advance(5_000);
      return (await other.list()).some(({ node_id, draining }) => node_id === 'node_one' && draining);
    });
    expect(requested).toEqual(['node_one']);
  });
});
