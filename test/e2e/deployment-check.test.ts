import { beforeAll, expect, it } from '@jest/globals';
import { DeploymentCheck } from '../../scripts/lib/deployment-check.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, HAPROXY } from '../support/programs.ts';
import { useStack } from '../support/stack.ts';

/** A real pool instead of a cluster of Kubernetes: the check has no knowledge of either. */
describeWith(HAPROXY, 'the check of a deployment (npm run test:kubernetes)', () => {
  const processes = useStack({ gateways: 3, workers: 2, env: { TRUSTED_PROXY_HOPS: '1' } });
  let url: string;

  beforeAll(async () => {
    ({ url } = await startLoadBalancer(processes().gateways.map((gateway) => gateway.url)));
  });

  function checkOf(change: { authUrl?: string } = {}): DeploymentCheck {
    const { authUrl, secrets, demoPassword } = processes().addresses;
    const check = new DeploymentCheck({ url, authUrl, secrets: { ...secrets, demoPassword }, ...change });
    closeAfter('test', () => check.close());
    return check;
  }

  it('chats, bills, and finds nothing lost while gateways and workers restart under load', async () => {
    const check = checkOf();
    expect(await check.hasTokens()).toBe(true);
    await check.chat();
    const before = await check.bill();
    expect(before).toBeGreaterThan(0);
    const figures = await check.underLoad({ users: 12, iterationsPerSecond: 6, seconds: 25 }, async () => {
      for (const process of [...processes().gateways.slice(0, 2), ...processes().workers]) await process.restart();
    });
    expect(figures).toMatchObject({ events_lost: 0, events_repeated: 0 });
    expect(figures.reconnects).toBeGreaterThan(0);
    expect(await check.bill()).toBeGreaterThan(before);
  }, 180_000);

  it('fails with the output of the script if the deployment does not answer, and with the cause of a failed disturbance', async () => {
    const check = checkOf({ authUrl: 'http://127.0.0.1:1' });
    expect(await check.hasTokens()).toBe(false);
    await expect(check.chat()).rejects.toThrow(/npm run chat failed/);
    const short = { users: 2, iterationsPerSecond: 2, seconds: 1 };
    const failing = () => Promise.reject(new Error('the disturbance failed'));
    await expect(check.underLoad(short, failing)).rejects.toThrow(/the disturbance failed/);
  }, 120_000);
});
