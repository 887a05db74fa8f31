import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { parseAllDocuments } from 'yaml';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { ALERT_RULES, AlertWatch, firingAlerts } from '../../src/admin/alerts.ts';
import type { Cluster } from '../../src/admin/cluster-figures.ts';

interface Rule {
  readonly alert: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly runbook_url: string };
}

const read = (path: string) => readFileSync(join(PROJECT_ROOT, path), 'utf8');
function prometheusRules(): Rule[] {
  const documents = parseAllDocuments(read('k8s/components/monitoring/alerts.yaml')).map((one) => one.toJS());
  return documents.flatMap(({ spec }) => spec.groups.flatMap((group: { rules: Rule[] }) => group.rules));
}

function cluster(counters: Record<string, number> = {}, gauges: Record<string, number> = {}): Cluster {
  const worker = { node_id: 'worker_1', connections: 0, started_at: '2026-11-30T12:00:00.000Z' };
  return { at: 1_000, gateways: [], workers: [worker], figures: { counters, gauges } };
}
const names = (one: Cluster) => firingAlerts(one).map(({ name }) => name);

describe('the alerts of the console', () => {
  it('have the name, severity, summary and runbook paragraph of those of Prometheus', () => {
    const rules = prometheusRules();
    const runbook = read('docs/runbook.md');
    for (const [name, { severity, summary }] of Object.entries(ALERT_RULES)) {
      const rule = rules.find(({ alert }) => alert === name);
      expect([name, rule?.labels.severity, rule?.annotations.summary]).toEqual([name, severity, summary]);
      expect(runbook).toContain(`\n## ${name}\n`);
    }
  });

  it('are silent without traffic, and name a missing worker', () => {
    expect(names(cluster())).toEqual([]);
    expect(names({ ...cluster(), workers: [] })).toEqual(['TollgateNoWorker']);
  });

  it.each([
    ['TollgateRunsFail', { runs: 100, 'runs.failed': 6 }, {}, { 'runs.failed': 5 }],
    ['TollgateRedisSlow', { 'redis.le.0.1': 100 }, {}, { 'redis.le.0.1': 0, 'redis.le.0.05': 100 }],
    [
      'TollgateFirstEventSlow',
      { 'first_event.le.0.25': 6, 'first_event.le.0.1': 94 },
      {},
      { 'first_event.le.0.25': 4 },
    ],
    ['TollgateHandshakesFail', { handshakes: 100, 'handshakes.faults': 2 }, {}, { 'handshakes.faults': 1 }],
    ['TollgateStoreFull', { refused_writes: 1 }, {}, { refused_writes: 0 }],
  ])('fire above the threshold and not at it: %s', (name, counters, gauges, changes) => {
    expect(names(cluster(counters, gauges))).toEqual([name]);
    expect(names(cluster({ ...counters, ...changes }, gauges))).toEqual([]);
  });

  it('say since when they fire, until they stop', () => {
    const watch = new AlertWatch();
    const at = (time: number, failed: number) => watch.look({ ...cluster({ refused_writes: failed }), at: time });
    expect(at(1_000, 1)[0]?.since).toBe('1970-01-01T00:00:01.000Z');
    expect(at(9_000, 1)[0]?.since).toBe('1970-01-01T00:00:01.000Z');
    expect(at(10_000, 0)).toEqual([]);
    expect(at(11_000, 1)[0]).toMatchObject({
      since: '1970-01-01T00:00:11.000Z',
      runbook: 'runbook.md#tollgatestorefull',
    });
  });
});
