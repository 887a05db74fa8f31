import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 45];

/** Everything that Tollgate counts. One object a process, handed down; labels have few values each, never a user. */
export class Metrics {
  readonly registry = new Registry();

  readonly connections = this.#gauge('connections', 'Live connections', ['endpoint', 'plan']);
  readonly pending = this.#gauge('pending_connections', 'Connections that have not authenticated yet', []);
  readonly handshakes = this.#counter('handshakes_total', 'Handshakes by endpoint and result', ['endpoint', 'result']);
  readonly evictions = this.#counter('evictions_total', 'Connections closed in favour of a newer one', []);
  readonly closes = this.#counter('closes_total', 'Connections closed by this node', ['code']);
  readonly messages = this.#counter('messages_total', 'Messages from clients', ['type', 'result']);
  readonly limitDecisions = this.#counter('limit_decisions_total', 'Message limit decisions', ['result', 'counted_by']);
  readonly delivered = this.#counter('events_delivered_total', 'Durable events written to sockets', []);
  readonly resumes = this.#counter('resumes_total', 'Resumes by result', ['result']);
  readonly logReads = this.#counter('event_log_reads_total', 'Pages read from event logs', ['reason']);
  readonly appends = this.#counter('event_log_appends_total', 'Events appended to event logs', ['type']);
  readonly runs = this.#counter('runs_total', 'Agent runs by how they ended', ['status']);
  readonly runSeconds = this.#histogram('run_seconds', 'From a run accepted to its last event', ['status']);
  readonly firstEventSeconds = this.#histogram('run_first_event_seconds', 'From a run accepted to its first event', []);
  readonly usageRecords = this.#counter('usage_records_total', 'Usage records appended to outboxes', [
    'tool',
    'status',
  ]);
  readonly ledgerRecords = this.#counter('ledger_records_total', 'Usage records folded into the ledger', []);
  /** Of the whole installation, told by every worker: take the maximum over them, never the sum. */
  readonly queueJobs = this.#gauge('queue_jobs', 'Jobs in a queue, of all workers', ['queue', 'state']);
  readonly ledgerLagSeconds = this.#gauge('ledger_lag_seconds', 'Age of the oldest record folded last', []);

  constructor() {
    collectDefaultMetrics({ register: this.registry, prefix: 'tollgate_' });
  }

  #counter<Label extends string>(name: string, help: string, labelNames: readonly Label[]): Counter<Label> {
    return new Counter({ name: `tollgate_${name}`, help, labelNames, registers: [this.registry] });
  }

  #gauge<Label extends string>(name: string, help: string, labelNames: readonly Label[]): Gauge<Label> {
    return new Gauge({ name: `tollgate_${name}`, help, labelNames, registers: [this.registry] });
  }

  #histogram<Label extends string>(name: string, help: string, labelNames: readonly Label[]): Histogram<Label> {
    return new Histogram({ name: `tollgate_${name}`, help, labelNames, buckets: SECONDS, registers: [this.registry] });
  }
}
