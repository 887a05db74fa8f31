import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PROJECT_ROOT } from './lib/processes.ts';

/**
 * Writes the fields of the used custom resources in older versions of their CRDs to test/k8s/crds, for the tests of the
 * manifests:
 *
 *     node scripts/crd-fields.ts
 *
 * The source are the type declarations of packages that are generated from the CRDs of one version each. The packages
 * are read and not installed; the newest version of each is installed, and its compiled schemas are used.
 */
const PACKAGES: readonly CrdPackage[] = [
  {
    package: '@kubernetes-models/keda@0.4.2',
    release: 'kedacore/keda/releases/download/v2.10.1/',
    name: 'keda-2.10.1',
    declarations: ['keda.sh/v1alpha1/ScaledObject.d.ts'],
  },
  {
    package: '@kubernetes-models/gateway-api@0.5.1',
    release: 'gateway-api/releases/download/v1.0.0/experimental-install.yaml',
    name: 'gateway-api-1.0.0',
    declarations: ['gateway.networking.k8s.io/v1/HTTPRoute.d.ts'],
  },
  ...(
    [
      ['4.4.4', '0.65.1'],
      ['5.0.1', '0.90.1'],
    ] as const
  ).map(([version, operator]) => ({
    package: `@kubernetes-models/prometheus-operator@${version}`,
    release: `prometheus-operator/releases/download/v${operator}/`,
    name: `prometheus-operator-${operator}`,
    declarations: ['monitoring.coreos.com/v1/PodMonitor.d.ts', 'monitoring.coreos.com/v1/PrometheusRule.d.ts'],
  })),
];

interface CrdPackage {
  readonly package: string;
  /** Part of the URL of the CRDs from which the package is generated. */
  readonly release: string;
  readonly name: string;
  readonly declarations: readonly string[];
}

/** Reads `interface I<Kind> { … }` of a declaration file, and writes one entry per object type into `types`. */
class Declarations {
  readonly #tokens: readonly string[];
  readonly #types: Record<string, string>;
  #at = 0;

  constructor(source: string, types: Record<string, string>) {
    const lines = source.split('\n').filter((line) => !/^ *(?:\/\*|\*)/.test(line));
    const first = lines.findIndex((line) => line.startsWith('export interface I'));
    const body = lines.slice(first, lines.indexOf('}', first) + 1).join('\n');
    const [, kind = ''] = /^export interface I(\w+) /.exec(body) ?? [];
    // The parts between quotes are names and literals.
    const tokens = body.slice(body.indexOf('{')).split('"');
    this.#tokens = tokens.flatMap((part, at) => {
      if (at % 2 === 1) return [JSON.stringify(part)];
      return part
        .replaceAll(/[{}[\]<>?:;|]/g, ' $& ')
        .split(/\s/)
        .filter(Boolean);
    });
    this.#types = types;
    this.#object(kind);
  }

  #object(name: string): void {
    this.#take('{');
    const fields: string[] = [];
    while (this.#next() !== '}') {
      const field = JSON.parse(this.#take()) as string;
      if (this.#next() === '?') this.#take();
      this.#take(':');
      fields.push(`${field}:${this.#type(`${name}.${field}`)}`);
      this.#take(';');
    }
    this.#take('}');
    this.#types[name] = fields.join(' ');
  }

  /** A union of literals has the type of its literals; every other union allows any value. */
  #type(name: string): string {
    const types = new Set([this.#simple(name)]);
    while (this.#next() === '|') {
      this.#take();
      types.add(this.#simple(name));
    }
    const [type = 'any'] = types;
    return types.size === 1 ? type : 'any';
  }

  #simple(name: string): string {
    if (this.#next() === '{') return this.#mapOrObject(name);
    const token = this.#take();
    if (token === 'Array') {
      this.#take('<');
      const item = this.#type(name);
      this.#take('>');
      return `Array<${item}>`;
    }
    if (token.startsWith('"')) return 'string';
    if (/^\d/.test(token)) return 'number';
    return ['string', 'number', 'boolean'].includes(token) ? token : 'any';
  }

  #mapOrObject(name: string): string {
    if (this.#tokens[this.#at + 1] !== '[') {
      this.#object(name);
      return name;
    }
    for (const token of ['{', '[', 'key', ':', 'string', ']', ':']) this.#take(token);
    const value = this.#type(name);
    this.#take(';');
    this.#take('}');
    return `Map<${value}>`;
  }

  #next(): string | undefined {
    return this.#tokens[this.#at];
  }

  #take(expected?: string): string {
    const token = this.#tokens[this.#at++];
    if (token === undefined || (expected !== undefined && token !== expected)) {
      throw new Error(`the declaration has ${token} where ${expected ?? 'a token'} was expected`);
    }
    return token;
  }
}

for (const { package: source, release, name, declarations } of PACKAGES) {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-crds-'));
  try {
    const [file = ''] = execFileSync('npm', ['pack', '--silent', source], { cwd: folder, encoding: 'utf8' }).split(
      '\n',
    );
    execFileSync('tar', ['xzf', file], { cwd: folder });
    const read = (path: string) => readFileSync(join(folder, 'package', path), 'utf8');
    if (!read('package.json').includes(release)) throw new Error(`${source} is not generated from ${release}`);
    const types: Record<string, string> = {};
    for (const path of declarations) new Declarations(read(path), types);
    const out = { source, release, types };
    writeFileSync(join(PROJECT_ROOT, `test/k8s/crds/${name}.json`), `${JSON.stringify(out, null, 2)}\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
