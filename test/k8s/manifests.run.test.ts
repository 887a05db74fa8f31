import { beforeAll, expect, it } from '@jest/globals';
import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, whenReady } from '../../scripts/lib/processes.ts';
import { loadConfig, VARIABLE_NAMES } from '../../src/config.ts';
import { type ImageLayout, layOutImage } from '../support/image.ts';
import {
  buildOverlay,
  configOf,
  environmentOf,
  type Manifests,
  OVERLAYS,
  onlyContainer,
} from '../support/manifests.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';
import { randomSecret } from '../support/secrets.ts';
import { stack } from '../support/stack.ts';

/** The variable that sets each container port. */
const PORT_VARIABLES = { 8000: 'PORT', 9464: 'METRICS_PORT', 8090: 'WORKER_PORT', 8081: 'AUTH_PORT' } as const;

describeWith(KUBECTL, 'the environment of a pod', () => {
  it.each(OVERLAYS)('%s: has only variables that Tollgate reads, and passes its configuration', (overlay) => {
    const manifests = buildOverlay(overlay);
    // The operator's values for the Secret.
    const secrets = {
      SERVICE_SECRET: randomSecret(),
      REDIS_URL: `rediss://tollgate:${randomSecret()}@redis.example.com:6380`,
    };
    for (const workload of manifests.processes) {
      const env = environmentOf(workload, manifests, secrets);
      // REDIS_PASSWORD exists for REDIS_URL.
      const unknown = Object.keys(env).filter((name) => !VARIABLE_NAMES.includes(name) && name !== 'REDIS_PASSWORD');
      expect(unknown).toEqual([]);
      const config = loadConfig(env);
      expect(config.ENVIRONMENT).toBe(overlay === 'dev' ? 'development' : overlay);
      for (const { containerPort } of onlyContainer(workload).ports ?? []) {
        expect(config[PORT_VARIABLES[containerPort as 8000]]).toBe(containerPort);
      }
    }
  });

  it.each(['staging', 'production'])(
    '%s: serves metrics on a port of their own, behind one proxy, with encryption',
    (overlay) => {
      const config = configOf(buildOverlay(overlay));
      expect(config).toMatchObject({ METRICS_PORT: '9464', TRUSTED_PROXY_HOPS: '1' });
      expect(config.AUTH_SERVICE_URL).toMatch(/^https:/);
      expect(config.CORS_ORIGINS).toMatch(/^https:/);
    },
  );
});

describeWith(KUBECTL, 'the command of a pod', () => {
  let image: ImageLayout;
  let manifests: Manifests;

  beforeAll(() => {
    image = layOutImage();
    manifests = buildOverlay('dev');
  }, 60_000);

  it.each(['tollgate-gateway', 'tollgate-worker', 'tollgate-auth'])(
    'of %s runs as it stands, with its environment; its probes find it, and it ends with 0',
    async (name) => {
      const workload = manifests.processes.find(({ metadata }) => metadata.name === name);
      if (!workload) throw new Error(`there is no ${name}`);
      const { command = [], ports = [], ...container } = onlyContainer(workload);
      const free = await freePorts(ports.length);
      const portOf = new Map(ports.map(({ name: port }, index) => [port, free[index]]));
      const variables = ports.map(({ containerPort }, index) => {
        return [PORT_VARIABLES[containerPort as 8000], String(free[index])];
      });
      const env = {
        ...environmentOf(workload, manifests, {}),
        // This machine instead of a cluster.
        PATH: `${image.root}/usr/local/bin:${process.env.PATH}`,
        HOST: LOOPBACK,
        REDIS_URL: stack().redisUrl,
        REDIS_KEY_PREFIX: `${stack().keyPrefix}k`,
        DRAIN_SECONDS: '0',
        LOG_LEVEL: 'warn',
        ...Object.fromEntries(variables),
      };
      const args = ['--chdir', image.app, ...command];
      const child = new ManagedProcess({ name, command: 'env', args, env });
      closeAfter('test', () => child.stop());
      for (const probe of [container.startupProbe, container.livenessProbe, container.readinessProbe]) {
        const url = `http://${LOOPBACK}:${portOf.get(String(probe?.httpGet?.port))}${probe?.httpGet?.path}`;
        await whenReady(child, { name: url, isReady: async () => (await httpStatus(url)) === 200 });
      }
      const metrics = portOf.get('metrics');
      if (metrics !== undefined) {
        // The HorizontalPodAutoscaler counts a node without the metric as a full one.
        const text = await (await fetch(`http://${LOOPBACK}:${metrics}/metrics`)).text();
        expect(text).toMatch(/^tollgate_connections\{.*\} 0$/m);
        expect(await httpStatus(`http://${LOOPBACK}:${portOf.get('http')}/metrics`)).toBe(404);
      }
      expect(await child.stop()).toEqual({ code: 0, signal: null });
    },
  );
});
