import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { isBuiltIn, schemaProblems } from '../support/kubernetes-schemas.ts';
import { buildOverlay, buildWith, COMPONENTS, OVERLAYS, optInsOf } from '../support/manifests.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';

/** The components that require a CRD. */
const WITH_CRDS = ['gateway-api', 'keda', 'monitoring'];
/** Listed after the component that they change. */
const MODIFIERS = ['gateway-api-cookie-name', 'gateway-api-standard'];

describeWith(KUBECTL, 'an overlay on a plain cluster', () => {
  it.each(OVERLAYS)('%s: has only kinds that every API server has', (overlay) => {
    const { all } = buildOverlay(overlay);
    expect(all.length).toBeGreaterThan(10);
    expect(all.filter((manifest) => !isBuiltIn(manifest)).map(({ kind }) => kind)).toEqual([]);
  });

  it('only the listed components require CRDs, and the README states each of them', () => {
    const foreign = COMPONENTS.filter((component) => !buildWith([component]).all.every(isBuiltIn));
    expect(foreign).toEqual(WITH_CRDS);
    const readme = readFileSync(join(PROJECT_ROOT, 'k8s/README.md'), 'utf8');
    const row = (component: string) => readme.split('\n').find((line) => line.startsWith(`| \`${component}\` |`)) ?? '';
    for (const component of COMPONENTS.filter((name) => !MODIFIERS.includes(name))) {
      expect([component, row(component).includes('CRDs of ')]).toEqual([component, WITH_CRDS.includes(component)]);
    }
  });

  const optIns = OVERLAYS.flatMap(optInsOf);

  it('staging and production offer the same optional components, those with CRDs among them', () => {
    const offered = (overlay: string) => optInsOf(overlay).map(({ component }) => component);
    expect(offered('production')).toEqual(offered('staging'));
    expect(offered('production')).toEqual(expect.arrayContaining(['monitoring', 'keda', 'tracing', 'tool-servers']));
  });

  it.each(optIns)(
    '$overlay: $component is active without its comment mark, and nothing else changes',
    async (optIn) => {
      const before = buildOverlay(optIn.overlay);
      const after = buildOverlay(optIn.overlay, optIn.activate);
      expect(after.all).not.toEqual(before.all);
      expect((await Promise.all(after.all.map(schemaProblems))).flat()).toEqual([]);
      // Two autoscalers, or an autoscaler and a number, would conflict.
      for (const workload of after.processes) {
        const scalers = [...after.ofKind('HorizontalPodAutoscaler'), ...after.ofKind('ScaledObject')];
        const own = scalers.filter(({ metadata }) => metadata.name === workload.metadata.name);
        expect(own.length).toBeLessThanOrEqual(1);
        expect([workload.metadata.name, workload.spec?.replicas === undefined]).toEqual([
          workload.metadata.name,
          own.length === 1,
        ]);
      }
    },
  );
});
