import { z } from 'zod';
import type { ClientTool } from './protocol/client-tools.ts';
import type { Identity } from './protocol/identity.ts';
import type { OpenInputRequest } from './protocol/input.ts';

/** Names of the queues. This module contains the job payloads that gateways and workers share. */
export const QUEUES = { agentRuns: 'agent-runs', maintenance: 'maintenance' } as const;

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
  /** Tools of the front end that the agent may call; none by default. */
  readonly clientTools?: readonly ClientTool[];
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

/** States of a run. One that is `waiting` needs input of its user. */
export const RUN_STATES = ['queued', 'running', 'waiting', 'completed', 'failed', 'cancelled'] as const;

/** The state of a run, as `run_status` reports it. */
export interface RunStatus {
  readonly status: (typeof RUN_STATES)[number] | 'unknown';
  readonly requestId: string | null;
  readonly threadId: string | null;
  readonly ended_at?: string;
  /** Null when the thread no longer contains the answer. */
  readonly final_response?: string | null;
  /** What the run asks its user; absent when it asks nothing. */
  readonly input_requests?: readonly OpenInputRequest[];
}

/** A run and the position of its events in the event log of its user. */
export interface LocatedRun {
  readonly runId: string;
  readonly status: (typeof RUN_STATES)[number];
  readonly requestId: string;
  readonly threadId: string;
  readonly agent: string;
  readonly epoch: string;
  /** All events of the run follow this `seq`. */
  readonly after: number;
  /** The `seq` of its terminal event; undefined while the run continues. */
  readonly endedAtSeq: number | undefined;
  /** Milliseconds since its end, by Redis's clock; undefined while the run continues. */
  readonly endedMsAgo: number | undefined;
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
