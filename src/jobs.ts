import { z } from 'zod';
import type { Identity } from './protocol/identity.ts';

/** The BullMQ queues, their job payloads and their parsers: what gateways and workers agree on. */
export const QUEUES = { agentRuns: 'agent-runs', usage: 'usage', windows: 'windows', sweeps: 'sweeps' } as const;

/** A run as a client asked for it. */
export interface RunRequest {
  readonly identity: Identity;
  readonly connectionId: string;
  readonly requestId: string;
  /** Follows from user and request id, so that a repeated request means the same run on every node. */
  readonly runId: string;
  readonly threadId: string;
  readonly agent: string | undefined;
  readonly message: string;
  /** The road it came by, as usage records name it. */
  readonly transport: string;
}

/** A run to execute. Everything else about it is in the run's own hash, which outlives the job. */
export const AgentRunJob = z.object({ user_id: z.string().min(1), run_id: z.string().min(1) });
export type AgentRunJob = z.infer<typeof AgentRunJob>;

/** A job may be faster than its run, or its worker lose Redis before the run has ended: it is tried again. */
export const AGENT_RUN_ATTEMPTS = { attempts: 3, backoff: { type: 'fixed', delay: 250 } } as const;

/** Jobs that a schedule produces carry no data: each looks at the state it finds. */
export const SCHEDULES = {
  /** Moves usage records from the outboxes into the ledger; the period is the lag a bill can have. */
  foldUsage: { queue: QUEUES.usage, name: 'fold-usage', everyMs: 500 },
  /** Closes the hourly windows that are due: beside the folding, which must not wait while a large one is added up. */
  closeWindows: { queue: QUEUES.windows, name: 'close-windows', everyMs: 5_000 },
  /** Removes what every consumer of the ledger has confirmed and nobody may still want. */
  trimLedger: { queue: QUEUES.windows, name: 'trim-ledger', everyMs: 60_000 },
  /** Ends runs that nobody works on any more. */
  sweepRuns: { queue: QUEUES.sweeps, name: 'sweep-runs', everyMs: 5_000 },
} as const;
