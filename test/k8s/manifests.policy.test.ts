import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from '@jest/globals';
import type { IIngress } from 'kubernetes-models/networking.k8s.io/v1/Ingress';
import type { IPodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget';
import type { IService } from 'kubernetes-models/v1/Service';
import type { IServiceAccount } from 'kubernetes-models/v1/ServiceAccount';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';
import { CLOSE_TIMEOUT_MS } from '../../workers/queue-workers.ts';
import {
  buildOverlay,
  buildWith,
  COMPONENTS,
  configOf,
  Manifests,
  OVERLAYS,
  onlyContainer,
  podLabels,
  type Scaler,
  selects,
  type Workload,
} from '../support/manifests.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';

const DRAIN_MARGIN_SECONDS = 10;
/** Jobs in progress, the archiver and its database, and closing the connections to Redis. */
const WORKER_CLOSE_SECONDS = CLOSE_TIMEOUT_MS / 1_000 + 5 + 5;

describeWith(KUBECTL, 'what is deployed', () => {
  /** Every overlay, and the base with all optional components. */
  const variants = [
    ...OVERLAYS,
    'base with keda',
    'base with auth-service and redis-dev',
    'base with auth-service and redis-sentinel',
    'base with postgres-archive',
  ];
  const built = new Map<string, Manifests>();

  beforeAll(() => {
    for (const overlay of OVERLAYS) built.set(overlay, buildOverlay(overlay));
    built.set('base with keda', buildWith(['keda']));
    built.set('base with auth-service and redis-dev', buildWith(['auth-service', 'redis-dev']));
    built.set('base with auth-service and redis-sentinel', buildWith(['auth-service', 'redis-sentinel']));
    built.set('base with postgres-archive', buildWith(['postgres-archive']));
  }, 60_000);

  const manifestsOf = (variant: string): Manifests => built.get(variant) ?? new Manifests([]);
  const each = (check: (workload: Workload, manifests: Manifests) => void) => (variant: string) => {
    const manifests = manifestsOf(variant);
    expect(manifests.workloads.length).toBeGreaterThan(1);
    for (const workload of manifests.workloads) check(workload, manifests);
  };

  it.each(variants)(
    '%s: pods are what the Pod Security Standard "restricted" lets in, and write nowhere else',
    (variant) => {
      const [namespace] = manifestsOf(variant).ofKind('Namespace');
      expect(namespace?.metadata.labels).toMatchObject({ 'pod-security.kubernetes.io/enforce': 'restricted' });
      each((workload) => {
        const pod = workload.spec?.template.spec;
        expect(pod?.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
        expect(pod?.securityContext?.runAsUser).toBeGreaterThan(0);
        expect(pod).not.toMatchObject({ hostNetwork: true });
        expect(Object.keys(pod ?? {}).filter((field) => field.startsWith('host'))).toEqual([]);
        for (const volume of pod?.volumes ?? []) {
          expect([
            ['emptyDir', 'name'],
            ['configMap', 'name'],
          ]).toContainEqual(Object.keys(volume).toSorted());
        }
        expect(onlyContainer(workload).securityContext).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        });
      })(variant);
    },
  );

  it.each(variants)(
    '%s: pods have an account of their own without a token, and no variables of Services',
    each(({ spec }, manifests) => {
      const pod = spec?.template.spec;
      expect(pod).toMatchObject({ automountServiceAccountToken: false, enableServiceLinks: false });
      const account = manifests.get<IServiceAccount>('ServiceAccount', pod?.serviceAccountName ?? '');
      expect(account.automountServiceAccountToken).toBe(false);
    }),
  );

  it.each(variants)(
    '%s: containers have the three probes, on ports that they have',
    each((workload) => {
      const container = onlyContainer(workload);
      const ports = container.ports?.map(({ name }) => name);
      for (const probe of [container.startupProbe, container.livenessProbe, container.readinessProbe]) {
        const port = probe?.httpGet?.port ?? probe?.tcpSocket?.port;
        if (port === undefined) expect(probe?.exec?.command).toBeDefined();
        else expect(ports).toContain(port);
      }
    }),
  );

  it.each(variants)(
    '%s: memory is bounded, with a heap that fits into it',
    each((workload) => {
      const { resources, command = [] } = onlyContainer(workload);
      expect(resources?.requests).toMatchObject({ cpu: expect.any(String), memory: expect.any(String) });
      const limit = mebibytes(String(resources?.limits?.memory));
      expect(mebibytes(String(resources?.requests?.memory))).toBeLessThanOrEqual(limit);
      if (command[0] !== 'node') return;
      const [, heap] = /^--max-old-space-size=(\d+)$/.exec(command[1] ?? '') ?? [];
      expect(Number(heap)).toBeGreaterThan(0);
      expect(Number(heap)).toBeLessThanOrEqual(0.75 * limit);
    }),
  );

  it.each(OVERLAYS)(
    '%s: images have a version, and it is not `latest`',
    each((workload) => {
      expect(onlyContainer(workload).image).toMatch(/^[\w./-]+:\d+[\w.-]*$/);
    }),
  );

  it.each(variants)('%s: a pod has the time to drain before it is killed', (variant) => {
    const manifests = manifestsOf(variant);
    for (const workload of manifests.processes) {
      const pod = workload.spec?.template.spec;
      const { command = [], lifecycle } = onlyContainer(workload);
      const preStop = lifecycle?.preStop?.sleep?.seconds ?? 0;
      const closing = command.includes('src/main.ts')
        ? Number(configOf(manifests).DRAIN_SECONDS)
        : command.includes('workers/main.ts')
          ? WORKER_CLOSE_SECONDS
          : 0;
      expect(pod?.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(preStop + closing + DRAIN_MARGIN_SECONDS);
    }
    // Proxies learn of the shutdown while the pod still serves.
    const gateway = manifests.get<Workload>('Deployment', 'tollgate-gateway');
    expect(onlyContainer(gateway).lifecycle?.preStop?.sleep?.seconds).toBeGreaterThanOrEqual(5);
  });

  it.each(variants)('%s: selectors take their own pods and no others', (variant) => {
    const { workloads } = manifestsOf(variant);
    for (const workload of workloads) {
      const selector = workload.spec?.selector.matchLabels;
      expect(Object.keys(selector ?? {})).not.toHaveLength(0);
      expect(workloads.filter((other) => selects(selector, podLabels(other)))).toEqual([workload]);
    }
  });

  it.each(variants)(
    '%s: a disruption budget lets one pod go and keeps another, for all that has more than one',
    (variant) => {
      const manifests = manifestsOf(variant);
      const budgets = manifests.ofKind<IPodDisruptionBudget>('PodDisruptionBudget');
      for (const workload of manifests.processes) {
        const own = budgets.filter(({ spec }) => selects(spec?.selector?.matchLabels, podLabels(workload)));
        const least = manifests.leastReplicas(workload);
        expect({ name: workload.metadata.name, budgets: own.length }).toEqual({
          name: workload.metadata.name,
          budgets: least > 1 ? 1 : 0,
        });
        for (const { spec } of own) {
          expect(spec?.maxUnavailable).toBeGreaterThan(0);
          expect(spec?.maxUnavailable).toBeLessThan(least);
          expect(spec?.minAvailable).toBeUndefined();
        }
      }
      expect(budgets.length).toBeGreaterThan(0);
    },
  );

  it.each(variants)('%s: autoscalers have a target, which says no number of its own, and go down slowly', (variant) => {
    const manifests = manifestsOf(variant);
    const scalers = [
      ...manifests.ofKind<{ spec: Scaler }>('HorizontalPodAutoscaler'),
      ...manifests.ofKind<{ spec: Scaler }>('ScaledObject'),
    ];
    const targets = scalers.map(({ spec }) => spec.scaleTargetRef.name);
    expect(targets).toContain('tollgate-gateway');
    expect(new Set(targets).size).toBe(targets.length);
    for (const { spec } of scalers) {
      const target = manifests.get<Workload>('Deployment', spec.scaleTargetRef.name);
      expect(target.spec?.replicas).toBeUndefined();
      const { least, most } = {
        least: spec.minReplicas ?? spec.minReplicaCount,
        most: spec.maxReplicas ?? spec.maxReplicaCount,
      };
      expect(least).toBeGreaterThanOrEqual(2);
      expect(most).toBeGreaterThan(least ?? 0);
    }
    const gateway = scalers.find(({ spec }) => spec.scaleTargetRef.name === 'tollgate-gateway');
    expect(JSON.stringify(gateway)).toContain('tollgate_connections');
    expect(JSON.stringify(gateway)).toContain(
      '"scaleDown":{"policies":[{"periodSeconds":120,"type":"Pods","value":1}],"stabilizationWindowSeconds":600}',
    );
  });

  it.each(variants)('%s: hosts and namespaces are those of the overlay', (variant) => {
    const manifests = manifestsOf(variant);
    expect(JSON.stringify(manifests.all)).not.toContain('set-by-the-overlay');
    const [namespace] = manifests.ofKind('Namespace').map(({ metadata }) => metadata.name);
    const queries = [...manifests.ofKind('PrometheusRule'), ...manifests.ofKind('ScaledObject')];
    const named = [...JSON.stringify(queries).matchAll(/namespace=\\"([^"\\]*)/g)].map(([, name]) => name);
    expect(named.filter((name) => name !== namespace)).toEqual([]);
    // Each query of a scaler, and two places in a rule.
    const scalerQueries = JSON.stringify(manifests.ofKind('ScaledObject')).match(/"query":/g)?.length ?? 0;
    expect(named).toHaveLength(manifests.ofKind('PrometheusRule').length * 2 + scalerQueries);
  });

  it.each(variants)('%s: every backend of an Ingress is a Service with that port, and pods behind it', (variant) => {
    const manifests = manifestsOf(variant);
    for (const service of manifests.ofKind<IService>('Service')) {
      // A Service of one pod of a StatefulSet selects by a label that the API server adds.
      const { 'statefulset.kubernetes.io/pod-name': _pod, ...selector } = service.spec?.selector ?? {};
      const behind = manifests.workloads.filter((workload) => selects(selector, podLabels(workload)));
      expect(behind).toHaveLength(1);
      const names = behind.flatMap((workload) => onlyContainer(workload).ports ?? []).map(({ name }) => name);
      for (const { targetPort } of service.spec?.ports ?? []) expect(names).toContain(targetPort);
    }
    for (const { spec } of manifests.ofKind<IIngress>('Ingress')) {
      for (const { host, http } of spec?.rules ?? []) {
        expect(host).toMatch(/^[a-z.]+\.[a-z]+$/);
        expect(spec?.tls?.flatMap(({ hosts }) => hosts ?? []) ?? [host]).toEqual([host]);
        for (const { backend } of http?.paths ?? []) {
          const service = manifests.get<IService>('Service', backend.service?.name ?? '');
          expect(service.spec?.ports?.map(({ name }) => name)).toContain(backend.service?.port?.name);
        }
      }
    }
  });

  it.each(COMPONENTS.filter((name) => name.startsWith('ingress-')))(
    '%s sends a long-polling session to its node',
    (component) => {
      const manifests = buildWith([component]);
      const ingress = manifests.get<IIngress>('Ingress', 'tollgate');
      const service = manifests.get<IService>('Service', 'tollgate-gateway');
      const annotations = Object.entries({ ...ingress.metadata.annotations, ...service.metadata.annotations });
      expect(annotations.filter(([, value]) => value === 'tollgate_node')).toHaveLength(1);
      expect(ingress.spec?.rules?.[0]?.host).toBe('tollgate.example.com');
    },
  );
});

describeWith(KUBECTL, 'secrets', () => {
  it.each(OVERLAYS)('of %s are in no manifest but the one that is generated, and in no value', (overlay) => {
    const manifests = buildOverlay(overlay);
    expect(manifests.ofKind('Secret')).toHaveLength(overlay === 'dev' ? 1 : 0);
    for (const workload of manifests.workloads) {
      for (const { name, value } of onlyContainer(workload).env ?? []) {
        if (/SECRET|PASSWORD|KEY|TOKEN/.test(name)) expect(value).toBeUndefined();
        // A URL with a password refers to a Secret.
        if (value?.includes('@')) expect(value).toMatch(/:\$\(\w+\)@/);
      }
    }
    expect(Object.keys(configOf(manifests)).filter((name) => /SECRET|PASSWORD|_KEY$|TOKEN$/.test(name))).toEqual([]);
  });

  it('can come from the Secret, every one that Tollgate reads, and from the .env file of compose', () => {
    const secret = VARIABLE_NAMES.filter((name) =>
      /SECRET|PASSWORD|^(JWT|AGENT).*_KEY|^REDIS_URL$|^USAGE_ARCHIVE_URL$/.test(name),
    );
    expect(secret.length).toBeGreaterThan(5);
    const env = buildWith(['auth-service']).processes.flatMap((workload) => onlyContainer(workload).env ?? []);
    const given = env.filter(({ valueFrom }) => valueFrom?.secretKeyRef).map(({ name }) => name);
    expect(secret.filter((name) => !given.includes(name))).toEqual([]);
    const compose = readFileSync(join(PROJECT_ROOT, 'docker-compose.yml'), 'utf8');
    // During a rotation of keys; a single machine restarts as a whole.
    const variables = secret.filter((name) => name !== 'JWT_SECRET_KEY_PREVIOUS');
    expect(variables.filter((name) => !compose.includes(`\${${name}:`))).toEqual([]);
  });

  it('are in no file of version control: those of the development overlay are made, and ignored', () => {
    const files = readdirSync(join(PROJECT_ROOT, 'k8s'), { recursive: true, encoding: 'utf8' });
    const yaml = files.filter((file) => file.endsWith('.yaml'));
    for (const file of yaml) {
      expect(readFileSync(join(PROJECT_ROOT, 'k8s', file), 'utf8')).not.toMatch(/^kind: Secret$/m);
    }
    const ignored = readFileSync(join(PROJECT_ROOT, '.gitignore'), 'utf8').split('\n');
    expect(ignored).toEqual(expect.arrayContaining(['secrets.env', '.env']));
  });
});

function mebibytes(quantity: string): number {
  const [, number, unit] = /^(\d+)(Mi|Gi)$/.exec(quantity) ?? [];
  return Number(number) * (unit === 'Gi' ? 1_024 : 1);
}
