import type { Metrics } from '../lib/metrics.ts';
import type { MessageRate } from '../policy/message-rate.ts';
import { TollgateError } from '../protocol/errors.ts';

export interface MessageLimitDeps {
  readonly messageRate: Pick<MessageRate, 'take' | 'knownRefusalMs'>;
  readonly metrics: Pick<Metrics, 'limitDecisions'>;
}

interface User {
  readonly userId: string;
  readonly plan: string;
}

/** Who is known to be over the limit is refused before anything is sent to Redis. @throws TollgateError RATE_LIMITED */
export function refuseKnown({ messageRate, metrics }: MessageLimitDeps, { userId, plan }: User): void {
  const retryAfterMs = messageRate.knownRefusalMs(userId, plan);
  if (retryAfterMs === 0) return;
  metrics.limitDecisions.inc({ result: 'denied', counted_by: 'memory' });
  throw new TollgateError('RATE_LIMITED', { retryAfterMs });
}

/** Counts a message of the user, whichever road it came by. @throws TollgateError RATE_LIMITED */
export async function withinLimit({ messageRate, metrics }: MessageLimitDeps, { userId, plan }: User): Promise<void> {
  const decision = await messageRate.take(userId, plan);
  const result = decision.allowed ? 'allowed' : 'denied';
  metrics.limitDecisions.inc({ result, counted_by: decision.degraded ? 'node' : 'cluster' });
  if (!decision.allowed) throw new TollgateError('RATE_LIMITED', { retryAfterMs: decision.retryAfterMs });
}
