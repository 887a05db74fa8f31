import { z } from 'zod';
import type { Identity } from './protocol/identity.ts';

/** Names of the BullMQ queues. This module contains the job payloads that gateways and workers share. */
export const QUEUES = {
  agentRuns: 'agent-runs',
  usage: 'usage',
  windows: 'windows',
  sweeps: 'sweeps',
  tokens: 'tokens',
  erasures: 'erasures',
} as const;

/** A run as requested by a client. */
export interface RunRequest {
  readonly identity: Identity;
  readonly connectionId: string;
  readonly requestId: string;
  /** Derived from user and request id, so that a repeated request names the same run on every node. */
  readonly runId: string;
  readonly threadId: string;
  /**
   * True if the client named no thread and `threadId` is that of its connection. If the plan allows no further
   * thread, the run is added to the most recently changed one.
   */
  readonly isThreadImplied?: boolean;
  readonly agent: string | undefined;
  readonly message: string;
  /** Transport of the request, as recorded in usage records. */
  readonly transport: string;
  /** Whether the session was degraded at the time of the request; then the run cannot use paid tools. */
  readonly degraded: boolean;
}

/** An accepted run. */
export interface StartedRun {
  readonly run_id: string;
  /** Differs from the requested thread if the request named none or is a repetition. */
  readonly thread_id: string;
  /** Whether an earlier request with the same request id started the run. */
  readonly isRepeated: boolean;
}

/** The state of a run, as `run_status` reports it. */
export interface RunStatus {
  readonly status: 'queued' | 'running' | 'completed' | 'failed' | 'cancelled' | 'unknown';
  readonly requestId: string | null;
  readonly threadId: string | null;
  readonly ended_at?: string;
  /** Null when the thread no longer contains the answer. */
  readonly final_response?: string | null;
}

/** A run and the position of its events in the event log of its user. */
export interface LocatedRun {
  readonly runId: string;
  readonly status: 'queued' | 'running' | 'completed' | 'failed' | 'cancelled';
  readonly requestId: string;
  readonly threadId: string;
  readonly agent: string;
  readonly epoch: string;
  /** All events of the run follow this `seq`. */
  readonly after: number;
  /** The `seq` of its terminal event; undefined while the run continues. */
  readonly endedAtSeq: number | undefined;
  /** The oldest `seq` in the log. */
  readonly oldest: number;
}

/** A run to execute. Its data is in the hash of the run in Redis, which outlives the job. */
export const AgentRunJob = z.object({
  user_id: z.string().min(1),
  run_id: z.string().min(1),
  /** Trace of the request, which the worker continues. */
  traceparent: z.string().optional(),
});
export type AgentRunJob = z.infer<typeof AgentRunJob>;

/** A job is retried if it starts before its run is stored, or if its worker loses Redis before the run ends. */
export const AGENT_RUN_ATTEMPTS = { attempts: 3, backoff: { type: 'fixed', delay: 250 } } as const;

/** Number of token refresh jobs. The partitions are distributed over them, and the jobs over the workers. */
export const REFRESH_SHARDS = 8;
const shards = Array.from({ length: REFRESH_SHARDS }, (_, shard) => shard);

export const RefreshTokensJob = z.object({ shard: z.literal(shards) });
export type RefreshTokensJob = z.infer<typeof RefreshTokensJob>;

/** Name of the trim job, which shares its queue with `close-windows`. */
export const TRIM_LEDGER = 'trim-ledger';

interface Schedule {
  readonly queue: string;
  readonly name: string;
  readonly everyMs: number;
  readonly data?: RefreshTokensJob;
}

/** Periodic jobs. They carry no state; each reads the current state from Redis. */
export const SCHEDULES: readonly Schedule[] = [
  // Moves usage records from the outboxes into the ledger. The period bounds the lag of the ledger.
  { queue: QUEUES.usage, name: 'fold-usage', everyMs: 500 },
  // Closes the hourly windows that are due. Separate from ingestion, which must not wait while a large window is
  // summed.
  { queue: QUEUES.windows, name: 'close-windows', everyMs: 5_000 },
  // Trims ledger records that every consumer has confirmed and that are old enough.
  { queue: QUEUES.windows, name: TRIM_LEDGER, everyMs: 60_000 },
  // Ends runs and tool calls whose process was interrupted.
  { queue: QUEUES.sweeps, name: 'sweep-runs', everyMs: 5_000 },
  // Continues the erasure of user data.
  { queue: QUEUES.erasures, name: 'erase-users', everyMs: 1_000 },
  // Refreshes the tokens of live sessions. The period bounds the delay of a refresh.
  ...shards.map((shard) => ({
    queue: QUEUES.tokens,
    name: `refresh-tokens-${shard}`,
    everyMs: 1_000,
    data: { shard },
  })),
];
