import { beforeAll, expect, it } from '@jest/globals';
import type { IStatefulSet } from 'kubernetes-models/apps/v1/StatefulSet';
import type { Redis } from '../../src/redis/client.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { silentLogger } from '../support/core.ts';
import { buildWith, onlyContainer, type Workload } from '../support/manifests.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';
import { RedisPods } from '../support/redis-pods.ts';
import { randomSecret } from '../support/secrets.ts';
import { until } from '../support/until.ts';

/** More with `RESTARTS=100`. */
const RESTARTS = Number(process.env.RESTARTS ?? 3);
const PASSWORD = randomSecret();

/** Writes numbered values, one after the other, and keeps the numbers that Redis has acknowledged. */
class Writer {
  readonly acknowledged: number[] = [];
  longestPauseMs = 0;
  readonly #redis: Redis;
  #running = true;
  readonly #writing: Promise<void>;

  constructor(redis: Redis) {
    this.#redis = redis;
    this.#writing = this.#write();
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#writing;
  }

  async #write(): Promise<void> {
    let lastAt = performance.now();
    for (let number = 0; this.#running; number++) {
      try {
        await this.#redis.set(`written:${number}`, number);
        this.acknowledged.push(number);
        this.longestPauseMs = Math.max(this.longestPauseMs, performance.now() - lastAt);
        lastAt = performance.now();
      } catch {
        // Not acknowledged: a client repeats it. Without the pause a refused write would spin.
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  }
}

describeWith(KUBECTL, 'the Redis pods of redis-sentinel', () => {
  let sentinelScript: string;

  beforeAll(() => {
    const statefulSet = buildWith(['redis-sentinel']).get<IStatefulSet>('StatefulSet', 'tollgate-sentinel');
    sentinelScript = onlyContainer(statefulSet as Workload).command?.at(-1) ?? '';
  }, 60_000);

  async function connect(pods: RedisPods): Promise<Redis> {
    const redis = await connectRedis(
      { REDIS_URL: pods.url, REDIS_SENTINEL_PASSWORD: PASSWORD },
      'commands',
      silentLogger,
    );
    closeAfter('test', () => disconnectRedis(redis));
    return redis;
  }

  async function missing(redis: Redis, numbers: readonly number[]): Promise<number[]> {
    const lost: number[] = [];
    for (let from = 0; from < numbers.length; from += 1_000) {
      const page = numbers.slice(from, from + 1_000);
      const values = await redis.mget(page.map((number) => `written:${number}`));
      lost.push(...page.filter((_, at) => values[at] === null));
    }
    return lost;
  }

  it(
    `restart gracefully in any order under a writer, and lose nothing acknowledged (${RESTARTS} restarts)`,
    async () => {
      const pods = await RedisPods.start({ password: PASSWORD, sentinelScript });
      const redis = await connect(pods);
      const writer = new Writer(redis);
      const outputs: string[] = [];
      for (let restart = 0; restart < RESTARTS; restart++) {
        // The master last, in the middle and first: 2 1 0, then 0 2 1, …
        const pod = [2, 1, 0, 0, 2, 1][restart % 6] ?? 0;
        const before = writer.acknowledged.length;
        outputs.push(await pods.stop(pod));
        pods.startServer(pod);
        await pods.ready(pod);
        await until(() => writer.acknowledged.length > before + 10, {
          timeoutMs: 30_000,
          label: 'writes after a restart',
        });
      }
      await writer.stop();
      process.stderr.write(
        `${RESTARTS} restarts: ${writer.acknowledged.length} writes, longest pause ${Math.round(writer.longestPauseMs)} ms\n`,
      );
      expect(await missing(redis, writer.acknowledged)).toEqual([]);
      // At least one of them was the master.
      expect(outputs.filter((text) => text.includes('the master is')).length).toBeGreaterThan(0);
      expect(outputs.filter((text) => text.includes('no failover'))).toEqual([]);
    },
    60_000 + RESTARTS * 60_000,
  );

  it('a pod that was master before it was killed comes back as a replica of the new one', async () => {
    const pods = await RedisPods.start({ password: PASSWORD, sentinelScript, readEveryMs: 1_000 });
    const redis = await connect(pods);
    await redis.set('before', 'yes');
    await pods.kill(0);
    await until(async () => (await redis.set('after', 'yes').catch(() => '')) === 'OK', {
      timeoutMs: 60_000,
      label: 'a write after the failover',
    });
    pods.startServer(0);
    await pods.ready(0);
    expect(pods.output(0)).toMatch(/starting; the master is 127\.0\.0\.1[23]/);
    expect(await redis.mget('before', 'after')).toEqual(['yes', 'yes']);
  }, 180_000);

  it('a master that comes back with an empty volume waits for a failover, and deletes no data', async () => {
    const pods = await RedisPods.start({ password: PASSWORD, sentinelScript, readEveryMs: 1_000 });
    const redis = await connect(pods);
    await redis.set('kept', 'yes');
    await until(async () => (await redis.wait(2, 1_000)) === 2, { timeoutMs: 10_000, label: 'both replicas' });
    await pods.kill(0);
    pods.wipe(0);
    // Before the Sentinels notice.
    pods.startServer(0);
    await pods.ready(0);
    expect(pods.output(0)).toContain('waiting for a failover, because the volume is empty');
    await until(async () => (await redis.get('kept').catch(() => null)) === 'yes', {
      timeoutMs: 60_000,
      label: 'the value of before',
    });
  }, 180_000);
});
