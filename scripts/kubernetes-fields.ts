import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { PROJECT_ROOT } from './lib/processes.ts';

/**
 * Writes the fields of the used kinds in several versions of Kubernetes to test/k8s/fields, for the tests of the manifests:
 *
 *     node scripts/kubernetes-fields.ts
 *
 * The source is the official JavaScript client, which is generated from the OpenAPI document of one version each. Its
 * packages are read and not installed, because together they have a hundred dependencies.
 */
const CLIENTS: Readonly<Record<string, string>> = {
  '1.32': '1.1.2',
  '1.33': '1.3.0',
  '1.34': '1.4.0',
  '1.36': '2.0.1',
};

const KINDS = [
  ...['V1Namespace', 'V1ConfigMap', 'V1Secret', 'V1Service', 'V1ServiceAccount', 'V1Deployment', 'V1StatefulSet'],
  ...['V2HorizontalPodAutoscaler', 'V1Ingress', 'V1NetworkPolicy', 'V1PodDisruptionBudget', 'V1Job'],
];

interface Model {
  readonly attributeTypeMap: readonly { readonly baseName: string; readonly type: string }[];
}

/** Returns the fields of a type and of all types that it contains, each as `name:type`. */
async function collect(models: string, type: string, into: Record<string, string>): Promise<void> {
  if (type in into) return;
  const file = pathToFileURL(join(models, `${type}.js`)).href;
  const { [type]: model } = (await import(file)) as Readonly<Record<string, Model>>;
  if (!model) throw new Error(`${file} has no ${type}`);
  const fields = model.attributeTypeMap.map(({ baseName, type: of }) => [
    baseName,
    of.replace(/^\{ \[key: string\]: (.*); \}$/, 'Map<$1>'),
  ]);
  into[type] = fields.map(([name, of]) => `${name}:${of?.replaceAll(' ', '')}`).join(' ');
  for (const [, of = ''] of fields) {
    const [below] = /\bV\d\w+/.exec(of) ?? [];
    if (below) await collect(models, below, into);
  }
}

for (const [version, client] of Object.entries(CLIENTS)) {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-fields-'));
  try {
    const name = `@kubernetes/client-node@${client}`;
    const [file = ''] = execFileSync('npm', ['pack', '--silent', name], { cwd: folder, encoding: 'utf8' }).split('\n');
    execFileSync('tar', ['xzf', file], { cwd: folder });
    const models = join(folder, 'package/dist/gen/models');
    const [, found] =
      /OpenAPI spec version: (?:v|release-)([\d.]+)/.exec(readFileSync(join(models, 'V1Pod.js'), 'utf8')) ?? [];
    if (!found?.startsWith(version)) throw new Error(`${name} is generated from ${found}`);
    const types: Record<string, string> = {};
    for (const kind of KINDS) await collect(models, kind, types);
    const out = {
      source: name,
      types: Object.fromEntries(Object.entries(types).toSorted(([a], [b]) => (a < b ? -1 : 1))),
    };
    writeFileSync(join(PROJECT_ROOT, `test/k8s/fields/${version}.json`), `${JSON.stringify(out, null, 2)}\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
