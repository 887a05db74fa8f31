import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAllDocuments, stringify } from 'yaml';
import { PROJECT_ROOT } from './lib/processes.ts';

/**
 * Writes the templates of the Helm chart from the kustomization that the overlays production and staging are made of:
 *
 *     node scripts/helm-chart.ts
 *
 * It builds the base with placeholders as values, and replaces these by expressions of the chart's values. kustomize is
 * the source; test/k8s/helm.test.ts compares the result with the stored file and, with helm, with the overlay production.
 */
const COMPONENTS = ['external-services', 'ingress-haproxy'];

/** Placeholders in the output of kustomize, and the expression for each. */
const EXPRESSIONS: readonly (readonly [placeholder: RegExp, expression: string])[] = [
  [/helm-repository:helm-tag/g, '"{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"'],
  [/helm-host\.example\.com/g, '{{ .Values.host | quote }}'],
  [/\bhelm-namespace\b/g, '{{ .Release.Namespace }}'],
  [/\btollgate-config-[a-z0-9]{10}\b/g, 'tollgate-config'],
  [/\bhelm-checksum\b/g, '{{ toJson .Values.config | sha256sum }}'],
  [/\b990001\b/g, '{{ .Values.workers.replicas }}'],
  [/\b990002\b/g, '{{ .Values.gateways.minReplicas }}'],
  [/\b990003\b/g, '{{ .Values.gateways.maxReplicas }}'],
  [/\bhaproxy-controller\b/g, '{{ .Values.ingress.controllerNamespace }}'],
  [/\btollgate-secrets\b/g, '{{ .Values.secretName }}'],
  [/\btollgate-tls\b/g, '{{ .Values.ingress.tlsSecretName }}'],
];

const CONFIG_DATA =
  '{{- range $name, $value := .Values.config }}\n  {{ $name }}: {{ $value | toString | quote }}\n{{- end }}';

interface Object_ {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  data?: unknown;
  readonly spec?: { readonly template?: { readonly metadata: { annotations?: Record<string, string> } } };
}

function kustomization(): string {
  return stringify({
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    namespace: 'helm-namespace',
    resources: ['../../base', 'site.yaml'],
    components: COMPONENTS.map((name) => `../../components/${name}`),
    images: [{ name: 'tollgate', newName: 'helm-repository', newTag: 'helm-tag' }],
    replicas: [{ name: 'tollgate-worker', count: 990_001 }],
    patches: [
      {
        target: { kind: 'HorizontalPodAutoscaler', name: 'tollgate-gateway' },
        patch: stringify([
          { op: 'replace', path: '/spec/minReplicas', value: 990_002 },
          { op: 'replace', path: '/spec/maxReplicas', value: 990_003 },
        ]),
      },
    ],
  });
}

function site(): string {
  return stringify({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'tollgate-site', annotations: { 'config.kubernetes.io/local-config': 'true' } },
    data: { host: 'helm-host.example.com', namespace: 'helm-namespace' },
  });
}

/** Returns the output of kustomize with placeholders. @throws Error without kubectl */
function build(): Object_[] {
  const root = mkdtempSync(join(tmpdir(), 'tollgate-helm-'));
  try {
    for (const folder of ['base', 'components'])
      cpSync(join(PROJECT_ROOT, 'k8s', folder), join(root, folder), { recursive: true });
    const overlay = join(root, 'overlays/helm');
    mkdirSync(overlay, { recursive: true });
    writeFileSync(join(overlay, 'kustomization.yaml'), kustomization());
    writeFileSync(join(overlay, 'site.yaml'), site());
    const env = { PATH: process.env.PATH, HOME: root, KUBECONFIG: '/dev/null' };
    const text = execFileSync('kubectl', ['kustomize', overlay], { env, encoding: 'utf8' });
    return parseAllDocuments(text).map((document) => document.toJS() as Object_);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function template(object: Object_): string {
  if (object.kind === 'ConfigMap') object.data = 'helm-config';
  // A changed value starts a rolling update, as the name of the ConfigMap does with kustomize.
  if (object.kind === 'Deployment' && object.spec?.template) {
    object.spec.template.metadata.annotations = { 'checksum/config': 'helm-checksum' };
  }
  const plain = stringify(object, { lineWidth: 0 });
  const filled = EXPRESSIONS.reduce((text, [placeholder, expression]) => text.replace(placeholder, expression), plain);
  const text = filled.replace('data: helm-config', `data:\n${CONFIG_DATA}`);
  return object.kind === 'Ingress' ? `{{- if .Values.ingress.enabled }}\n${text}{{- end }}\n` : text;
}

/** Returns the template of all objects but the namespace, which `helm install --create-namespace` makes. */
export function chartTemplate(): string {
  const objects = build().filter(({ kind }) => kind !== 'Namespace');
  return `# Written by scripts/helm-chart.ts from k8s/base and k8s/components; do not edit.\n---\n${objects.map(template).join('---\n')}`;
}

export const TEMPLATE_FILE: string = join(PROJECT_ROOT, 'deploy/helm/tollgate/templates/tollgate.yaml');

if (import.meta.main) writeFileSync(TEMPLATE_FILE, chartTemplate());
