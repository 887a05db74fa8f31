import type { DurableEventType, Fields, TerminalEventType } from '../protocol/messages.ts';
import type { Refusal, UsageRecord } from '../protocol/usage.ts';

/** An event to append; the log assigns `seq`. */
export interface NewEvent {
  readonly type: DurableEventType;
  readonly fields: Fields & { readonly timestamp: string };
  /** The fields as JSON, if the caller has it. */
  readonly json?: string;
  /** The usage record that the same step writes. */
  readonly usageRecord?: UsageRecord;
  /** The refusal that the same step counts, instead of a record, for a tool call that was denied. */
  readonly refusal?: Refusal;
  /** The journal entry that the same step stores with the run, for a worker that takes it over. */
  readonly journal?: { readonly field: string; readonly value: string };
}

/** The run that the events belong to. The log rejects a writer that no longer owns the run. */
export interface RunWriter {
  readonly runId: string;
  /** The fencing token of the claim. */
  readonly fencingToken: number;
  /** Number of events of the run that the writer knows to be in the log. */
  readonly eventsInLog: number;
}

export interface Append {
  readonly userId: string;
  readonly events: readonly NewEvent[];
  readonly run?: RunWriter;
  /** Ends the run with these events. */
  readonly ends?: TerminalEventType;
  /** Adds a message to a thread of the user in the same step. */
  readonly threadMessage?: { readonly threadId: string; readonly message: Fields };
  /** Commits the reservation of a tool call in the same step: see `Reservation` in src/limits/quotas.ts. */
  readonly quotaCommit?: string;
  /** Reserves quota for a tool call in the same step: `request` of its `Reservation`. */
  readonly reserve?: string;
  /** Whether the run has no journal from earlier appends, so that its end removes none. */
  readonly hasNoJournal?: boolean;
}

/** Whether the quota was reserved, and the numbers of the reply: see `QuotaReply` in src/limits/quotas.ts. */
export interface Reserved {
  readonly allowed: boolean;
  readonly reply: readonly [now: number, ...rest: number[]];
}

/**
 * - `appended`: the events are in the log.
 * - `repeated`: an earlier attempt had already appended them.
 * - `fenced`: another worker owns the run.
 * - `finished`: the run already has its terminal event.
 * - `behind`: Redis lost the run, its claim or some of its events after it had acknowledged them.
 */
export type AppendResult =
  | {
      readonly outcome: 'appended' | 'repeated';
      readonly seq: number;
      readonly cancelRequested: boolean;
      readonly reserved?: Reserved;
    }
  | { readonly outcome: 'fenced' | 'finished' | 'behind' };
