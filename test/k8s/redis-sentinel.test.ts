import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, expect, it } from '@jest/globals';
import { Redis } from 'ioredis';
import type { IStatefulSet } from 'kubernetes-models/apps/v1/StatefulSet';
import type { INetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { ManagedProcess } from '../../scripts/lib/processes.ts';
import { loadConfig } from '../../src/config.ts';
import { parseRedisUrl } from '../../src/lib/redis-url.ts';
import {
  buildWith,
  environmentOf,
  type Manifests,
  onlyContainer,
  selects,
  type Workload,
} from '../support/manifests.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';
import { areInStep } from '../support/replicas.ts';
import { randomSecret } from '../support/secrets.ts';
import { until } from '../support/until.ts';

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

  /** Runs the script of a pod with a folder, a port and an address of this machine. */
  function launch(name: string, hostname: string, replacements: Readonly<Record<string, string>>): ManagedProcess {
    const workload = manifests.get<IStatefulSet>('StatefulSet', name) as Workload;
    const [shell = '', flag = '', script = ''] = onlyContainer(workload).command ?? [];
    const local = Object.entries(replacements).reduce((text, [from, to]) => text.replaceAll(from, to), script);
    const env = { PATH: process.env.PATH, HOSTNAME: hostname, REDIS_PASSWORD: PASSWORD };
    const child = new ManagedProcess({ name: hostname, command: shell, args: [flag, local], env });
    closeAfter('test', () => child.stop());
    return child;
  }

  function connect(port: number): Redis {
    const redis = new Redis({ port, host: LOOPBACK, password: PASSWORD, retryStrategy: () => 100 });
    redis.on('error', () => {});
    closeAfter('test', () => redis.disconnect());
    return redis;
  }

  it('has scripts by which a pod begins, follows the master, is watched, and goes on as what it was', async () => {
    const [zero = 0, one = 0, sentinel = 0] = await freePorts(3);
    const folders = [0, 1, 2].map(() => mkdtempSync(join(tmpdir(), 'tollgate-sentinel-')));
    closeAfter('test', () => {
      for (const folder of folders) rmSync(folder, { recursive: true, force: true });
    });
    const [data0 = '', data1 = '', data2 = ''] = folders;
    const master = {
      'tollgate-redis-0.tollgate-redis 6379': `${LOOPBACK} ${zero}`,
      '"$HOSTNAME.tollgate-redis"': LOOPBACK,
    };
    const asServer = (data: string, port: number) => ({ ...master, '/data': data, 'dir ': `port ${port}\ndir ` });
    const asSentinel = {
      ...master,
      '/data': data2,
      'port 26379': `port ${sentinel}`,
      '$HOSTNAME.tollgate-sentinel': LOOPBACK,
    };
    launch('tollgate-redis', 'tollgate-redis-0', asServer(data0, zero));
    const replica = launch('tollgate-redis', 'tollgate-redis-1', asServer(data1, one));
    const [first, second] = [connect(zero), connect(one)];
    const isFollowed = () => areInStep(first, 1);
    await until(isFollowed, { timeoutMs: 20_000, label: 'a replica that follows number 0' });
    expect(await first.config('GET', 'min-replicas-to-write')).toEqual(['min-replicas-to-write', '1']);
    expect(await first.set('written', 'yes')).toBe('OK');
    expect(await first.wait(1, 10_000)).toBe(1);

    const watcher = launch('tollgate-sentinel', 'tollgate-sentinel-0', asSentinel);
    const watching = connect(sentinel);
    const named = () => watching.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'tollgate');
    expect(await until(named, { timeoutMs: 20_000, label: 'the master by its name' })).toEqual([
      LOOPBACK,
      String(zero),
    ]);

    // Acts like a Sentinel: the replica becomes the master, and its file then says so.
    await second.replicaof('NO', 'ONE');
    await second.config('REWRITE');
    second.disconnect();
    expect(await replica.stop()).toEqual({ code: 0, signal: null });
    launch('tollgate-redis', 'tollgate-redis-1', asServer(data1, one));
    const again = connect(one);
    const isMaster = async () => /role:master/.test(await again.info('replication'));
    await until(isMaster, { timeoutMs: 20_000, label: 'number 1 as the master that it was' });
    expect(await again.get('written')).toBe('yes');
    watching.disconnect();
    expect(await watcher.stop()).toEqual({ code: 0, signal: null });
    launch('tollgate-sentinel', 'tollgate-sentinel-0', asSentinel);
    const back = connect(sentinel);
    const namedAgain = () => back.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'tollgate');
    await until(namedAgain, { timeoutMs: 20_000, label: 'a Sentinel that knows the master still' });
  }, 90_000);
});
