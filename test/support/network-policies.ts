import type { INetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import { CONNECTIONS, ENDPOINTS, type Endpoint, type Peer } from '../../scripts/lib/connections.ts';
import { type Labels, type Manifests, podLabels } from './manifests.ts';

type Spec = NonNullable<INetworkPolicy['spec']>;
type PolicyPeer = NonNullable<NonNullable<Spec['egress']>[number]['to']>[number];
type Selector = Spec['podSelector'];

/** One direction of one connection as text, such as `worker → Redis TCP 6379`. */
type Flow = string;

const names = Object.keys(ENDPOINTS) as Endpoint[];
const peerOf = (name: Endpoint): Peer => ENDPOINTS[name];

/** Returns the endpoints of the table whose pods the manifests contain. */
function podsOf(manifests: Manifests): Endpoint[] {
  return names.filter((name) => {
    const peer = peerOf(name);
    return 'pods' in peer && manifests.workloads.some((workload) => hasLabels(podLabels(workload), peer.pods));
  });
}

function hasLabels(labels: Labels, wanted: Labels): boolean {
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}

/** @throws Error for an operator other than `In`, which the manifests do not use */
function matches(selector: Selector, labels: Labels): boolean {
  const { matchLabels = {}, matchExpressions = [] } = selector ?? {};
  return (
    hasLabels(labels, matchLabels as Labels) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      if (operator !== 'In') throw new Error(`the operator ${operator} is not known here`);
      return values.includes(labels[key] ?? '');
    })
  );
}

function labelsOf(name: Endpoint): Labels {
  const peer = peerOf(name);
  return 'pods' in peer ? peer.pods : {};
}

/**
 * Returns what the policies of a kustomization allow, per pod and direction.
 * @throws Error for a rule without peers or ports, which would be open to all
 */
export function allowedFlows(manifests: Manifests): Set<Flow> {
  const pods = podsOf(manifests);
  const flows = manifests.ofKind<INetworkPolicy>('NetworkPolicy').flatMap(({ metadata, spec }) => {
    const own = pods.filter((name) => matches(spec?.podSelector, labelsOf(name)));
    const rules = [
      ...(spec?.egress ?? []).map(({ to, ports }) => ({ out: true, peers: to, ports })),
      ...(spec?.ingress ?? []).map(({ from, ports }) => ({ out: false, peers: from, ports })),
    ];
    return rules.flatMap(({ out, peers, ports }) => {
      if (!peers?.length || !ports?.length) throw new Error(`${metadata.name} has a rule that is open to all`);
      const named = peers.flatMap((peer) => describePeer(peer, pods));
      return own.flatMap((pod) =>
        named.flatMap((peer) =>
          ports.map(({ port, protocol = 'TCP' }) => {
            return out ? `${pod} → ${peer} ${protocol} ${port}` : `${pod} ← ${peer} ${protocol} ${port}`;
          }),
        ),
      );
    });
  });
  return new Set(flows);
}

function describePeer({ podSelector, namespaceSelector, ipBlock }: PolicyPeer, pods: readonly Endpoint[]): string[] {
  if (ipBlock) return [`${ipBlock.cidr} without ${(ipBlock.except ?? []).join()}`];
  const namespace = namespaceSelector?.matchLabels?.['kubernetes.io/metadata.name'];
  if (namespaceSelector) return [`namespace ${namespace}${podSelector ? ` ${JSON.stringify(podSelector)}` : ''}`];
  return pods.filter((name) => matches(podSelector, labelsOf(name)));
}

/** Returns what the table requires of a kustomization with these components. */
export function expectedFlows(manifests: Manifests, components: readonly string[]): Set<Flow> {
  const pods = podsOf(manifests);
  const text = (name: Endpoint): string => {
    const peer = peerOf(name);
    if ('pods' in peer) return name;
    return 'namespace' in peer
      ? `namespace ${peer.namespace}`
      : `${peer.address} without ${(peer.except ?? []).join()}`;
  };
  const isPod = (name: Endpoint) => 'pods' in peerOf(name);
  const isThere = (name: Endpoint) => !isPod(name) || pods.includes(name);
  const active = CONNECTIONS.filter(({ component }) => component === 'base' || components.includes(component));
  const flows = active.flatMap(({ from, to, ports, udp }) => {
    const pairs = from
      .filter(isThere)
      .flatMap((source) => to.filter(isThere).map((target) => [source, target] as const));
    return pairs.flatMap(([source, target]) =>
      ports.flatMap((port) => {
        const end = `${udp ? 'UDP' : 'TCP'} ${port}`;
        return [
          ...(isPod(source) ? [`${source} → ${text(target)} ${end}`] : []),
          ...(isPod(target) ? [`${target} ← ${text(source)} ${end}`] : []),
        ];
      }),
    );
  });
  return new Set(flows);
}
