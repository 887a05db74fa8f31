import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from '@jest/globals';
import type { IService } from 'kubernetes-models/v1/Service';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { buildOverlay, COMPONENTS, type Manifests, OVERLAYS } from '../support/manifests.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';

const DOCUMENTS = [
  'README.md',
  'k8s/README.md',
  ...readdirSync(join(PROJECT_ROOT, 'docs')).map((name) => `docs/${name}`),
];
const KINDS: Readonly<Record<string, string>> = {
  deployment: 'Deployment',
  service: 'Service',
  statefulset: 'StatefulSet',
  'deployment.apps': 'Deployment',
  'networkpolicy.networking.k8s.io': 'NetworkPolicy',
};
const text = DOCUMENTS.filter((name) => name.endsWith('.md'))
  .map((name) => readFileSync(join(PROJECT_ROOT, name), 'utf8'))
  .join('\n');

describeWith(KUBECTL, 'the commands of the documents', () => {
  let built: readonly Manifests[];

  beforeAll(() => {
    built = OVERLAYS.map((overlay) => buildOverlay(overlay));
  }, 60_000);

  it('name objects that the overlays have', () => {
    const named = [...text.matchAll(/\b([a-z0-9.]+)\/(tollgate-[a-z]+|allow-[a-z-]+|default-deny)\b/g)].flatMap(
      ([, kind = '', name]) => (kind in KINDS ? [`${KINDS[kind]}/${name}`] : []),
    );
    const known = new Set(built.flatMap(({ all }) => all.map(({ kind, metadata }) => `${kind}/${metadata.name}`)));
    expect(named.length).toBeGreaterThan(10);
    expect(named.filter((object) => !known.has(object))).toEqual([]);
  });

  it('name namespaces, overlays and components that are there', () => {
    const namespaces = built.flatMap((manifests) => manifests.ofKind('Namespace').map(({ metadata }) => metadata.name));
    const asked = [...text.matchAll(/kubectl -n (\S+)/g)].map(([, name = '']) => name);
    expect(asked.length).toBeGreaterThan(10);
    expect(asked.filter((name) => !namespaces.includes(name))).toEqual([]);
    const folders = [...text.matchAll(/\bk8s\/(?:overlays|components)\/[a-z-]+/g)].map(([folder]) => folder);
    expect(folders.length).toBeGreaterThan(5);
    expect(folders.filter((folder) => !existsSync(join(PROJECT_ROOT, folder)))).toEqual([]);
    const table = readFileSync(join(PROJECT_ROOT, 'k8s/README.md'), 'utf8');
    expect(COMPONENTS.filter((name) => !table.includes(`\`${name}\``))).toEqual([]);
  });

  it('forward the ports that the Services have', () => {
    const forwarded = [...text.matchAll(/port-forward service\/(\S+) (?:\d+:)?(\d+)/g)];
    expect(forwarded.length).toBeGreaterThan(1);
    const services = built.flatMap((manifests) => manifests.ofKind<IService>('Service'));
    const ports = new Map(services.map(({ metadata, spec }) => [metadata.name, spec?.ports?.map(({ port }) => port)]));
    for (const [, name = '', port] of forwarded) expect(ports.get(name)).toContain(Number(port));
  });
});
