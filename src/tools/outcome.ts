import type { Fields } from '../protocol/messages.ts';
import type { UsageRecord } from '../protocol/usage.ts';
import type { ToolInputRequests } from './tool.ts';

/** Outcome of a tool call, as stored in the journal of a run or with the call. */
export interface ToolOutcome {
  readonly success: boolean;
  readonly result?: unknown;
  readonly error?: Fields;
  /** Input requests of the tool. Present only if the caller can receive them; never part of an event. */
  readonly inputRequired?: ToolInputRequests;
  readonly duration_ms: number;
  readonly usage_record_id: string | null;
}

/** How a call ended, for the store or the run that records it. */
export type Ending =
  /** The tool ran; it succeeded, failed or was cancelled, as the record says. */
  | { readonly kind: 'completed'; readonly outcome: ToolOutcome; readonly record: UsageRecord; readonly commit: string }
  /** The call was cancelled before the tool ran. No use is counted. */
  | { readonly kind: 'stopped'; readonly outcome: ToolOutcome; readonly record: UsageRecord }
  /** The tool needs input. The call can begin again once `round` input rounds are completed; no use is counted. */
  | { readonly kind: 'input_required'; readonly outcome: ToolOutcome; readonly round: number; readonly commit: string }
  /** The call was refused after it had begun, and was not executed. */
  | { readonly kind: 'refused'; readonly outcome: ToolOutcome }
  /** The process of the call was interrupted, and the sweep ends the call instead. No use is counted. */
  | { readonly kind: 'expired'; readonly outcome: ToolOutcome; readonly record: UsageRecord };

/** Usage record of an execution and the commit argument of its reservation; "" when no use is counted. */
export interface Billing {
  readonly record: UsageRecord;
  readonly quotaCommit: string;
}

/** Retry time of writes during a Redis outage. Longer than the timeout of a run: a sweep has ended it by then. */
export const OUTAGE_RETRY_MS = 60_000;

/** Usage record of an ending; undefined for a call that was not executed. */
export function recordOf(ending: Ending): UsageRecord | undefined {
  return 'record' in ending ? ending.record : undefined;
}

/** Commit argument of the reservation; "" releases it without counting anything. */
export function commitOf(ending: Ending): string {
  return 'commit' in ending ? ending.commit : '';
}
