import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { runsThroughLoss } from '../support/chaos/accepted-runs.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisClusterProcesses } from '../support/redis-cluster.ts';
import { SentinelProcesses } from '../support/redis-sentinels.ts';
import { randomSecret } from '../support/secrets.ts';
import { until } from '../support/until.ts';

/** In `npm run faults`. */
const itInLongForm = process.env.FAULT_RUN_LOSSES === undefined ? it.skip : it;
/** Duration of the lag of a replica before its master is killed. */
const LAG_MS = 500;

describe('every accepted run ends once, although a new master lacks acknowledged writes', () => {
  it('with Sentinels: the former master was isolated and accepted writes meanwhile', async () => {
    const sentinels = await SentinelProcesses.start({ password: randomSecret() });
    closeAfter('test', () => sentinels.close());
    const fail = async (worked: () => Promise<unknown>) => {
      const before = await sentinels.master();
      const rejoin = await sentinels.partition(before);
      await worked();
      await sentinels.failedOver(before);
      await rejoin();
    };
    const { accepted, withoutEnd, timedOut } = await runsThroughLoss({ url: sentinels.url, fail });
    process.stdout.write(`Sentinels: ${accepted} accepted, ${withoutEnd} without an end, ${timedOut} RUN_TIMEOUT\n`);
    expect(withoutEnd).toBe(0);
  }, 120_000);

  itInLongForm(
    'on a Redis Cluster: every replica lagged when its master was killed',
    async () => {
      const cluster = await RedisClusterProcesses.start({ replicas: 1 });
      closeAfter('test', () => cluster.close());
      const [victim] = cluster.masters;
      const [replica] = cluster.replicas;
      const fail = async (worked: () => Promise<unknown>) => {
        await replica?.kill('SIGSTOP');
        await Promise.all([delay(LAG_MS), worked()]);
        await victim?.kill('SIGKILL');
        await replica?.kill('SIGCONT');
        const isMaster = async () =>
          (await replica?.ask((redis) => redis.info('replication')))?.includes('role:master');
        await until(isMaster, { timeoutMs: 20_000, label: 'the replica as master' });
      };
      const { accepted, withoutEnd, timedOut } = await runsThroughLoss({ url: cluster.url, fail });
      process.stdout.write(`Cluster: ${accepted} accepted, ${withoutEnd} without an end, ${timedOut} RUN_TIMEOUT\n`);
      expect(withoutEnd).toBe(0);
    },
    120_000,
  );
});
