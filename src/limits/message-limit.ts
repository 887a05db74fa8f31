import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { MessageLimiter } from './message-limiter.ts';

export interface MessageLimitDeps {
  readonly messageLimiter: Pick<MessageLimiter, 'consume' | 'blockedInMemoryMs'>;
  readonly metrics: Pick<Metrics, 'limitDecisions'>;
}

interface User {
  readonly userId: string;
  readonly plan: string;
}

/** Rejects a user with an in-memory block without a command to Redis. @throws TollgateError RATE_LIMITED */
export function rejectIfBlocked({ messageLimiter, metrics }: MessageLimitDeps, { userId, plan }: User): void {
  const retryAfterMs = messageLimiter.blockedInMemoryMs(userId, plan);
  if (retryAfterMs === 0) return;
  metrics.limitDecisions.inc({ result: 'denied', counted_by: 'memory' });
  throw new TollgateError('RATE_LIMITED', { retryAfterMs });
}

/** Counts a message of the user, on any transport. @throws TollgateError RATE_LIMITED */
export async function consumeMessage(
  { messageLimiter, metrics }: MessageLimitDeps,
  { userId, plan }: User,
): Promise<void> {
  const decision = await messageLimiter.consume(userId, plan);
  const result = decision.allowed ? 'allowed' : 'denied';
  metrics.limitDecisions.inc({ result, counted_by: decision.degraded ? 'node' : 'cluster' });
  if (!decision.allowed) throw new TollgateError('RATE_LIMITED', { retryAfterMs: decision.retryAfterMs });
}

/** The user's message limit, checked in the same round trip as the operation. */
export interface MessageLimit {
  /** Settles when the limiter has decided; rejects for a message above the limit. */
  readonly allowed: Promise<void>;
  /** Largest value of the user's message counter that is within the limit. */
  readonly messages: number;
}
