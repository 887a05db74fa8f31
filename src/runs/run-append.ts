import type { Append, NewEvent, Reserved } from '../events/append.ts';
import { newId } from '../lib/ids.ts';
import { type DurableEventType, type Fields, isTerminalEvent } from '../protocol/messages.ts';
import type { Billing } from '../tools/outcome.ts';
import type { ClaimedRun } from './stored-run.ts';

/** Types of the events that `RunLog.remoteEvent` appends. */
export type RemoteEventType = Extract<
  DurableEventType,
  `agent_${'thinking' | 'reasoning' | 'state' | 'activity'}` | `tool_${string}`
>;

export type JournalEntry = NonNullable<NewEvent['journal']>;

/** Maximum number of events per append, which bounds the time of the script. */
const MAX_PER_APPEND = 32;

/** What an event changes beside the log. */
export type SideEffects = Pick<Append, 'threadMessage' | 'quotaCommit' | 'reserve'>;

/** An event of the run with its side effects, and the append that it belongs to. */
export type Written = SideEffects & { readonly event: NewEvent; readonly append: number };

/** An event that is not in an append yet. */
export interface Pending {
  readonly written: SideEffects & { readonly event: NewEvent };
  readonly resolve: (reserved: Reserved | undefined) => void;
  readonly reject: (error: unknown) => void;
}

/** Returns the event with its fields as JSON, which is rendered once. */
export function serialized(event: NewEvent): NewEvent {
  return { ...event, json: JSON.stringify(event.fields) };
}

/** Returns the approximate bytes of an event. A usage record has about 500 bytes. */
export function sizeOf({ json = '', journal, usageRecord }: NewEvent): number {
  return json.length + (journal?.value.length ?? 0) + (usageRecord ? 500 : 0);
}

/**
 * Returns the number of events, from the first, that the next append takes. It has at most one commit or reservation:
 * a commit makes Redis accept an append without free memory, and no new call may begin then.
 */
export function appendLength(pending: readonly Pending[]): number {
  let quotaChanges = 0;
  for (const [at, { written }] of pending.entries()) {
    if (written.quotaCommit || written.reserve) quotaChanges += 1;
    if (quotaChanges > 1 || at === MAX_PER_APPEND) return at;
    if (isTerminalEvent(written.event.type)) return at + 1;
  }
  return pending.length;
}

/**
 * Joins events to one append.
 * @param hasJournal whether the run may have a journal of earlier appends, which its end removes
 */
export function joined(written: readonly Written[], hasJournal: boolean): Omit<Append, 'userId' | 'run'> {
  const events = written.map(({ event }) => event);
  const ends = events.map(({ type }) => type).find(isTerminalEvent);
  const threadMessage = written.find((one) => one.threadMessage)?.threadMessage;
  const quotaCommit = written.find((one) => one.quotaCommit)?.quotaCommit;
  const reserve = written.find((one) => one.reserve)?.reserve;
  return {
    events,
    ...(ends && { ends }),
    ...(threadMessage && { threadMessage }),
    ...(quotaCommit && { quotaCommit }),
    ...(reserve && { reserve }),
    ...(ends && !hasJournal && { hasNoJournal: true }),
  };
}

export function recordOf(billing: Billing | undefined): Pick<NewEvent, 'usageRecord'> {
  return billing ? { usageRecord: billing.record } : {};
}

export function quotaCommitOf(billing: Billing | undefined): Pick<Append, 'quotaCommit'> {
  return billing?.quotaCommit ? { quotaCommit: billing.quotaCommit } : {};
}

/** Fields of every event of a run. */
export function commonFields({ userId, runId, threadId, requestId, agent }: ClaimedRun): Fields {
  const ids = { event_id: newId('evt'), run_id: runId, thread_id: threadId, request_id: requestId };
  return { ...ids, user_id: userId, agent_name: agent };
}
