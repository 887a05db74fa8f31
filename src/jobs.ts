import { z } from 'zod';
import type { Identity } from './protocol/identity.ts';

/** The BullMQ queues, their job payloads and their parsers: what gateways and workers agree on. */
export const QUEUES = {
  agentRuns: 'agent-runs',
  usage: 'usage',
  windows: 'windows',
  sweeps: 'sweeps',
  tokens: 'tokens',
  erasures: 'erasures',
} as const;

/** A run as a client asked for it. */
export interface RunRequest {
  readonly identity: Identity;
  readonly connectionId: string;
  readonly requestId: string;
  /** Follows from user and request id, so that a repeated request means the same run on every node. */
  readonly runId: string;
  readonly threadId: string;
  /**
   * The client named no thread, and `threadId` is its connection's: where the plan allows no further thread, the run goes to
   * the one that changed last.
   */
  readonly isThreadImplied?: boolean;
  readonly agent: string | undefined;
  readonly message: string;
  /** The road it came by, as usage records name it. */
  readonly transport: string;
  /** The auth service could not vouch for the session when the run was asked for: no paid tool runs for it. */
  readonly degraded: boolean;
}

/** A run that was accepted. */
export interface StartedRun {
  readonly run_id: string;
  /** Another one than was asked for when the request named none, or is a repetition. */
  readonly thread_id: string;
  /** The request id had started the run before. */
  readonly isRepeated: boolean;
}

/** A run to execute. Everything else about it is in the run's own hash, which outlives the job. */
export const AgentRunJob = z.object({
  user_id: z.string().min(1),
  run_id: z.string().min(1),
  /** Of the request that asked for it: the worker's part belongs to the same trace. */
  traceparent: z.string().optional(),
});
export type AgentRunJob = z.infer<typeof AgentRunJob>;

/** A job may be faster than its run, or its worker lose Redis before the run has ended: it is tried again. */
export const AGENT_RUN_ATTEMPTS = { attempts: 3, backoff: { type: 'fixed', delay: 250 } } as const;

/** The jobs among which the partitions are spread whose due tokens are refreshed; workers share them. */
export const REFRESH_SHARDS = 8;
const shards = Array.from({ length: REFRESH_SHARDS }, (_, shard) => shard);

export const RefreshTokensJob = z.object({ shard: z.literal(shards) });
export type RefreshTokensJob = z.infer<typeof RefreshTokensJob>;

/** The one of the queue's two jobs that is told apart. */
export const TRIM_LEDGER = 'trim-ledger';

interface Schedule {
  readonly queue: string;
  readonly name: string;
  readonly everyMs: number;
  readonly data?: RefreshTokensJob;
}

/** Jobs that come by the clock. None says anything of the state: each looks at what it finds. */
export const SCHEDULES: readonly Schedule[] = [
  // Moves usage records from the outboxes into the ledger; the period is the lag a bill can have.
  { queue: QUEUES.usage, name: 'fold-usage', everyMs: 500 },
  // Closes the hourly windows that are due: beside the folding, which must not wait while a large one is added up.
  { queue: QUEUES.windows, name: 'close-windows', everyMs: 5_000 },
  // Removes what every consumer of the ledger has confirmed and nobody may still want.
  { queue: QUEUES.windows, name: TRIM_LEDGER, everyMs: 60_000 },
  // Ends runs and tool calls that nobody works on any more.
  { queue: QUEUES.sweeps, name: 'sweep-runs', everyMs: 5_000 },
  // Continues the erasures of users' data.
  { queue: QUEUES.erasures, name: 'erase-users', everyMs: 1_000 },
  // Refreshes the tokens of live sessions; the period is what a refresh can come too late by.
  ...shards.map((shard) => ({
    queue: QUEUES.tokens,
    name: `refresh-tokens-${shard}`,
    everyMs: 1_000,
    data: { shard },
  })),
];
