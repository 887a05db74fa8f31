/** Answers of the admin API: docs/admin-api.md. */

export interface Overview {
  readonly at: string;
  readonly gateways: number;
  readonly workers: number;
  readonly connections: {
    readonly total: number;
    readonly by_plan: Counts;
    readonly by_transport: Counts;
    readonly by_node: Counts;
    readonly by_state: Counts;
  };
  readonly per_second: Readonly<Record<'messages' | 'runs' | 'events' | 'tool_calls' | 'usage_records', number | null>>;
  readonly first_event: Percentiles & { readonly count: number };
  readonly run_duration: Percentiles & { readonly count: number };
  readonly last_minute: Readonly<
    Record<
      | 'evictions'
      | 'resumes'
      | 'replay_gaps'
      | 'handshakes'
      | 'handshake_failures'
      | 'runs_failed'
      | 'refreshes'
      | 'refresh_failures',
      number
    >
  >;
  readonly refusals: Counts;
  readonly breakers: Readonly<Record<string, string>>;
  readonly queue: { readonly runs: number | null };
  readonly ledger: { readonly lag_seconds: number | null };
  readonly redis: Percentiles & { readonly failures: number };
  readonly event_loop: { readonly p99_ms: number | null };
  readonly memory: { readonly rss_bytes: number | null };
}

export type Counts = Readonly<Record<string, number>>;
export interface Percentiles {
  readonly p50_ms: number | null;
  readonly p99_ms: number | null;
}

export interface Series {
  readonly at: readonly string[];
  /** Each list has the length of `at`; null where no process reported. */
  readonly series: Readonly<Record<string, readonly (number | null)[]>>;
}

export interface Alert {
  readonly name: string;
  readonly severity: string;
  readonly summary: string;
  readonly value: number | null;
  readonly threshold: number | null;
  readonly unit: string | null;
  readonly since: string;
  readonly runbook: string;
}

export interface Node {
  readonly node_id: string;
  readonly role: 'gateway' | 'worker';
  readonly version: string;
  readonly host: string;
  readonly started_at: string;
  readonly uptime_seconds: number;
  readonly draining: boolean;
  readonly connections: number;
  readonly memory: { readonly rss_bytes: number; readonly heap_bytes: number };
  readonly event_loop: { readonly p99_ms: number | null };
  readonly cpu_percent: number | null;
  readonly runs: number;
  readonly this_node: boolean;
}

export interface UserSummary {
  readonly user_id: string;
  readonly email: string | null;
  readonly blocked: boolean;
  readonly plan: string | null;
  readonly connections: number;
}

export interface RefusedUser {
  readonly user_id: string;
  readonly count: number;
  readonly last_at: string;
  readonly codes: readonly { readonly code: string; readonly count: number }[];
}

/** Why requests of a user are refused now. */
export interface RefusalReason {
  readonly code: string;
  readonly because: string;
  readonly until: string | null;
  readonly remedy: string;
  readonly all: boolean;
}

export interface UserLimit {
  readonly name: string;
  readonly used: number;
  readonly limit: number;
  readonly ends_at: string | null;
  readonly reached: boolean;
  readonly code: string;
  readonly refuses: string;
}

export interface Refusal {
  readonly code: string;
  readonly count: number;
  readonly at: string;
  readonly text: string;
}

export interface UserDetail {
  readonly user_id: string;
  readonly email: string | null;
  readonly account: { readonly plan: string | null; readonly blocked: boolean; readonly revoked_before: string | null };
  readonly plan: string | null;
  readonly refused: readonly RefusalReason[];
  readonly limits: readonly UserLimit[];
  /** The latest ones, newest first. */
  readonly refusals: readonly Refusal[];
  readonly connections: readonly UserConnection[];
  readonly connections_total: number;
  /** As in the message `usage_summary`; null without a known plan. */
  readonly usage: UsageSummary | null;
  readonly threads: number;
  readonly event_log: { readonly epoch: string | null; readonly seq: number };
  readonly runs: readonly RunSummary[];
}

export interface UsageSummary {
  readonly runs: { readonly in_flight: { readonly runs: number; readonly limit: number | null } };
  readonly today: { readonly calls: number; readonly units: number };
  readonly this_month: { readonly calls: number; readonly units: number };
}

export interface UserConnection {
  readonly connection_id: string;
  readonly node?: string;
  readonly endpoint?: string;
  readonly opened_at?: string;
  readonly session_id?: string;
  readonly lease_ends_at: string;
}

export interface RunSummary {
  readonly run_id: string;
  readonly user_id?: string;
  readonly status: string;
  readonly agent: string | null;
  readonly thread_id: string | null;
  readonly request_id?: string | null;
  readonly transport?: string | null;
  readonly message?: string | null;
  readonly accepted_at: string | null;
  readonly ended_at: string | null;
  readonly reason?: string | null;
  readonly trace_id?: string | null;
}

export interface RunDetail {
  readonly run: RunSummary & {
    readonly final_response?: string | null;
  };
  readonly events: readonly LoggedEvent[];
  readonly complete: boolean;
}

export interface LoggedEvent {
  readonly seq: number;
  readonly type: string;
  readonly at: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface QueueReport {
  readonly queues: readonly {
    readonly name: string;
    readonly waiting: number;
    readonly active: number;
    readonly delayed: number;
    readonly failed: number;
  }[];
  readonly failed: readonly {
    readonly queue: string;
    readonly job_id: string;
    readonly name: string;
    readonly reason: string;
    readonly attempts: number;
    readonly at: string | null;
  }[];
}

export interface AuditEntry {
  readonly id: string;
  readonly at: string;
  readonly actor: string;
  readonly action: string;
  readonly target: Readonly<Record<string, string>> | null;
  readonly from: string | null;
  readonly user_agent: string | null;
  readonly status: number;
  readonly error: string | null;
  readonly node_id: string;
}

export interface TallyRow {
  readonly user?: string;
  readonly tool?: string;
  readonly plan?: string;
  readonly hour?: string;
  readonly day?: string;
  readonly executions: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly cancelled: number;
  readonly units: number;
  readonly duration_ms: number;
  readonly corrections: number;
  readonly refusals: number;
}

export interface UsageWindow {
  readonly window: string;
  readonly revision: number;
  readonly status: string;
  readonly record_count: number;
  readonly totals: Pick<TallyRow, 'executions' | 'succeeded' | 'failed' | 'units'>;
  readonly first_sequence: number | null;
  readonly last_sequence: number | null;
  readonly sha256: string | null;
  readonly closed_at: string | null;
}

export interface Verification {
  readonly ok: boolean;
  readonly problem: {
    readonly kind: string;
    readonly sequence: number | null;
    readonly record_id: string | null;
    readonly window: string | null;
    readonly what: string;
  } | null;
  readonly checked_records: number;
  readonly checked_windows: number;
  readonly archive: string;
  readonly next: string | null;
}

export interface UsageRecord {
  readonly id: string;
  readonly sequence: number;
  readonly user_id: string;
  readonly plan: string;
  readonly tool: string;
  readonly permission: string;
  readonly status: string;
  readonly units: number;
  readonly run_id: string | null;
  readonly thread_id: string | null;
  readonly transport: string;
  readonly completed_at: string;
  readonly duration_ms: number;
  readonly period: string;
  readonly hash: string;
  readonly corrects?: string;
  readonly reason?: string;
}

export interface RecordPage {
  readonly records: readonly UsageRecord[];
  readonly next_cursor: string;
  readonly has_more: boolean;
}

export interface Consumer {
  readonly consumer: string;
  readonly sequence: number;
  readonly confirmed_at: string;
  readonly service: string;
}

type Row = Readonly<Record<string, unknown>> & { readonly name: string };

export interface CatalogueReport {
  readonly version: string;
  readonly plans: readonly Row[];
  readonly permissions: readonly Row[];
  readonly tools: readonly (Row & {
    readonly description?: string;
    readonly permission?: string;
    readonly units?: number;
  })[];
  readonly agents: readonly (Row & { readonly description?: string })[];
  readonly tool_servers: readonly Row[];
  readonly matrix: {
    readonly plans: readonly string[];
    readonly tools: readonly { readonly tool: string; readonly allowed: Readonly<Record<string, boolean>> }[];
  };
}

export interface CatalogueDiff {
  readonly version: string;
  readonly next_version: string | null;
  readonly valid: boolean;
  readonly mistakes: readonly {
    readonly file: string;
    readonly line: number;
    readonly field: string;
    readonly message: string;
  }[];
  readonly changes: readonly {
    readonly path: string;
    readonly kind: 'added' | 'removed' | 'changed';
    readonly before?: unknown;
    readonly after?: unknown;
  }[];
}

export interface SettingsReport {
  readonly settings: readonly {
    readonly name: string;
    readonly value: string | null;
    readonly source: string;
    readonly secret: boolean;
  }[];
  readonly endpoints: readonly { readonly path: string; readonly description: string }[];
}

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly ms: number | null;
  readonly detail: string | null;
}

export interface Paged {
  readonly next_cursor: string | null;
}
