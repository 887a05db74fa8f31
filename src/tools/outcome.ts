import type { Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import type { UsageRecord } from '../protocol/usage.ts';
import type { ToolInputRequests } from './input-required.ts';

/** Outcome of a tool call, as stored in the journal of a run or with the call. */
export interface ToolOutcome {
  readonly success: boolean;
  readonly result?: unknown;
  readonly error?: Fields;
  /** Input requests of the tool. Present only if the caller can receive them; never part of an event. */
  readonly questions?: ToolInputRequests;
  readonly duration_ms: number;
  readonly usage_record_id: string | null;
}

/** Usage record of an execution and the commit argument of its reservation; "" when no use is counted. */
export interface Billing {
  readonly record: UsageRecord;
  readonly quotaCommit: string;
}

/** Retry time of writes during a Redis outage. Longer than the timeout of a run: a sweep has ended it by then. */
export const OUTAGE_RETRY_MS = 60_000;

/** Access rights of the caller at the time of the request. */
export type ToolCaller = Pick<Identity, 'plan' | 'permissions' | 'roles' | 'featureFlags'> & {
  readonly degraded: boolean;
};
