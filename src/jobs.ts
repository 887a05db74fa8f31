import { z } from 'zod';
import type { Identity } from './protocol/identity.ts';

/** Names of the BullMQ queues. This module contains the job payloads that gateways and workers share. */
export const QUEUES = { agentRuns: 'agent-runs' } as const;

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
