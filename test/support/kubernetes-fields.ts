import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { Manifest } from './manifests.ts';

const FOLDER = join(PROJECT_ROOT, 'test/k8s/fields');

/** The versions of Kubernetes whose fields `scripts/kubernetes-fields.ts` has written. */
export const KUBERNETES_VERSIONS = readdirSync(FOLDER).map((name) => name.replace('.json', ''));

/** The fields of one version of Kubernetes, with their types. */
export class KubernetesFields {
  readonly #types: Readonly<Record<string, string>>;

  constructor(version: string) {
    const { types } = JSON.parse(readFileSync(join(FOLDER, `${version}.json`), 'utf8')) as {
      types: Readonly<Record<string, string>>;
    };
    this.#types = types;
  }

  /** Returns the unknown fields and wrong types of an object; CRDs are not part of the document, so they have none. */
  problems(manifest: Manifest): string[] {
    const [, version = ''] = /(?:^|\/)v(\d+)$/.exec(manifest.apiVersion) ?? [];
    const type = `V${version}${manifest.kind}`;
    return type in this.#types ? this.#object(manifest, type, `${manifest.kind}/${manifest.metadata.name}`) : [];
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
