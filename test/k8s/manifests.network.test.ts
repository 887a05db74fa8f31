import { beforeAll, expect, it } from '@jest/globals';
import type { INetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import type { IService } from 'kubernetes-models/v1/Service';
import { loadConfig } from '../../src/config.ts';
import {
  buildOverlay,
  buildWith,
  environmentOf,
  type Labels,
  type Manifests,
  OVERLAYS,
  onlyContainer,
  podLabels,
  selects,
  type Workload,
} from '../support/manifests.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';
import { randomSecret } from '../support/secrets.ts';

type Direction = 'Ingress' | 'Egress';
type Peer = NonNullable<NonNullable<NonNullable<INetworkPolicy['spec']>['egress']>[number]['to']>[number];

describeWith(KUBECTL, 'network policies', () => {
  const built = new Map<string, Manifests>();

  beforeAll(() => {
    for (const overlay of OVERLAYS) built.set(overlay, buildOverlay(overlay));
  }, 60_000);

  const manifestsOf = (overlay: string) => built.get(overlay) as Manifests;

  /** Returns the peers to or from which pods with these labels may connect on this port. */
  function peers(manifests: Manifests, direction: Direction, labels: Labels, port: number): Peer[] {
    return manifests.ofKind<INetworkPolicy>('NetworkPolicy').flatMap(({ spec }) => {
      if (!spec?.policyTypes?.includes(direction) || !selects(spec.podSelector?.matchLabels, labels)) return [];
      const rules =
        direction === 'Ingress'
          ? (spec.ingress ?? []).map(({ from, ports }) => ({ peers: from, ports }))
          : (spec.egress ?? []).map(({ to, ports }) => ({ peers: to, ports }));
      return rules.flatMap((rule) => {
        const open = rule.ports?.some((one) => one.port === port && (one.protocol ?? 'TCP') === 'TCP');
        return open ? (rule.peers ?? []) : [];
      });
    });
  }

  const allowsPod = (peersOfPort: readonly Peer[], labels: Labels) => {
    return peersOfPort.some(({ podSelector, namespaceSelector }) => {
      return podSelector !== undefined && namespaceSelector === undefined && selects(podSelector.matchLabels, labels);
    });
  };

  function portNumber(workload: Workload, name: unknown): number {
    const port = onlyContainer(workload).ports?.find((one) => one.name === name || one.containerPort === name);
    if (!port) throw new Error(`${workload.metadata.name} has no port ${name}`);
    return port.containerPort;
  }

  it.each(OVERLAYS)('%s: everything is denied that is not named, and no rule is open to all', (overlay) => {
    const policies = manifestsOf(overlay).ofKind<INetworkPolicy>('NetworkPolicy');
    const denied = policies.filter(({ spec }) => Object.keys(spec?.podSelector ?? {}).length === 0);
    expect(denied.map(({ spec }) => [spec?.policyTypes, spec?.ingress])).toContainEqual([
      ['Ingress', 'Egress'],
      undefined,
    ]);
    for (const { spec } of policies) {
      for (const { from, ports } of spec?.ingress ?? []) expect([from?.length, ports?.length]).not.toContain(undefined);
      for (const { to, ports } of spec?.egress ?? []) expect([to?.length, ports?.length]).not.toContain(undefined);
    }
  });

  it.each(OVERLAYS)('%s: every port that a Service or a PodMonitor names can be reached', (overlay) => {
    const manifests = manifestsOf(overlay);
    const used = [
      ...manifests.ofKind<IService>('Service').flatMap(({ spec }) => {
        return (spec?.ports ?? []).map(({ targetPort }) => ({ selector: spec?.selector, port: targetPort as unknown }));
      }),
      ...manifests.ofKind<PodMonitor>('PodMonitor').flatMap(({ spec }) => {
        return spec.podMetricsEndpoints.map(({ port }) => ({ selector: spec.selector.matchLabels, port }));
      }),
    ];
    expect(used.length).toBeGreaterThan(0);
    for (const { selector, port } of used) {
      const workload = manifests.workloads.find((one) => selects(selector, podLabels(one)));
      if (!workload) throw new Error(`nothing has the labels ${JSON.stringify(selector)}`);
      expect(peers(manifests, 'Ingress', podLabels(workload), portNumber(workload, port))).not.toEqual([]);
    }
  });

  it.each(OVERLAYS)('%s: processes reach Redis, the auth service and DNS, from both ends', (overlay) => {
    const manifests = manifestsOf(overlay);
    const services = manifests.ofKind<IService>('Service');
    const secrets = { SERVICE_SECRET: randomSecret(), REDIS_URL: 'rediss://redis.example.com:6380' };
    for (const workload of manifests.processes) {
      const labels = podLabels(workload);
      const { REDIS_URL, AUTH_SERVICE_URL } = environmentOf(workload, manifests, secrets);
      for (const target of [REDIS_URL, AUTH_SERVICE_URL]) {
        const { hostname, port, protocol } = new URL(target ?? '');
        const number = Number(port || (protocol === 'https:' ? 443 : 6_379));
        const service = services.find(({ metadata }) => metadata.name === hostname);
        const out = peers(manifests, 'Egress', labels, number);
        if (!service) {
          expect(out.map(({ ipBlock }) => ipBlock?.cidr)).toContain('0.0.0.0/0');
          continue;
        }
        const server = manifests.workloads.find((one) => selects(service.spec?.selector, podLabels(one))) as Workload;
        const isSelf = server.metadata.name === workload.metadata.name;
        if (isSelf) continue;
        expect(allowsPod(out, podLabels(server))).toBe(true);
        expect(allowsPod(peers(manifests, 'Ingress', podLabels(server), number), labels)).toBe(true);
      }
      expect(JSON.stringify(peers(manifests, 'Egress', labels, 53))).toContain('kube-system');
    }
  });

  it.each(OVERLAYS)('%s: Redis is for the processes of Tollgate alone', (overlay) => {
    for (const { spec } of manifestsOf(overlay).workloads) {
      const labels = spec?.template.metadata?.labels ?? {};
      if (labels['app.kubernetes.io/name'] !== 'redis') continue;
      const from = peers(manifestsOf(overlay), 'Ingress', labels, 6_379);
      expect(from).toEqual([{ podSelector: { matchLabels: { 'app.kubernetes.io/name': 'tollgate' } } }]);
    }
  });

  it('postgres-archive: only gateways and workers have its address and reach it', () => {
    const manifests = buildWith(['postgres-archive']);
    const [archive] = manifests.workloads.filter((one) => podLabels(one)['app.kubernetes.io/name'] === 'postgres');
    const secrets = {
      SERVICE_SECRET: randomSecret(),
      JWT_SECRET_KEY: randomSecret(),
      DEMO_PASSWORD: 'demo',
      ARCHIVE_PASSWORD: 'generated',
      REDIS_URL: 'redis://redis:6379',
    };
    const address = 'postgres://tollgate:generated@tollgate-archive:5432/tollgate';
    expect(manifests.processes).toHaveLength(2);
    for (const workload of manifests.processes) {
      const { USAGE_ARCHIVE_URL } = environmentOf(workload, manifests, secrets);
      expect(USAGE_ARCHIVE_URL).toBe(address);
      const sound = { ...secrets, AUTH_SERVICE_URL: 'http://auth:8081', USAGE_ARCHIVE_URL: address };
      expect(loadConfig(sound).USAGE_ARCHIVE_URL).toBe(address);
      expect(allowsPod(peers(manifests, 'Egress', podLabels(workload), 5_432), podLabels(archive as Workload))).toBe(
        true,
      );
    }
    const auth = buildWith(['auth-service', 'postgres-archive']).get<Workload>('Deployment', 'tollgate-auth');
    expect(JSON.stringify(auth)).not.toContain('ARCHIVE');
  });
});

interface PodMonitor {
  readonly spec: {
    readonly selector: { readonly matchLabels: Labels };
    readonly podMetricsEndpoints: readonly { readonly port: string }[];
  };
}
