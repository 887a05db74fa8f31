import type { Clock } from '../src/lib/clock.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import { publicError, TollgateError } from '../src/protocol/errors.ts';
import type { CallStore } from '../src/tools/call-store.ts';
import { usageRecord } from '../src/usage/records.ts';
import { trySweep } from './sweep-runs.ts';

export interface SweepCallsDeps {
  readonly calls: CallStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

type OverdueCall = Awaited<ReturnType<CallStore['overdue']>>[number];

const LOST = 'The call did not come to an end: what it did is not known, and nothing is charged.';

/**
 * Ends every tool call outside a run whose process is gone: each `tool_executing` gets its `tool_completed`. The record
 * says that something was begun, and charges nothing; the use is not counted.
 */
export async function sweepCalls(deps: SweepCallsDeps): Promise<number> {
  let ended = 0;
  for (const call of await deps.calls.overdue()) {
    const context = { call: call.callId, user: userHash(call.userId) };
    if (await trySweep(deps.logger, context, () => endCall(call, deps))) ended += 1;
  }
  return ended;
}

/** False when it had ended by itself. */
async function endCall({ userId, callId }: OverdueCall, { calls, clock, logger }: SweepCallsDeps): Promise<boolean> {
  const details = await calls.details(userId, callId);
  if (!details) return false;
  const { tool, permission, plan, thread_id, request_id, idempotency_key, transport, started_at } = details;
  const record = usageRecord({
    ...{ callId, tool, permission, plan, thread_id, request_id, idempotency_key, transport },
    ...{ user_id: userId, run_id: null, status: 'error', units: 0 },
    acceptedAt: started_at,
    startedAt: started_at,
    completedAt: Math.max(started_at, clock.now()),
  });
  const error = publicError(new TollgateError('TOOL_FAILED', { text: LOST }));
  const outcome = { success: false, error, duration_ms: record.duration_ms, usage_record_id: record.id };
  const counts = await calls.end({ userId, callId, details, outcome, record, quotaCommit: '', swept: true });
  if (counts !== outcome) return false;
  logger.warn({ user: userHash(userId), tool, call: callId }, 'a tool call was ended from outside');
  return true;
}
