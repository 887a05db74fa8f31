import { derivedId } from '../lib/ids.ts';
import { hourOf } from './hours.ts';

export type UsageStatus = 'success' | 'error' | 'cancelled';

/**
 * One execution of a tool, or one step of a model, as it is billed. Written once, in the same step as the event that
 * names it; never changed.
 */
export interface UsageRecord {
  readonly id: string;
  readonly user_id: string;
  readonly plan: string;
  readonly tool: string;
  readonly permission: string;
  readonly status: UsageStatus;
  /** Price units; 0 unless the tool succeeded. */
  readonly units: number;
  /** What a model counted of a step, by kind: `input_tokens`, `output_tokens`. Only on steps of a model. */
  readonly units_by_kind?: Readonly<Record<string, number>>;
  /** The model did not say what it counted: the figures of `units_by_kind` are an estimate. */
  readonly estimated?: true;
  readonly run_id: string | null;
  readonly thread_id: string | null;
  readonly request_id: string | null;
  readonly idempotency_key: string | null;
  readonly transport: string;
  /** ISO 8601, UTC. */
  readonly started_at: string;
  readonly completed_at: string;
  readonly duration_ms: number;
  /** The hour it belongs to, by its completion: YYYY-MM-DDTHH, UTC. */
  readonly period: string;
  /** Of a correction: the id of the record that it corrects, whose `units` it changes by its own. */
  readonly corrects?: string;
  /** Of a correction: why. */
  readonly reason?: string;
  /**
   * Of a redaction entry, which is a correction of 0 units: the erased records that it covers, each with the SHA-256 of
   * its erased form. See redaction.ts.
   */
  readonly erases?: readonly (readonly [sequence: number, sha256: string])[];
}

/** A tool that was asked for and not run: counted, never billed. Written in the same step as its `tool_completed`. */
export interface Refusal {
  readonly user_id: string;
  readonly plan: string;
  readonly tool: string;
  readonly period: string;
}

/** What a tool is counted under that is in no catalogue: its name is whatever the caller made up. */
const UNKNOWN_TOOL = 'unknown';

/** @param tool undefined for one that is in no catalogue; @param at milliseconds since the epoch */
export function refusal(userId: string, plan: string, tool: string | undefined, at: number): Refusal {
  return { user_id: userId, plan, tool: tool ?? UNKNOWN_TOOL, period: hourOf(at) };
}

/** What the ledger adds when it takes a record up. */
export interface LedgerRecord extends UsageRecord {
  /** Place in the ledger: 1, 2, 3, … without gaps. */
  readonly sequence: number;
  /** 128 random bits, base64url: the key of the commitment to the record's personal fields. Absent in older records. */
  readonly salt?: string;
  /** Digest of the record before without its personal fields: see redaction.ts. Absent in older records. */
  readonly content_before?: string;
  /** Of an erased record: the commitment to the personal fields that it had. */
  readonly personal?: string;
  /** Of an erased record: the sequence of the redaction entry that covers it. */
  readonly erasure?: number;
  /** SHA-256 over the hash of the record before it and this record. Of an erased record: as it was before. */
  readonly hash: string;
}

export interface Execution extends Omit<UsageRecord, 'id' | 'started_at' | 'completed_at' | 'duration_ms' | 'period'> {
  /** What makes the execution one of its kind: the call's id within its run. */
  readonly callId: string;
  /** Milliseconds since the epoch at which the run, or a call outside one, was begun: the same for whoever ends it. */
  readonly acceptedAt: number;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly completedAt: number;
}

/**
 * Idempotency keys and request ids are remembered for a day, and runs and calls have the ids that follow from them. What
 * begins under one again after that begins in another half of a day, however the clocks of nodes differ.
 */
const HALF_DAY_MS = 12 * 3_600_000;

/**
 * The usage record of an execution. Its id follows from run and call, so that a call that is made again after its
 * worker died, or after Redis has lost it, has the same one; and from the half of the day that it was begun in, since
 * whoever bills by it takes two records of one id for one.
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
