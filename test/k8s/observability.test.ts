import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { parse } from 'yaml';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import type { QueueLoad } from '../../src/runs/run-admission.ts';
import { StreamRunQueue } from '../../src/runs/stream-run-queue.ts';
import { watchQueue } from '../../workers/queue-watch.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { stack, testRedisUrl } from '../support/stack.ts';
import { until } from '../support/until.ts';

const read = (path: string) => readFileSync(join(PROJECT_ROOT, path), 'utf8');
const MONITORING = 'k8s/components/monitoring';
/** The series of a histogram. */
const HISTOGRAM_SUFFIXES = ['', '_bucket', '_sum', '_count'];

/** Labels that Prometheus and the PodMonitors add to every series. */
const TARGET_LABELS = ['namespace', 'pod', 'instance', 'app_kubernetes_io_component'];

function rulesOf(): readonly Rule[] {
  const { spec } = parse(read(`${MONITORING}/alerts.yaml`)) as { spec: { groups: { rules: Rule[] }[] } };
  return spec.groups.flatMap((group) => group.rules);
}

const alertExpressions = () => rulesOf().map(({ expr }) => expr);

function dashboardExpressions(): string[] {
  const { panels } = JSON.parse(read(`${MONITORING}/dashboard.json`)) as { panels: Panel[] };
  return panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
}

function scalerExpressions(): string[] {
  const text = read('k8s/components/keda/scaled-objects.yaml');
  return [...text.matchAll(/^ *query: (.+)$/gm)].map(([, query = '']) => query);
}

/** Returns the metrics of a process with their declared labels. */
function labelsOfMetrics(): [string, readonly string[]][] {
  const metrics = new Metrics();
  return metrics.registry.getMetricsAsArray().map((metric) => {
    // Every metric has these fields, but the types lack them.
    const { name, labelNames = [] } = metric as unknown as { name: string; labelNames?: readonly string[] };
    return [name, labelNames];
  });
}

function labelsOf(matchers: string): string[] {
  return [...matchers.matchAll(/(\w+)(?:=~|!~|!=|=)"/g)].map(([, label = '']) => label);
}

interface Panel {
  readonly targets?: readonly { readonly expr: string }[];
}

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string; readonly runbook_url: string };
}

describe('alerts, dashboards and scalers', () => {
  const known = new Set<string>();

  beforeAll(async () => {
    for (const metric of await new Metrics().registry.getMetricsAsJSON()) {
      const suffixes = String(metric.type) === 'histogram' ? HISTOGRAM_SUFFIXES : [''];
      for (const part of suffixes) known.add(`${metric.name}${part}`);
    }
  });

  it.each([
    `${MONITORING}/alerts.yaml`,
    `${MONITORING}/dashboard.json`,
    'k8s/components/keda/scaled-objects.yaml',
    'k8s/base/gateway-scaling.yaml',
    'k8s/README.md',
    'docs/operations.md',
  ])('%s names only metrics that exist', (file) => {
    const names = [...read(file).matchAll(/\btollgate_[a-z0-9_]+(?![\w*])/g)].map(([name]) => name);
    const foreign = ['tollgate_node', 'tollgate_nodejs_eventloop_lag_', 'tollgate_process_'];
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((name) => !known.has(name) && !foreign.includes(name))).toEqual([]);
  });

  it.each([
    ['alerts', alertExpressions],
    ['dashboard', dashboardExpressions],
    ['scalers', scalerExpressions],
  ] as const)('%s use labels that their metrics have, and distinguish deployments', (_where, expressions) => {
    const labels = new Map(labelsOfMetrics());
    for (const expression of expressions()) {
      const selectors = [...expression.matchAll(/(tollgate_\w+?)(?:_bucket)?(?![\w])(?:\{([^}]*)\})?/g)];
      const own = selectors.flatMap(([, name = '']) => labels.get(name) ?? []);
      const matched = selectors.flatMap(([, name = '', matchers = '']) => {
        return labelsOf(matchers).map((label) => ({ label, known: [...(labels.get(name) ?? []), ...TARGET_LABELS] }));
      });
      const grouped = [...expression.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, names = '']) => names.split(', '));
      const asked = [...matched, ...grouped.map((label) => ({ label, known: [...own, ...TARGET_LABELS, 'le'] }))];
      expect({ expression, foreign: asked.filter(({ label, known }) => !known.includes(label)) }).toEqual({
        expression,
        foreign: [],
      });
      const namespaces = [...matched.map(({ label }) => label), ...grouped].filter((label) => label === 'namespace');
      expect(namespaces.length).toBeGreaterThanOrEqual(selectors.length);
    }
  });

  it('start series of alerts on increases at zero, since a series that starts at 1 has not increased', async () => {
    const asked = alertExpressions().flatMap((expression) => {
      return [...expression.matchAll(/increase\((tollgate_\w+)(?:\{([^}]*)\})?/g)].map(
        ([, name = '', matchers = '']) => {
          return { name, matchers };
        },
      );
    });
    const text = await new Metrics().registry.metrics();
    const begun = (name: string, matchers: string) => new RegExp(`^${name}\\{?.*${matchers}.*\\b0$`, 'm').test(text);
    // Records are appended continuously, by many tools.
    const single = asked.filter(({ name }) => name !== 'tollgate_usage_records_total');
    expect(single.length).toBeGreaterThan(2);
    expect(single.filter(({ name, matchers }) => !begun(name, matchers))).toEqual([]);
  });

  it('tell in every alert what is wrong, what to do, and how urgent it is', () => {
    const rules = rulesOf();
    expect(rules.length).toBeGreaterThan(5);
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
    for (const { alert, expr, labels, annotations } of rules) {
      expect(alert).toMatch(/^Tollgate[A-Z]/);
      expect(expr).toMatch(/absent\(|[<>]/);
      expect(['warning', 'critical']).toContain(labels.severity);
      expect(annotations.summary.length).toBeGreaterThan(10);
      expect(annotations.description.length).toBeGreaterThan(10);
    }
  });

  it('refer in every alert to its section of the runbook, which has a section for no other', () => {
    const sections = read('docs/runbook.md').split(/^## /m).slice(1);
    const titles = sections.map((section) => section.split('\n')[0] ?? '');
    expect(titles).toEqual(rulesOf().map(({ alert }) => alert));
    for (const { alert, annotations } of rulesOf()) {
      expect(annotations.runbook_url).toBe(`docs/runbook.md#${alert.toLowerCase()}`);
    }
    for (const section of sections) expect(section.length).toBeGreaterThan(120);
  });

  it('name in the runbook only metrics and alerts that exist', () => {
    const text = read('docs/runbook.md');
    const named = [...text.matchAll(/`(tollgate_[a-z_0-9]+)/g)].map(([, name = '']) => name);
    expect(named.length).toBeGreaterThan(5);
    expect(named.filter((name) => !known.has(name))).toEqual([]);
    const alerts = [...text.matchAll(/\bTollgate[A-Z]\w+/g)].map(([name]) => name);
    expect(alerts.filter((name) => !rulesOf().some(({ alert }) => alert === name))).toEqual([]);
  });

  it('have a row in the dashboard for each thing that an operator asks about', () => {
    const { panels } = JSON.parse(read(`${MONITORING}/dashboard.json`)) as {
      panels: { type: string; title: string }[];
    };
    const rows = panels.filter(({ type }) => type === 'row').map(({ title }) => title);
    expect(rows).toEqual(
      expect.arrayContaining([
        'Connections',
        'Handshakes',
        'Messages and limits',
        'Runs',
        'Event log and resume',
        'Tokens and the auth service',
        'Usage',
        'Redis',
        'Processes',
      ]),
    );
  });

  it('warn at the thresholds that the product promises', () => {
    const rules = new Map(rulesOf().map(({ alert, expr }) => [alert, expr]));
    // One handshake in a hundred, one credential in ten, the first event, a whole run, a revocation.
    expect(rules.get('TollgateHandshakesFail')).toMatch(/> 0\.01$/);
    expect(rules.get('TollgateAuthenticationRefused')).toMatch(/> 0\.1$/);
    expect(rules.get('TollgateFirstEventSlow')).toMatch(/run_first_event_seconds_bucket.*> 0\.1$/);
    expect(rules.get('TollgateRunsSlow')).toMatch(/run_seconds_bucket/);
    expect(rules.get('TollgateDecisionsSlow')).toMatch(/announcement_lag_seconds_bucket.*> 0\.25$/);
    expect(rules.get('TollgateLedgerLags')).toMatch(/ledger_lag_seconds/);
    expect(rules.get('TollgateRunsWait')).toMatch(/run_queue_wait_seconds\) > 15$/);
  });

  it('can tell what the contract names', () => {
    const named = [
      'connections',
      'handshakes_total',
      'evictions_total',
      'messages_total',
      'limit_decisions_total',
      'run_seconds',
      'run_first_event_seconds',
      'event_log_appends_total',
      'resumes_total',
      'token_refreshes_total',
      'auth_breaker_state',
      'usage_records_total',
      'ledger_lag_seconds',
      'redis_seconds',
      'nodejs_eventloop_lag_p99_seconds',
    ];
    expect(named.filter((name) => !known.has(`tollgate_${name}`))).toEqual([]);
  });

  it('see in the dashboard every metric of the product itself', () => {
    const dashboard = read(`${MONITORING}/dashboard.json`);
    const own = [...known].filter((name) => !/^tollgate_(process|nodejs)_|_(bucket|sum|count)$/.test(name));
    expect(own.filter((name) => !dashboard.includes(name))).toEqual([]);
  });
});

describe('tollgate_queue_jobs', () => {
  let core: Core;

  beforeAll(async () => {
    core = await startCore();
  });

  /** A clock that the test ticks. */
  function tickingClock(): { clock: Clock; tick: () => void } {
    let task = () => {};
    const clock: Clock = {
      now: () => Date.now(),
      after: () => () => {},
      every: (_periodMs, repeated) => {
        task = repeated;
        return () => {};
      },
    };
    return { clock, tick: () => task() };
  }

  const valuesOf = async (metrics: Metrics) => {
    const { values } = await metrics.queueJobs.get();
    return Object.fromEntries(values.map(({ labels, value }) => [`${labels.queue} ${labels.state}`, value]));
  };

  const waitsOf = async (metrics: Metrics) => {
    const { values } = await metrics.runQueueWaitSeconds.get();
    return values.map(({ value }) => value);
  };

  it('counts what waits, follows it, and has no value while Redis is away', async () => {
    const redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
    closeAfter('test', () => (redis.status === 'end' ? undefined : disconnectRedis(redis)));
    const queue = new StreamRunQueue({ redis, keys: core.keys });
    const add = (n: number) => queue.add({ user_id: 'user', run_id: `run_${n}` });
    for (const n of [1, 2, 3]) await add(n);
    const metrics = new Metrics();
    const { clock, tick } = tickingClock();
    const reports: QueueLoad[] = [];
    const durations = { meanMs: 2_000, executing: 0 };
    const report = async (load: QueueLoad) => void reports.push(load);
    const watched = { clock, metrics, logger: silentLogger, durations, report };
    closeAfter('test', watchQueue(queue, watched, { concurrency: 2 }));
    const counted = { 'agent-runs waiting': 3, 'agent-runs active': 0, 'agent-runs delayed': 0 };
    await until(async () => Object.keys(await valuesOf(metrics)).length > 0);
    expect(await valuesOf(metrics)).toEqual(counted);
    expect(await waitsOf(metrics)).toEqual([3]);
    expect(reports).toEqual([{ waiting: 3, slots: 2, mean_ms: 2_000 }]);

    await add(4);
    tick();
    await until(async () => (await valuesOf(metrics))['agent-runs waiting'] === 4);

    await disconnectRedis(redis);
    tick();
    await until(async () => Object.keys(await valuesOf(metrics)).length === 0);
    expect(await waitsOf(metrics)).toEqual([]);
  });

  it('is exported by workers', async () => {
    const [worker] = stack().workers;
    const text = async () => (await fetch(`${worker?.url}/metrics`)).text();
    await until(async () => /^tollgate_queue_jobs\{queue="agent-runs",state="waiting"\} \d+$/m.test(await text()));
  });
});
