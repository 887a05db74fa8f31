import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { Manifest } from './manifests.ts';

const FOLDER = join(PROJECT_ROOT, 'test/k8s');

/** The versions of Kubernetes whose fields `scripts/kubernetes-fields.ts` has written. */
export const KUBERNETES_VERSIONS = namesIn('fields');

/** The versions of CRDs whose fields `scripts/crd-fields.ts` has written. */
export const CRD_VERSIONS = namesIn('crds');

function namesIn(folder: string): string[] {
  return readdirSync(join(FOLDER, folder)).map((name) => name.replace('.json', ''));
}

/** The fields of one version of Kubernetes or of a CRD, with their types. */
export class KubernetesFields {
  readonly #types: Readonly<Record<string, string>>;
  readonly #isCrd: boolean;

  constructor(version: string) {
    this.#isCrd = CRD_VERSIONS.includes(version);
    const file = join(FOLDER, this.#isCrd ? 'crds' : 'fields', `${version}.json`);
    const { types } = JSON.parse(readFileSync(file, 'utf8')) as { types: Readonly<Record<string, string>> };
    this.#types = types;
  }

  /** Returns whether the version has the kind. */
  has(manifest: Manifest): boolean {
    return this.#typeOf(manifest) in this.#types;
  }

  /** Returns the unknown fields and wrong types of an object; none if the version does not have the kind. */
  problems(manifest: Manifest): string[] {
    return this.has(manifest)
      ? this.#object(manifest, this.#typeOf(manifest), `${manifest.kind}/${manifest.metadata.name}`)
      : [];
  }

  #typeOf({ apiVersion, kind }: Manifest): string {
    const [, version = ''] = /(?:^|\/)v(\d+)$/.exec(apiVersion) ?? [];
    return this.#isCrd ? kind : `V${version}${kind}`;
  }

  #object(value: object, type: string, path: string): string[] {
    const fields = new Map(
      (this.#types[type] ?? '').split(' ').map((field) => field.split(/:(.*)/s) as [string, string]),
    );
    return Object.entries(value).flatMap(([name, below]) => {
      const of = fields.get(name);
      return of === undefined ? [`${path}.${name}: unknown field`] : this.#value(below, of, `${path}.${name}`);
    });
  }

  #value(value: unknown, type: string, path: string): string[] {
    const [, outer, inner = ''] = /^(Array|Map)<(.*)>$/.exec(type) ?? [];
    if (outer !== undefined) {
      if (typeof value !== 'object' || value === null || Array.isArray(value) !== (outer === 'Array')) {
        return [`${path}: must be ${outer}`];
      }
      return Object.entries(value).flatMap(([key, below]) => this.#value(below, inner, `${path}.${key}`));
    }
    if (type in this.#types) {
      const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
      return isObject ? this.#object(value, type, path) : [`${path}: must be ${type}`];
    }
    if (!['string', 'number', 'boolean'].includes(type)) return [];

    return typeof value === type ? [] : [`${path}: must be ${type}`];
  }
}
