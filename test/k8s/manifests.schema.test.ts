import { expect, it } from '@jest/globals';
import { schemaProblems } from '../support/kubernetes-schemas.ts';
import { buildOverlay, buildWith, COMPONENTS, type Manifest, type Manifests, OVERLAYS } from '../support/manifests.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';

async function problemsOf(manifests: Manifests): Promise<string[]> {
  return (await Promise.all(manifests.all.map(schemaProblems))).flat();
}

describeWith(KUBECTL, 'the manifests', () => {
  it.each(OVERLAYS)(
    'of the overlay %s are built, and are what Kubernetes knows, with no unknown field',
    async (overlay) => {
      const manifests = buildOverlay(overlay);
      expect(manifests.processes.length).toBeGreaterThan(1);
      expect(await problemsOf(manifests)).toEqual([]);
    },
  );

  it.each(COMPONENTS)(
    'of the component %s are built onto the base, and are what Kubernetes knows',
    async (component) => {
      expect(await problemsOf(buildWith([component]))).toEqual([]);
    },
  );

  it('would be refused with a wrong type, a missing field, or a field that does not exist, however deep', async () => {
    const gateway = buildOverlay('dev').get<Loose>('Deployment', 'tollgate-gateway');
    const broken = async (change: (deployment: Manifest & Loose) => void) => {
      const deployment = structuredClone(gateway);
      change(deployment);
      return schemaProblems(deployment);
    };
    expect(await broken(({ spec }) => Object.assign(spec, { replicas: 'two' }))).not.toEqual([]);
    expect(await broken(({ spec }) => delete spec.selector)).not.toEqual([]);
    expect(await broken((deployment) => Object.assign(deployment, { specs: {} }))).toEqual([
      'Deployment/tollgate-gateway.specs: unknown field',
    ]);
    expect(
      await broken(({ spec }) => Object.assign(spec.template.spec.containers[0] ?? {}, { livenesProbe: {} })),
    ).toEqual(['Deployment/tollgate-gateway.spec.template.spec.containers[0].livenesProbe: unknown field']);
    expect(await schemaProblems({ apiVersion: 'v2', kind: 'Pod', metadata: { name: 'p' } })).toHaveLength(1);
  });
});

interface Loose {
  readonly spec: { selector?: object; readonly template: { readonly spec: { readonly containers: object[] } } };
}
