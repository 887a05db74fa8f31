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

const LOST = 'The call was interrupted. Its outcome is unknown, and it is not charged.';

/**
 * Ends tool calls outside runs whose process was interrupted, so that each `tool_executing` is followed by a
 * `tool_completed`. The usage record documents the call with 0 units; the call does not count against quotas.
 */
export async function sweepCalls(deps: SweepCallsDeps): Promise<number> {
  let ended = 0;
  for (const call of await deps.calls.overdue()) {
    const context = { call: call.callId, user: userHash(call.userId) };
    if (await trySweep(deps.logger, context, () => endCall(call, deps))) ended += 1;
  }
  return ended;
}

/** Returns false if the call has ended in the meantime. */
async function endCall({ userId, callId }: OverdueCall, { calls, clock, logger }: SweepCallsDeps): Promise<boolean> {
  const details = await calls.details(userId, callId);
  if (!details) return false;
  const { tool, permission, plan, thread_id, request_id, idempotency_key, transport, started_at } = details;
  const record = usageRecord({
    callId,
    user_id: userId,
    plan,
    tool,
    permission,
    status: 'error',
    units: 0,
    run_id: details.run_id ?? null,
    thread_id,
    request_id,
    idempotency_key,
    transport,
    acceptedAt: started_at,
    startedAt: started_at,
    completedAt: Math.max(started_at, clock.now()),
  });
  const error = publicError(new TollgateError('TOOL_FAILED', { text: LOST }));
  const outcome = { success: false, error, duration_ms: record.duration_ms, usage_record_id: record.id };
  const counts = await calls.end({ userId, callId, details, ending: { kind: 'expired', outcome, record } });
  if (counts !== outcome) return false;
  logger.warn({ user: userHash(userId), tool, call: callId }, 'interrupted tool call ended by the sweep');
  return true;
}
