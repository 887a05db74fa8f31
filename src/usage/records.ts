import { derivedId } from '../lib/ids.ts';
import type { LedgerRecord, Refusal, UsageRecord } from '../protocol/usage.ts';
import { hourOf } from './hours.ts';

/** Name under which calls to unknown tools are counted: the requested name is arbitrary input of the caller. */
const UNKNOWN_TOOL = 'unknown';

/**
 * @param tool undefined for a tool that is not in the catalogue
 * @param at milliseconds since the epoch
 */
export function refusal(userId: string, plan: string, tool: string | undefined, at: number): Refusal {
  return { user_id: userId, plan, tool: tool ?? UNKNOWN_TOOL, period: hourOf(at) };
}

export interface Execution extends Omit<UsageRecord, 'id' | 'started_at' | 'completed_at' | 'duration_ms' | 'period'> {
  /** The id of the call within its run. It distinguishes the execution from all others of the run. */
  readonly callId: string;
  /**
   * Milliseconds since the epoch at which the run, or the call outside a run, was accepted: the same value on every
   * process that may end it.
   */
  readonly acceptedAt: number;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly completedAt: number;
}

/**
 * Idempotency keys and request ids are stored for a day, and the ids of runs and calls are derived from them. A key
 * that is reused after that day falls into another half of a day, even if the clocks of the nodes differ.
 */
const HALF_DAY_MS = 12 * 3_600_000;

/**
 * Builds the usage record of an execution. Its id is derived from run and call, so a call that is repeated after its
 * worker died, or after Redis lost the record, has the same id. It is also derived from the half of the day in which
 * the call was accepted, because a billing system treats two records with the same id as one.
 */
export function usageRecord({ callId, acceptedAt, startedAt, completedAt, ...execution }: Execution): UsageRecord {
  const halfDay = String(Math.floor(acceptedAt / HALF_DAY_MS));
  return {
    id: derivedId('usage', execution.user_id, execution.run_id ?? '', callId, halfDay),
    ...execution,
    units: execution.status === 'success' ? execution.units : 0,
    started_at: new Date(startedAt).toISOString(),
    completed_at: new Date(completedAt).toISOString(),
    duration_ms: Math.max(0, completedAt - startedAt),
    period: hourOf(completedAt),
  };
}

/** Parses a record of the ledger. @throws SyntaxError */
export function parseLedgerRecord(json: string): LedgerRecord {
  return JSON.parse(json);
}

/** Parses a record that is not in the ledger yet. @throws SyntaxError */
export function parseUsageRecord(json: string): UsageRecord {
  return JSON.parse(json);
}
