import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 45];

/** Of Redis next door: half a millisecond is usual, and what is above 50 has waited behind something. */
const TRIPS = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1];
const LIFETIMES = [1, 10, 60, 300, 900, 3_600, 14_400, 86_400];
/** Below 0 a connection was degraded for that long. */
const LEADS = [-180, -60, -10, 0, 5, 10, 12, 13, 14, 15, 16, 20, 60];

/** Everything that Tollgate counts. One object a process, handed down; labels have few values each, never a user. */
export class Metrics {
  readonly registry = new Registry();

  readonly connections = this.#gauge('connections', 'Live connections, by the state of their token', [
    'endpoint',
    'plan',
    'state',
  ]);
  readonly connectionSeconds = this.#histogram('connection_seconds', 'From admission to the end', [], LIFETIMES);
  readonly tokenEvents = this.#counter('token_events_total', 'What happened to the tokens of connections', ['event']);
  readonly terminations = this.#counter('token_terminations_total', 'Connections ended with their token', ['reason']);
  readonly refreshes = this.#counter('token_refreshes_total', 'Refreshes of session tokens by result', ['result']);
  readonly refreshSeconds = this.#histogram('token_refresh_seconds', 'From a session taken to its new token told', []);
  readonly refreshLead = this.#histogram(
    'token_refresh_lead_seconds',
    'Left of the old token when the new one came',
    [],
    LEADS,
  );
  readonly pending = this.#gauge('pending_connections', 'Connections that have not authenticated yet', []);
  readonly handshakes = this.#counter('handshakes_total', 'Handshakes by endpoint and result', ['endpoint', 'result']);
  readonly longTasks = this.#counter(
    'long_tasks_total',
    'Inputs that kept the event loop for 10 ms or more, by where they came in',
    ['surface'],
  );
  readonly evictions = this.#counter('evictions_total', 'Connections closed in favour of a newer one', []);
  readonly closes = this.#counter('closes_total', 'Connections closed by this node', ['code']);
  readonly forcedCloses = this.#counter('forced_closes_total', 'Connections that did not answer their close in time', [
    'transport',
  ]);
  readonly messages = this.#counter('messages_total', 'Messages from clients', ['type', 'result']);
  readonly limitDecisions = this.#counter('limit_decisions_total', 'Message limit decisions', ['result', 'counted_by']);
  readonly delivered = this.#counter('events_delivered_total', 'Durable events written to sockets', []);
  readonly resumes = this.#counter('resumes_total', 'Resumes by result', ['result']);
  readonly logReads = this.#counter('event_log_reads_total', 'Pages read from event logs', []);
  readonly appends = this.#counter('event_log_appends_total', 'Events appended to event logs', ['type']);
  readonly runs = this.#counter('runs_total', 'Agent runs by how they ended', ['status']);
  readonly runSeconds = this.#histogram('run_seconds', 'From a run accepted to its last event', ['status']);
  readonly firstEventSeconds = this.#histogram('run_first_event_seconds', 'From a run accepted to its first event', []);
  readonly catalogueReloads = this.#counter('catalogue_reloads_total', 'Reloads of plans and tools', ['result']);
  readonly toolCalls = this.#counter('tool_calls_total', 'Tool calls by how they ended, refusals by their code', [
    'tool',
    'transport',
    'status',
  ]);
  readonly toolSeconds = this.#histogram('tool_seconds', 'Executions of tools', ['tool']);
  readonly toolCallsInFlight = this.#gauge('tool_calls_under_way', 'Calls outside runs that this process executes', []);
  readonly quotaDecisions = this.#counter('quota_decisions_total', 'Whether a call was within its limits', ['result']);
  readonly refusedWrites = this.#counter('refused_writes_total', 'Calls that Redis was too full to record', ['reason']);
  readonly modelRequests = this.#counter('model_requests_total', 'Requests to the model by result', [
    'model',
    'result',
  ]);
  readonly modelTokens = this.#counter('model_tokens_total', 'Tokens of completed steps', ['model', 'kind']);
  readonly modelFirstTextSeconds = this.#histogram('model_first_text_seconds', 'From a request to its first text', []);
  readonly usageRecords = this.#counter('usage_records_total', 'Usage records appended to outboxes', [
    'tool',
    'status',
  ]);
  readonly ledgerRecords = this.#counter('ledger_records_total', 'Usage records folded into the ledger', []);
  readonly ledgerWindowsClosed = this.#counter('ledger_windows_closed_total', 'Hourly windows that were closed', []);
  readonly ledgerTrimmed = this.#counter('ledger_trimmed_total', 'Records trimmed from the ledger', []);
  readonly ledgerFaults = this.#gauge('ledger_faults', 'What keeps windows from closing; above 0 calls an operator', [
    'kind',
  ]);
  /** Of the whole installation, told by every worker: take the maximum over them, never the sum. */
  readonly queueJobs = this.#gauge('queue_jobs', 'Jobs in a queue, of all workers', ['queue', 'state']);
  readonly ledgerRecovered = this.#counter(
    'ledger_recovered_total',
    'Records that Redis had lost and the ledger has again',
    ['how'],
  );
  readonly archiveRecords = this.#counter('archive_records_total', 'Records copied into the archive', []);
  readonly archiveFailures = this.#counter('archive_failures_total', 'Attempts to archive that failed', ['reason']);
  /** Of the whole ledger, told by every worker: take the maximum over them, never the sum. */
  readonly archiveLagRecords = this.#gauge('archive_lag_records', 'Records that the archive does not have yet', []);
  readonly archiveLagSeconds = this.#gauge('archive_lag_seconds', 'Age of the oldest of them', []);
  readonly unreplicatedWrites = this.#counter(
    'unreplicated_writes_total',
    'Paid calls that fewer replicas had in time than REDIS_WAIT_REPLICAS',
    [],
  );
  readonly ledgerLagSeconds = this.#gauge('ledger_lag_seconds', 'Age of the oldest record folded last', []);
  readonly authServiceRequests = this.#counter('auth_service_requests_total', 'Calls of the auth service by result', [
    'operation',
    'result',
  ]);
  readonly authServiceSeconds = this.#histogram('auth_service_seconds', 'Calls of the auth service, with repetitions', [
    'operation',
  ]);
  readonly authServiceRetries = this.#counter('auth_service_retries_total', 'Repeated requests to the auth service', [
    'operation',
  ]);
  readonly authBreaker = this.#gauge('auth_breaker_state', '0 closed, 1 half open, 2 open', []);
  readonly redisSeconds = this.#histogram('redis_seconds', 'Round trips to Redis on the busiest connection', [], TRIPS);
  readonly redisFailures = this.#counter('redis_failures_total', 'Round trips to Redis that brought no answer', []);
  readonly upstreamRequests = this.#counter('upstream_requests_total', 'Requests to upstream servers by result', [
    'server',
    'operation',
    'result',
  ]);
  readonly upstreamSeconds = this.#histogram('upstream_call_seconds', 'Tool calls at upstream servers', ['server']);
  readonly upstreamBreaker = this.#gauge('upstream_breaker_state', '0 closed, 1 half open, 2 open', ['server']);
  readonly introspections = this.#counter('introspections_total', 'Tokens that were to be introspected', ['result']);
  readonly traceSpans = this.#counter('trace_spans_total', 'Spans of traces by what became of them', ['result']);

  readonly announcements = this.#counter('announcements_total', 'Announcements taken by this node', ['kind']);
  readonly announcementLagSeconds = this.#histogram(
    'announcement_lag_seconds',
    "From an announcement, by Redis's clock, to its effect on this node, by the node's own",
    [],
  );

  constructor() {
    collectDefaultMetrics({ register: this.registry, prefix: 'tollgate_' });
    this.#initializeToZero();
  }

  /** What alerts on a single event: a series that begins with its first event has never increased. */
  #initializeToZero(): void {
    for (const how of ['from_node', 'from_archive', 'restored']) this.ledgerRecovered.inc({ how }, 0);
    for (const reason of ['oom', 'misconf']) this.refusedWrites.inc({ reason }, 0);
    for (const result of ['allowed', 'denied']) this.limitDecisions.inc({ result, counted_by: 'node' }, 0);
    this.catalogueReloads.inc({ result: 'failed' }, 0);
  }

  #counter<Label extends string>(name: string, help: string, labelNames: readonly Label[]): Counter<Label> {
    return new Counter({ name: `tollgate_${name}`, help, labelNames, registers: [this.registry] });
  }

  #gauge<Label extends string>(name: string, help: string, labelNames: readonly Label[]): Gauge<Label> {
    return new Gauge({ name: `tollgate_${name}`, help, labelNames, registers: [this.registry] });
  }

  #histogram<Label extends string>(
    name: string,
    help: string,
    labelNames: readonly Label[],
    buckets: readonly number[] = SECONDS,
  ): Histogram<Label> {
    const registers = [this.registry];
    return new Histogram({ name: `tollgate_${name}`, help, labelNames, buckets: [...buckets], registers });
  }
}
