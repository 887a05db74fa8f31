import { beforeAll, expect, it } from '@jest/globals';
import { CRD_VERSIONS, KUBERNETES_VERSIONS, KubernetesFields } from '../support/kubernetes-fields.ts';
import { isBuiltIn } from '../support/kubernetes-schemas.ts';
import { buildOverlay, buildWith, COMPONENTS, type Manifest, OVERLAYS } from '../support/manifests.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';

describeWith(KUBECTL, 'the manifests on each supported version of Kubernetes', () => {
  let all: readonly Manifest[];

  beforeAll(() => {
    const overlays = OVERLAYS.map((overlay) => buildOverlay(overlay));
    all = [...overlays, ...COMPONENTS.map((component) => buildWith([component]))].flatMap((built) => built.all);
  }, 120_000);

  it('are checked with the oldest supported version and newer ones', () => {
    expect(KUBERNETES_VERSIONS).toEqual(['1.32', '1.33', '1.34', '1.36']);
  });

  it.each(KUBERNETES_VERSIONS)('%s: have no field and no type that it does not know', (version) => {
    const fields = new KubernetesFields(version);
    expect(all.flatMap((manifest) => fields.problems(manifest))).toEqual([]);
    // An object whose kind the version lacks would pass unchecked.
    for (const manifest of all.filter(isBuiltIn)) {
      const unknown = fields.problems({ ...manifest, surplus: 1 } as Manifest);
      expect(unknown).toEqual([`${manifest.kind}/${manifest.metadata.name}.surplus: unknown field`]);
    }
  });

  it('would be refused by a version that lacks one of their fields', () => {
    const worker = structuredClone(all.find(({ kind }) => kind === 'Deployment')) as Deep;
    const [container] = worker.spec.template.spec.containers;
    // Kubernetes 1.33 added it.
    Object.assign(container ?? {}, { lifecycle: { stopSignal: 'SIGTERM' } });
    const problems = (version: string) => new KubernetesFields(version).problems(worker);
    expect(problems('1.32')).toEqual([expect.stringMatching(/lifecycle\.stopSignal: unknown field$/)]);
    expect(problems('1.33')).toEqual([]);
    Object.assign(worker.spec, { replicas: '2' });
    expect(problems('1.36')).toEqual([expect.stringMatching(/spec\.replicas: must be number$/)]);
  });
});

/** The components whose objects a version of CRDs must know. The newest versions are tested by their full schemas. */
const COMPONENTS_WITH_CRDS: Readonly<Record<string, readonly string[]>> = {
  // sessionPersistence came with 1.1.
  'gateway-api-1.0.0': ['gateway-api', 'gateway-api-standard'],
  'keda-2.10.1': ['keda'],
  'prometheus-operator-0.65.1': ['monitoring'],
  'prometheus-operator-0.90.1': ['monitoring'],
};

describeWith(KUBECTL, 'the custom resources on older versions of their CRDs', () => {
  it('are tested with each version that has a file, from the oldest supported one', () => {
    expect(CRD_VERSIONS.toSorted()).toEqual(Object.keys(COMPONENTS_WITH_CRDS));
  });

  it.each(Object.entries(COMPONENTS_WITH_CRDS))(
    '%s: have no field and no type that it does not know',
    (version, of) => {
      const fields = new KubernetesFields(version);
      const custom = buildWith(of).all.filter((manifest) => !isBuiltIn(manifest));
      expect(custom.length).toBeGreaterThan(0);
      for (const manifest of custom) {
        expect([manifest.kind, fields.has(manifest), fields.problems(manifest)]).toEqual([manifest.kind, true, []]);
        const unknown = structuredClone(manifest) as Manifest & { spec: object };
        Object.assign(unknown.spec, { surplus: 1 });
        expect(fields.problems(unknown)).toEqual([
          `${manifest.kind}/${manifest.metadata.name}.spec.surplus: unknown field`,
        ]);
      }
    },
  );

  it('would be refused by a version that lacks one of their fields', () => {
    const route = buildWith(['gateway-api']).all.find(({ kind }) => kind === 'HTTPRoute');
    expect(new KubernetesFields('gateway-api-1.0.0').problems(route as Manifest)).toEqual([
      'HTTPRoute/tollgate.spec.rules.0.sessionPersistence: unknown field',
    ]);
  });
});

interface Deep extends Manifest {
  readonly spec: { readonly template: { readonly spec: { readonly containers: object[] } } };
}
