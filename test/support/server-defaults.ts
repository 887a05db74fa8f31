import type { Manifest } from './manifests.ts';

/**
 * What the API server adds to an object, as far as the difference that `kubectl apply` computes depends on it. kubectl
 * compares maps field by field and lists of the OpenAPI document with a merge key element by element, so an added field
 * is no difference there. It compares as a whole:
 *
 * - lists without a merge key (`x-kubernetes-list-type: atomic`),
 * - the field names of a map with the patch strategy `retainKeys`, of which `Deployment.spec.strategy` is one.
 *
 * Source: `pkg/apis/<group>/<version>/defaults.go` of Kubernetes 1.36, `api/openapi-spec/swagger.json`, and "Notes on the
 * strategic merge patch" of the Kubernetes documentation.
 */
interface Rule {
  readonly kind: string;
  /** Fields below the object; `*` is every element of a list. */
  readonly path: readonly string[];
  /** The fields that the server adds where they are missing. */
  readonly adds: readonly string[];
  /** The path has these fields only if it exists. */
  readonly unless?: string;
}

const RULES: readonly Rule[] = [
  { kind: 'Deployment', path: ['spec', 'strategy'], adds: ['type'] },
  ...['Deployment', 'StatefulSet'].flatMap((kind): Rule[] => {
    const pod = ['spec', 'template', 'spec'];
    const container = [...pod, 'containers', '*'];
    return [
      {
        kind,
        path: [...pod, 'volumes', '*', 'projected', 'sources', '*', 'serviceAccountToken'],
        adds: ['expirationSeconds'],
      },
      { kind, path: [...container, 'lifecycle', 'preStop', 'httpGet'], adds: ['scheme', 'path'] },
      { kind, path: [...pod, 'tolerations', '*'], adds: ['operator'], unless: 'key' },
    ];
  }),
  { kind: 'StatefulSet', path: ['spec', 'volumeClaimTemplates', '*'], adds: ['apiVersion', 'kind', 'status'] },
  { kind: 'StatefulSet', path: ['spec', 'volumeClaimTemplates', '*', 'spec'], adds: ['volumeMode'] },
  { kind: 'StatefulSet', path: ['spec', 'volumeClaimTemplates', '*', 'status'], adds: ['phase'] },
  ...['ingress', 'egress'].map((direction): Rule => {
    return { kind: 'NetworkPolicy', path: ['spec', direction, '*', 'ports', '*'], adds: ['protocol'] };
  }),
  { kind: 'NetworkPolicy', path: ['spec'], adds: ['policyTypes'] },
  { kind: 'Ingress', path: ['spec', 'rules', '*', 'http', 'paths', '*'], adds: ['pathType'] },
  { kind: 'HorizontalPodAutoscaler', path: ['spec', 'metrics', '*', 'resource', 'target'], adds: ['type'] },
  { kind: 'HorizontalPodAutoscaler', path: ['spec', 'metrics', '*', 'pods', 'target'], adds: ['type'] },
  // CRDs: every list is atomic, and defaults come from the schema.
  { kind: 'HTTPRoute', path: ['spec', 'parentRefs', '*'], adds: ['group', 'kind'] },
  { kind: 'HTTPRoute', path: ['spec', 'rules', '*', 'backendRefs', '*'], adds: ['group', 'kind', 'weight'] },
  { kind: 'HTTPRoute', path: ['spec', 'rules', '*', 'matches', '*', 'path'], adds: ['type', 'value'] },
  { kind: 'HTTPRoute', path: ['spec', 'rules', '*', 'sessionPersistence'], adds: ['type'] },
];

/** Quantities that the server writes in another form, such as 1024Mi (1Gi), 0.5 (500m) and 1000m (1). */
const OTHER_FORM = /^(?:0?\.\d+|\d+\.\d+|\d*000m|(?:1024|2048|4096|8192)[KM]i)$/;

/** Returns the places at which a second `kubectl apply` of the manifest would find a difference. */
export function changesAtSecondApply(manifest: Manifest): string[] {
  const name = `${manifest.kind}/${manifest.metadata.name}`;
  const missing = RULES.filter(({ kind }) => kind === manifest.kind).flatMap(({ path, adds, unless }) => {
    return at(manifest, path).flatMap((found) => {
      if (unless !== undefined && unless in found) return [];
      return adds.filter((field) => !(field in found)).map((field) => `${name} ${path.join('.')}: ${field} is missing`);
    });
  });
  const quantities = [...JSON.stringify(manifest).matchAll(/"(?:cpu|memory|storage|sizeLimit)":"([^"]+)"/g)];
  const rewritten = quantities.flatMap(([, value = '']) => (OTHER_FORM.test(value) ? [`${name}: ${value}`] : []));
  return [...missing, ...rewritten];
}

/** Returns every object at a path. */
function at(value: unknown, [field, ...rest]: readonly string[]): object[] {
  if (typeof value !== 'object' || value === null) return [];
  if (field === undefined) return [value];
  const below = field === '*' ? Object.values(value) : [(value as Readonly<Record<string, unknown>>)[field]];
  return below.flatMap((one) => at(one, rest));
}
