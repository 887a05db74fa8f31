import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 45];

/** Buckets of round trips to a nearby Redis: 0.5 ms is usual; above 50 ms, a command has waited for others. */
const TRIPS = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1];
const LIFETIMES = [1, 10, 60, 300, 900, 3_600, 14_400, 86_400];
/** Buckets of the remaining lifetime at a refresh; below 0, the connection was degraded for that long. */
const LEADS = [-180, -60, -10, 0, 5, 10, 12, 13, 14, 15, 16, 20, 60];

/**
 * Interval at which the delay of the event loop is sampled, in milliseconds. `tollgate_nodejs_eventloop_lag_*` includes
 * it. Each sample wakes the process: at the 10 ms of `prom-client`, samples were most of the CPU time of an idle
 * process.
 */
export const LOOP_SAMPLE_MS = 50;

/** All metrics of a process. Labels have few values each, never a user. */
export class Metrics {
  readonly registry = new Registry();

  readonly connections = this.#gauge('connections', 'Live connections, by the state of their token', [
    'endpoint',
    'plan',
    'state',
  ]);
  readonly connectionSeconds = this.#histogram(
    'connection_seconds',
    'From admission to the end of the connection',
    [],
    LIFETIMES,
  );
  readonly tokenEvents = this.#counter('token_events_total', 'Events in the token lifecycle of connections', ['event']);
  readonly terminations = this.#counter('token_terminations_total', 'Connections closed because of their token', [
    'reason',
  ]);
  readonly refreshes = this.#counter('token_refreshes_total', 'Refreshes of session tokens by result', ['result']);
  readonly refreshSeconds = this.#histogram(
    'token_refresh_seconds',
    'From the claim of a session to its new token',
    [],
  );
  readonly refreshLead = this.#histogram(
    'token_refresh_lead_seconds',
    'Remaining lifetime of the old token at the refresh',
    [],
    LEADS,
  );
  readonly pending = this.#gauge('pending_connections', 'Connections that have not authenticated yet', []);
  readonly handshakes = this.#counter('handshakes_total', 'Handshakes by endpoint and result', ['endpoint', 'result']);
  readonly longTasks = this.#counter(
    'long_tasks_total',
    'Inputs that blocked the event loop for 10 ms or more, by surface',
    ['surface'],
  );
  readonly evictions = this.#counter('evictions_total', 'Connections closed in favour of a newer one', []);
  readonly closes = this.#counter('closes_total', 'Connections closed by this node', ['code']);
  readonly forcedCloses = this.#counter(
    'forced_closes_total',
    'Connections that did not complete their close in time',
    ['transport'],
  );
  readonly eventStreams = this.#counter('event_streams_total', 'Event streams over HTTP that ended, by result', [
    'transport',
    'result',
  ]);
  readonly messages = this.#counter('messages_total', 'Messages from clients', ['type', 'result']);
  readonly limitDecisions = this.#counter('limit_decisions_total', 'Message limit decisions', ['result', 'counted_by']);
  readonly delivered = this.#counter('events_delivered_total', 'Durable events written to sockets', []);
  readonly resumes = this.#counter('resumes_total', 'Resumes by result', ['result']);
  readonly logReads = this.#counter('event_log_reads_total', 'Pages read from event logs', []);
  readonly appends = this.#counter('event_log_appends_total', 'Events appended to event logs', ['type']);
  readonly runs = this.#counter('runs_total', 'Agent runs by final status', ['status']);
  readonly runSeconds = this.#histogram('run_seconds', 'From the acceptance of a run to its last event', ['status']);
  readonly firstEventSeconds = this.#histogram(
    'run_first_event_seconds',
    'From the acceptance of a run to its first event',
    [],
  );
  readonly inputRequests = this.#counter('input_requests_total', 'Input requests of runs by how they ended', [
    'kind',
    'outcome',
  ]);
  readonly catalogueReloads = this.#counter('catalogue_reloads_total', 'Reloads of plans and tools', ['result']);
  readonly toolCalls = this.#counter('tool_calls_total', 'Tool calls by final status; refusals by error code', [
    'tool',
    'transport',
    'status',
  ]);
  readonly toolSeconds = this.#histogram('tool_seconds', 'Durations of tool executions', ['tool']);
  readonly toolCallsInFlight = this.#gauge(
    'tool_calls_under_way',
    'Tool calls outside runs that this process executes',
    [],
  );
  readonly quotaDecisions = this.#counter('quota_decisions_total', 'Quota decisions for tool calls', ['result']);
  readonly refusedWrites = this.#counter(
    'refused_writes_total',
    'Calls that Redis rejected for lack of memory or disk',
    ['reason'],
  );
  readonly modelRequests = this.#counter('model_requests_total', 'Requests to the model by result', [
    'model',
    'result',
    'reason',
  ]);
  readonly modelTokens = this.#counter('model_tokens_total', 'Tokens of completed steps', ['model', 'kind']);
  readonly agentTurns = this.#counter('agent_turns_total', 'Turns of agents on other servers by result', [
    'agent',
    'result',
  ]);
  readonly agentBreaker = this.#gauge('agent_breaker_state', '0 closed, 1 half open, 2 open', ['server']);
  readonly agentIgnoredEvents = this.#counter(
    'agent_ignored_events_total',
    'Events of agents on other servers that have no meaning for Tollgate',
    ['agent'],
  );
  readonly modelFirstTextSeconds = this.#histogram(
    'model_first_text_seconds',
    'From a model request to its first text',
    [],
  );
  readonly usageRecords = this.#counter('usage_records_total', 'Usage records appended to outboxes', [
    'tool',
    'status',
  ]);
  readonly ledgerRecords = this.#counter('ledger_records_total', 'Usage records ingested into the ledger', []);
  readonly ledgerWindowsClosed = this.#counter('ledger_windows_closed_total', 'Hourly windows that were closed', []);
  readonly ledgerTrimmed = this.#counter('ledger_trimmed_total', 'Records trimmed from the ledger', []);
  readonly ledgerFaults = this.#gauge('ledger_faults', 'Faults that keep windows from closing; alert above 0', [
    'kind',
  ]);
  /** Value of the whole deployment, exported by every worker. Aggregate with the maximum, never the sum. */
  readonly queueJobs = this.#gauge('queue_jobs', 'Jobs in a queue, of all workers', ['queue', 'state']);
  /** Estimate of each worker for the whole queue. Aggregate with the average, never the sum. */
  readonly runQueueWaitSeconds = this.#gauge(
    'run_queue_wait_seconds',
    'Expected wait of a new run for a worker, as estimated by this worker',
    [],
  );
  readonly ledgerRecovered = this.#counter('ledger_recovered_total', 'Records that Redis lost and that were restored', [
    'how',
  ]);
  readonly archiveRecords = this.#counter('archive_records_total', 'Records copied into the archive', []);
  readonly archiveFailures = this.#counter('archive_failures_total', 'Failed attempts to archive', ['reason']);
  /** Value of the whole ledger, exported by every worker. Aggregate with the maximum, never the sum. */
  readonly archiveLagRecords = this.#gauge('archive_lag_records', 'Records that are not yet archived', []);
  readonly archiveLagSeconds = this.#gauge(
    'archive_lag_seconds',
    'Age of the oldest record that is not yet archived',
    [],
  );
  readonly unreplicatedWrites = this.#counter(
    'unreplicated_writes_total',
    'Paid calls that reached fewer than REDIS_WAIT_REPLICAS replicas in time',
    [],
  );
  readonly ledgerLagSeconds = this.#gauge('ledger_lag_seconds', 'Age of the oldest record of the last ingestion', []);
  readonly authServiceRequests = this.#counter('auth_service_requests_total', 'Calls to the auth service by result', [
    'operation',
    'result',
  ]);
  readonly authServiceSeconds = this.#histogram(
    'auth_service_seconds',
    'Calls to the auth service, including retries',
    ['operation'],
  );
  readonly authServiceRetries = this.#counter('auth_service_retries_total', 'Retried requests to the auth service', [
    'operation',
  ]);
  readonly authBreaker = this.#gauge('auth_breaker_state', '0 closed, 1 half open, 2 open', []);
  readonly redisSeconds = this.#histogram('redis_seconds', 'Round trips to Redis on the busiest connection', [], TRIPS);
  readonly redisFailures = this.#counter('redis_failures_total', 'Round trips to Redis without a reply', []);
  readonly upstreamRequests = this.#counter('upstream_requests_total', 'Requests to upstream servers by result', [
    'server',
    'operation',
    'result',
  ]);
  readonly upstreamSeconds = this.#histogram('upstream_call_seconds', 'Tool calls at upstream servers', ['server']);
  readonly upstreamBreaker = this.#gauge('upstream_breaker_state', '0 closed, 1 half open, 2 open', ['server']);
  readonly upstreamOmitted = this.#gauge('upstream_omitted_entries', 'Entries of lists of upstream servers left out', [
    'server',
    'list',
  ]);
  readonly identityKeys = this.#gauge('identity_keys', 'Usable public keys of an identity provider', ['provider']);
  readonly identityKeyFetches = this.#counter(
    'identity_key_fetches_total',
    'Fetches of the keys of an identity provider by result',
    ['provider', 'result'],
  );
  readonly introspections = this.#counter('introspections_total', 'Introspections of tokens by result', ['result']);
  readonly traceSpans = this.#counter('trace_spans_total', 'Trace spans by result', ['result']);

  readonly announcements = this.#counter('announcements_total', 'Invalidations processed by this node', ['kind']);
  readonly announcementLagSeconds = this.#histogram(
    'announcement_lag_seconds',
    'From an invalidation (clock of Redis) to its effect on this node (clock of the node)',
    [],
  );

  constructor() {
    collectDefaultMetrics({
      register: this.registry,
      prefix: 'tollgate_',
      eventLoopMonitoringPrecision: LOOP_SAMPLE_MS,
    });
    this.#initializeToZero();
  }

  /** Initialises counters that alert on a single event: a series that starts with its first event shows no increase. */
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
