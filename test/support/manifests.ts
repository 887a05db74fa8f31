import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { IDeployment } from 'kubernetes-models/apps/v1/Deployment';
import type { IStatefulSet } from 'kubernetes-models/apps/v1/StatefulSet';
import type { IContainer } from 'kubernetes-models/v1/Container';
import { parseAllDocuments, stringify } from 'yaml';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from './open-resources.ts';
import { KUBECTL } from './programs.ts';

export const OVERLAYS = readdirSync(join(PROJECT_ROOT, 'k8s/overlays'));
export const COMPONENTS = readdirSync(join(PROJECT_ROOT, 'k8s/components'));

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
}

export type Workload = Manifest & (IDeployment | IStatefulSet);
export type Labels = Readonly<Record<string, string>>;

/** The output of a kustomization. */
export class Manifests {
  readonly all: readonly Manifest[];

  constructor(all: readonly Manifest[]) {
    this.all = all;
  }

  ofKind<T extends object>(kind: string): (Manifest & T)[] {
    return this.all.filter((manifest) => manifest.kind === kind) as (Manifest & T)[];
  }

  /** @throws Error if it does not exist */
  get<T extends object>(kind: string, name: string): Manifest & T {
    const found = this.ofKind<T>(kind).find((manifest) => manifest.metadata.name === name);
    if (!found) throw new Error(`there is no ${kind} ${name}`);
    return found;
  }

  /** All workloads that create pods. */
  get workloads(): Workload[] {
    return [...this.ofKind<IDeployment>('Deployment'), ...this.ofKind<IStatefulSet>('StatefulSet')];
  }

  /** The Deployments that run the image of this project. */
  get processes(): (Manifest & IDeployment)[] {
    return this.ofKind<IDeployment>('Deployment').filter(
      (one) => podLabels(one)['app.kubernetes.io/name'] === 'tollgate',
    );
  }

  /** Returns the minimum number of replicas of a workload, set by itself or by an autoscaler. */
  leastReplicas({ metadata: { name }, spec }: Workload): number {
    for (const { kind, spec: scaler } of [
      ...this.ofKind<{ spec: Scaler }>('HorizontalPodAutoscaler'),
      ...this.ofKind<{ spec: Scaler }>('ScaledObject'),
    ]) {
      if (scaler.scaleTargetRef.name !== name) continue;
      return (kind === 'ScaledObject' ? scaler.minReplicaCount : scaler.minReplicas) ?? 1;
    }
    return spec?.replicas ?? 1;
  }
}

export interface Scaler {
  readonly scaleTargetRef: { readonly name: string; readonly kind?: string };
  readonly minReplicas?: number;
  readonly maxReplicas?: number;
  readonly minReplicaCount?: number;
  readonly maxReplicaCount?: number;
}

export function podLabels({ spec }: Workload): Labels {
  return spec?.template.metadata?.labels ?? {};
}

/** Returns whether a label selector matches a pod. */
export function selects(selector: Labels | undefined, labels: Labels): boolean {
  return Object.entries(selector ?? {}).every(([name, value]) => labels[name] === value);
}

/** @throws Error unless the workload has exactly one container */
export function onlyContainer({ metadata, spec }: Workload): IContainer {
  const [container, ...others] = spec?.template.spec?.containers ?? [];
  if (!container || others.length > 0) throw new Error(`${metadata.name} has ${others.length + 1} containers`);
  return container;
}

/** Returns the settings that are not secrets. */
export function configOf(manifests: Manifests): Readonly<Record<string, string>> {
  const maps = manifests.ofKind<{ data: Record<string, string> }>('ConfigMap');
  return maps.find(({ metadata }) => metadata.name.startsWith('tollgate-config'))?.data ?? {};
}

/**
 * Returns the environment that the kubelet gives a container: the ConfigMaps, then each variable, in which `$(NAME)`
 * refers to an earlier one.
 * @param secrets for Secrets that are not among the manifests
 * @throws Error if a reference does not exist
 */
export function environmentOf(workload: Workload, manifests: Manifests, secrets: Labels): Record<string, string> {
  const { envFrom = [], env = [] } = onlyContainer(workload);
  const given: Record<string, string> = {};
  for (const { configMapRef, secretRef } of envFrom) {
    if (secretRef?.optional) continue;
    Object.assign(given, manifests.get<{ data: Labels }>('ConfigMap', configMapRef?.name ?? '').data);
  }
  const above: Record<string, string> = {};
  for (const { name, value, valueFrom } of env) {
    const found = value === undefined ? secretValue(valueFrom?.secretKeyRef, manifests, secrets) : expand(value, above);
    if (found !== undefined) above[name] = found;
  }
  return { ...given, ...above };
}

interface SecretKey {
  readonly name?: string;
  readonly key: string;
  readonly optional?: boolean;
}

function secretValue(reference: SecretKey | undefined, manifests: Manifests, secrets: Labels): string | undefined {
  if (!reference) throw new Error('a variable has neither a value nor a secret');
  const own = manifests.ofKind<{ data: Labels }>('Secret').find(({ metadata }) => metadata.name === reference.name);
  const encoded = own?.data[reference.key];
  const value = own ? encoded && Buffer.from(encoded, 'base64').toString() : secrets[reference.key];
  if (value === undefined && !reference.optional) throw new Error(`the secret has no ${reference.key}`);
  return value;
}

function expand(value: string, above: Labels): string {
  return value.replaceAll(/\$\((\w+)\)/g, (_, name: string) => {
    const found = above[name];
    if (found === undefined) throw new Error(`$(${name}) does not stand above the variable that refers to it`);
    return found;
  });
}

/** Builds an overlay with secrets made for this run. */
export function buildOverlay(name: string, change: (kustomization: string) => string = (text) => text): Manifests {
  const root = copyOfK8s();
  const file = join(root, `overlays/${name}/kustomization.yaml`);
  writeFileSync(file, change(readFileSync(file, 'utf8')));
  return build(root, `overlays/${name}`);
}

/** Returns the components that the overlay uses. */
export function componentsOf(overlay: string): string[] {
  const text = readFileSync(join(PROJECT_ROOT, `k8s/overlays/${overlay}/kustomization.yaml`), 'utf8');
  return [...text.matchAll(/^ {2}- \.\.\/\.\.\/components\/([a-z-]+)/gm)].map(([, component = '']) => component);
}

/** A component that an overlay lists in a comment: its name and the change that activates it. */
export interface OptIn {
  readonly overlay: string;
  readonly component: string;
  readonly activate: (kustomization: string) => string;
}

/** Returns the components that the overlay offers in comments of one line. */
export function optInsOf(overlay: string): OptIn[] {
  const text = readFileSync(join(PROJECT_ROOT, `k8s/overlays/${overlay}/kustomization.yaml`), 'utf8');
  return [...text.matchAll(/^ {2}# (- \.\.\/\.\.\/components\/([a-z-]+).*)$/gm)].map(
    ([line, active, component = '']) => {
      return { overlay, component, activate: (kustomization) => kustomization.replace(line, `  ${active}`) };
    },
  );
}

/** Builds the base with these components, and what an overlay has to provide for them. */
export function buildWith(components: readonly string[]): Manifests {
  const root = copyOfK8s();
  mkdirSync(join(root, 'overlays/test'));
  cpSync(join(root, 'overlays/production/site.yaml'), join(root, 'overlays/test/site.yaml'));
  const kustomization = {
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    resources: ['../../base', 'site.yaml'],
    components: components.map((component) => `../../components/${component}`),
  };
  writeFileSync(join(root, 'overlays/test/kustomization.yaml'), stringify(kustomization));
  return build(root, 'overlays/test');
}

function copyOfK8s(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-k8s-'));
  closeAfter('file', () => rmSync(folder, { recursive: true, force: true }));
  cpSync(join(PROJECT_ROOT, 'k8s'), folder, { recursive: true, filter: (file) => !file.endsWith('secrets.env') });
  const secrets = join(folder, 'overlays/dev/secrets.env');
  execFileSync(process.execPath, [join(PROJECT_ROOT, 'scripts/make-secrets.mjs'), secrets]);
  return folder;
}

function build(root: string, path: string): Manifests {
  // Without a cluster and without a user's credentials.
  const env = { PATH: process.env.PATH, HOME: root, KUBECONFIG: '/dev/null' };
  const yaml = execFileSync(KUBECTL.command, ['kustomize', join(root, path)], { env, encoding: 'utf8' });
  return new Manifests(parseAllDocuments(yaml).map((document) => document.toJS() as Manifest));
}
