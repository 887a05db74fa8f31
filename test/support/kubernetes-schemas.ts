import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { Manifest } from './manifests.ts';

/** A validator that kubernetes-models compiled from the OpenAPI document of Kubernetes, or from a CRD. */
interface Validate {
  (data: unknown): boolean;
  errors?: {
    readonly instancePath: string;
    readonly message?: string;
    readonly keyword: string;
    readonly params: object;
  }[];
}

const CORE = 'kubernetes-models/_schemas/IoK8sApi';
const PROMETHEUS =
  '@kubernetes-models/prometheus-operator/_schemas/ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1';

/** The used kinds and the files of their schemas; some of these packages do not export them by name. */
const SCHEMAS: Readonly<Record<string, string>> = {
  'v1 Namespace': `${CORE}CoreV1Namespace`,
  'v1 ConfigMap': `${CORE}CoreV1ConfigMap`,
  'v1 Secret': `${CORE}CoreV1Secret`,
  'v1 Service': `${CORE}CoreV1Service`,
  'v1 ServiceAccount': `${CORE}CoreV1ServiceAccount`,
  'apps/v1 Deployment': `${CORE}AppsV1Deployment`,
  'apps/v1 StatefulSet': `${CORE}AppsV1StatefulSet`,
  'autoscaling/v2 HorizontalPodAutoscaler': `${CORE}AutoscalingV2HorizontalPodAutoscaler`,
  'networking.k8s.io/v1 Ingress': `${CORE}NetworkingV1Ingress`,
  'networking.k8s.io/v1 NetworkPolicy': `${CORE}NetworkingV1NetworkPolicy`,
  'policy/v1 PodDisruptionBudget': `${CORE}PolicyV1PodDisruptionBudget`,
  'gateway.networking.k8s.io/v1 HTTPRoute':
    '@kubernetes-models/gateway-api/_schemas/IoK8sSigsGatewayApiApisV1HTTPRoute',
  'keda.sh/v1alpha1 ScaledObject':
    '@kubernetes-models/keda/_schemas/ComGithubKedacoreKedaV2ApisKedaV1alpha1ScaledObject',
  'monitoring.coreos.com/v1 PodMonitor': `${PROMETHEUS}PodMonitor`,
  'monitoring.coreos.com/v1 PrometheusRule': `${PROMETHEUS}PrometheusRule`,
};

/** Returns whether every API server has the kind, without a CRD. */
export function isBuiltIn({ apiVersion, kind }: Manifest): boolean {
  return SCHEMAS[`${apiVersion} ${kind}`]?.startsWith('kubernetes-models/') ?? false;
}

/**
 * Returns everything that an API server refuses with `--validate=strict`: schema violations and unknown fields.
 *
 * The compiled validators ignore unknown fields, so this observes which fields a validator reads. It reads each field
 * that its schema names, and all fields where the schema allows any name. A field that it has not read is unknown.
 */
export async function schemaProblems(manifest: Manifest): Promise<string[]> {
  const name = `${manifest.kind}/${manifest.metadata.name}`;
  const file = SCHEMAS[`${manifest.apiVersion} ${manifest.kind}`];
  if (file === undefined)
    return [`${name}: ${manifest.apiVersion} has no schema in test/support/kubernetes-schemas.ts`];
  const { validate } = (await import(join(PROJECT_ROOT, 'node_modules', `${file}.js`))) as { validate: Validate };
  const watched = new Watched();
  const valid = validate(watched.wrap(manifest));
  const wrong = valid
    ? []
    : (validate.errors ?? []).map((error) => {
        return `${name}${error.instancePath}: ${error.message ?? `${error.keyword} ${JSON.stringify(error.params)}`}`;
      });
  // A validator that stopped at an error has not read everything.
  return wrong.length > 0 ? wrong : watched.unread(manifest, name);
}

/** Objects, with the fields that have been read. */
class Watched {
  readonly #proxies = new WeakMap<object, object>();
  readonly #read = new WeakMap<object, Set<PropertyKey>>();

  wrap(value: object): object {
    const known = this.#proxies.get(value);
    if (known) return known;
    const read = new Set<PropertyKey>();
    this.#read.set(value, read);
    const proxy = new Proxy(value, {
      get: (target, key) => {
        read.add(key);
        const field = Reflect.get(target, key) as unknown;
        return typeof field === 'object' && field !== null ? this.wrap(field) : field;
      },
    });
    this.#proxies.set(value, proxy);
    return proxy;
  }

  unread(value: object, path: string): string[] {
    const read = this.#read.get(value) ?? new Set();
    return Object.entries(value).flatMap(([key, field]) => {
      const here = Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`;
      if (!read.has(key)) return [`${here}: unknown field`];
      return typeof field === 'object' && field !== null ? this.unread(field, here) : [];
    });
  }
}
