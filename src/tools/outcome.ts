import type { Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import type { UsageRecord } from '../usage/records.ts';
import type { ToolInputRequests } from './input-required.ts';

/** A tool call's outcome as the run remembers it. */
export interface ToolOutcome {
  readonly success: boolean;
  readonly result?: unknown;
  readonly error?: Fields;
  /** What the tool asks its caller: only where somebody can be asked, and in no event. */
  readonly questions?: ToolInputRequests;
  readonly duration_ms: number;
  readonly usage_record_id: string | null;
}

/** What an execution is written down with: its record, and the use that it counts; "" where it counts none. */
export interface Billing {
  readonly record: UsageRecord;
  readonly quotaCommit: string;
}

/** Longer than a run may take: by then a sweep has ended it. */
export const OUTAGE_RETRY_MS = 60_000;

/** For whom a run runs, as it was when it was asked for. */
export type ToolCaller = Pick<Identity, 'plan' | 'permissions' | 'roles' | 'featureFlags'> & {
  readonly degraded: boolean;
};
