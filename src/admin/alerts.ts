import { percentileMs } from '../figures/figures.ts';
import type { Cluster } from './cluster-figures.ts';

/** An alert whose condition holds now. */
export interface Alert {
  readonly name: string;
  readonly severity: 'critical' | 'warning';
  readonly summary: string;
  readonly value: number;
  readonly threshold: number;
  readonly unit: string;
}

interface Rule extends Omit<Alert, 'name' | 'value'> {
  /** Returns the value to compare, or undefined if there is nothing to measure. */
  readonly measure: (cluster: Cluster) => number | undefined;
  /** The alert fires below the threshold instead of above it. */
  readonly below?: true;
}

const counted = (name: string) => (cluster: Cluster) => cluster.figures.counters[name] ?? 0;
const gauge = (name: string) => (cluster: Cluster) => cluster.figures.gauges[name];
const percentile = (histogram: string, share: number) => (cluster: Cluster) =>
  percentileMs(cluster.figures, histogram, share) ?? undefined;
/** A share in percent; undefined without anything to divide by. */
const share = (part: string, whole: string) => (cluster: Cluster) => {
  const total = counted(whole)(cluster);
  return total === 0 ? undefined : (100 * counted(part)(cluster)) / total;
};
const critical = { severity: 'critical' } as const;
const warning = { severity: 'warning' } as const;

/**
 * The conditions of `k8s/components/monitoring/alerts.yaml` that the figures of the last minute can decide. Prometheus
 * also requires that a condition holds for some minutes; the console shows it at once. A test compares names,
 * severities and summaries with that file.
 */
export const ALERT_RULES: Readonly<Record<string, Rule>> = {
  TollgateNoWorker: {
    ...critical,
    summary: 'No worker answers',
    threshold: 1,
    unit: 'workers',
    below: true,
    measure: ({ workers }) => workers.length,
  },
  TollgateHandshakesFail: {
    ...critical,
    summary: 'More than 1 % of the handshakes fail because of Tollgate',
    threshold: 1,
    unit: '%',
    measure: share('handshakes.faults', 'handshakes'),
  },
  TollgateAuthenticationRefused: {
    ...warning,
    summary: 'Less than 90 % of the handshakes succeed',
    threshold: 10,
    unit: '%',
    measure: share('handshakes.failed', 'handshakes'),
  },
  TollgateRedisAway: {
    ...critical,
    summary: 'Message limits are counted without Redis',
    threshold: 0,
    unit: 'messages',
    measure: counted('limits.local'),
  },
  TollgateRedisSlow: {
    ...warning,
    summary: 'A round trip to Redis takes more than 50 ms (p99)',
    threshold: 50,
    unit: 'ms',
    measure: percentile('redis', 0.99),
  },
  TollgateDecisionsSlow: {
    ...warning,
    summary: 'Revocations and blocks take more than 250 ms to take effect (p99)',
    threshold: 250,
    unit: 'ms',
    measure: percentile('invalidation', 0.99),
  },
  TollgateFirstEventSlow: {
    ...warning,
    summary: 'The first event of a run takes more than 100 ms (p95)',
    threshold: 100,
    unit: 'ms',
    measure: percentile('first_event', 0.95),
  },
  TollgateRunsSlow: {
    ...warning,
    summary: 'Runs take more than 20 s (p99)',
    threshold: 20_000,
    unit: 'ms',
    measure: percentile('run_duration', 0.99),
  },
  TollgateRunsFail: {
    ...critical,
    summary: 'More than 5 % of the runs fail',
    threshold: 5,
    unit: '%',
    measure: share('runs.failed', 'runs'),
  },
  TollgateModelFails: {
    ...warning,
    summary: 'More than 20 % of the requests to the model fail',
    threshold: 20,
    unit: '%',
    measure: share('model_requests.failed', 'model_requests'),
  },
  TollgateQueueGrows: {
    ...warning,
    summary: 'More than 100 runs wait for a worker',
    threshold: 100,
    unit: 'runs',
    measure: gauge('queue.runs'),
  },
  TollgateRunsWait: {
    ...critical,
    summary: 'A new run is expected to wait more than 15 s for a worker',
    threshold: 15,
    unit: 's',
    measure: gauge('queue.wait_seconds'),
  },
  TollgateLedgerLags: {
    ...critical,
    summary: 'Usage records are ingested more than a minute late',
    threshold: 60,
    unit: 's',
    measure: gauge('ledger.lag_seconds'),
  },
  TollgateArchiveLags: {
    ...warning,
    summary: 'The archive is more than five minutes behind the ledger',
    threshold: 300,
    unit: 's',
    measure: gauge('archive.lag_seconds'),
  },
  TollgateRecordsWereLost: {
    ...warning,
    summary: 'Redis lost usage records, which are restored in the ledger',
    threshold: 0,
    unit: 'records',
    measure: counted('ledger.recovered'),
  },
  TollgateWritesNotReplicated: {
    ...warning,
    summary: 'Paid calls are answered without confirmation of the replicas',
    threshold: 0,
    unit: 'writes',
    measure: counted('unreplicated_writes'),
  },
  TollgateStoreFull: {
    ...critical,
    summary: 'Redis is too full to write: paid tools are refused',
    threshold: 0,
    unit: 'writes',
    measure: counted('refused_writes'),
  },
  TollgateCataloguesDiffer: {
    ...warning,
    summary: 'A process could not reload plans and tools',
    threshold: 0,
    unit: 'reloads',
    measure: counted('reloads.failed'),
  },
  TollgateSlowConsumers: {
    ...warning,
    summary: 'Connections are closed because their clients do not read',
    // 0.1 per second, as in Prometheus.
    threshold: 6,
    unit: 'connections',
    measure: counted('slow_consumers'),
  },
  TollgateEventsTrimmed: {
    ...warning,
    summary: 'More than 1 % of the resumes find a replay gap',
    threshold: 1,
    unit: '%',
    measure: share('replay_gaps', 'resumes'),
  },
  TollgateAuthBreakerOpen: {
    ...critical,
    summary: 'The circuit breaker of the auth service is open',
    threshold: 1,
    unit: 'state',
    measure: gauge('auth_breaker'),
  },
  TollgateRefreshesFail: {
    ...warning,
    summary: 'More than 5 % of the token refreshes fail',
    threshold: 5,
    unit: '%',
    measure: share('refreshes.failed', 'refreshes'),
  },
  TollgateLedgerFault: {
    ...critical,
    summary: 'The ledger is inconsistent',
    threshold: 0,
    unit: 'faults',
    measure: gauge('ledger.faults'),
  },
};

/** Returns the alerts whose condition holds, the critical ones first. */
export function firingAlerts(cluster: Cluster): Alert[] {
  const firing = Object.entries(ALERT_RULES).flatMap(([name, { measure, below, ...alert }]): Alert[] => {
    const value = measure(cluster);
    if (value === undefined) return [];
    const fires = below ? value < alert.threshold : value > alert.threshold;
    return fires ? [{ name, ...alert, value: Math.round(value * 100) / 100 }] : [];
  });
  return firing.toSorted((a, b) => a.severity.localeCompare(b.severity) || a.name.localeCompare(b.name));
}

/** Remembers since when each alert fires, as far as this node has looked. */
export class AlertWatch {
  readonly #since = new Map<string, number>();

  /** Returns the alerts that fire now, as the API describes them. */
  look(cluster: Cluster) {
    const alerts = firingAlerts(cluster);
    for (const name of this.#since.keys()) {
      if (!alerts.some((alert) => alert.name === name)) this.#since.delete(name);
    }
    return alerts.map((alert) => {
      const since = this.#since.get(alert.name) ?? cluster.at;
      this.#since.set(alert.name, since);
      const runbook = `runbook.md#${alert.name.toLowerCase()}`;
      return { ...alert, since: new Date(since).toISOString(), runbook };
    });
  }
}
