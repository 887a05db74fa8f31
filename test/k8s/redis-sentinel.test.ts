import { beforeAll, expect, it } from '@jest/globals';
import type { INetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import { loadConfig } from '../../src/config.ts';
import { parseRedisUrl } from '../../src/lib/redis-url.ts';
import { buildWith, environmentOf, type Manifests, selects } from '../support/manifests.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';
import { randomSecret } from '../support/secrets.ts';

const PASSWORD = randomSecret();

describeWith(KUBECTL, 'the component redis-sentinel', () => {
  let manifests: Manifests;

  beforeAll(() => {
    manifests = buildWith(['redis-sentinel']);
  }, 60_000);

  it('tells every process of the three Sentinels, and with which passwords it is to come', () => {
    const secrets = { SERVICE_SECRET: randomSecret(), JWT_SECRET_KEY: randomSecret(), REDIS_PASSWORD: PASSWORD };
    expect(manifests.processes).toHaveLength(2);
    for (const workload of manifests.processes) {
      const { REDIS_PASSWORD: _, ...env } = environmentOf(workload, manifests, secrets);
      const { REDIS_URL, REDIS_SENTINEL_PASSWORD } = loadConfig({
        ...env,
        AUTH_SERVICE_URL: 'http://tollgate-auth:8081',
      });
      expect(REDIS_SENTINEL_PASSWORD).toBe(PASSWORD);
      expect(parseRedisUrl(REDIS_URL)).toMatchObject({
        topology: 'sentinel',
        password: PASSWORD,
        masterName: 'tollgate',
        nodes: [0, 1, 2].map((number) => ({ host: `tollgate-sentinel-${number}.tollgate-sentinel`, port: 26_379 })),
      });
    }
  });

  it('admits Tollgate, Redis and the Sentinels to Redis and the Sentinels, and no others', () => {
    const ingress = (app: string) => {
      const labels = { 'app.kubernetes.io/name': app };
      const policies = manifests.ofKind<INetworkPolicy>('NetworkPolicy').filter(({ spec }) => {
        const selector = spec?.podSelector?.matchLabels;
        return Object.keys(selector ?? {}).length > 0 && selects(selector, labels);
      });
      const rules = policies.flatMap(({ spec }) => spec?.ingress ?? []);
      return rules.flatMap(({ from, ports }) => {
        return (from ?? []).map(({ podSelector }) => {
          return [podSelector?.matchLabels?.['app.kubernetes.io/name'], ports?.map(({ port }) => port)];
        });
      });
    };
    expect(ingress('redis')).toEqual(['tollgate', 'redis', 'redis-sentinel'].map((from) => [from, [6379]]));
    expect(ingress('redis-sentinel')).toEqual(['tollgate', 'redis', 'redis-sentinel'].map((from) => [from, [26_379]]));
  });
});
