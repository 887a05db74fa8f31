import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { MessageLimiter, RateDecision } from './message-limiter.ts';

export interface MessageLimitDeps {
  readonly messageLimiter: Pick<MessageLimiter, 'consume' | 'takeCounted' | 'blockedInMemoryMs'>;
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

/**
 * The limit of one message, created once and passed to the operation, which checks it in its own round trip. An
 * operation takes no effect before `allowed` resolves, or it compares the counter in its script with `messages`.
 */
export interface MessageLimit {
  /** Settles when the limiter has decided. @throws TollgateError RATE_LIMITED for a message above the limit */
  readonly allowed: Promise<void>;
  /** Largest value of the user's message counter with which the message is within the limit. */
  readonly messages: number;
}

/** For messages without a user, and for those that were counted in advance. */
export const NO_MESSAGE_LIMIT: MessageLimit = { allowed: Promise.resolve(), messages: Number.MAX_SAFE_INTEGER };
const GRANTED = { result: 'allowed', counted_by: 'cluster' } as const;

/** Counts a message of the user, on any transport. Does not wait for the decision. */
export function countMessage(deps: MessageLimitDeps, { userId, plan }: User): MessageLimit {
  if (deps.messageLimiter.takeCounted(userId, plan)) {
    deps.metrics.limitDecisions.inc(GRANTED);
    return NO_MESSAGE_LIMIT;
  }
  const { decision, counterAtMost } = deps.messageLimiter.consume(userId, plan);
  const allowed = enforce(deps, decision);
  // A caller that awaits `allowed` still receives the rejection. If none does, this prevents an unhandled rejection.
  allowed.catch(() => undefined);
  return { allowed, messages: counterAtMost };
}

async function enforce({ metrics }: MessageLimitDeps, deciding: Promise<RateDecision>): Promise<void> {
  const decision = await deciding;
  const result = decision.allowed ? 'allowed' : 'denied';
  metrics.limitDecisions.inc({ result, counted_by: decision.degraded ? 'node' : 'cluster' });
  if (!decision.allowed) throw new TollgateError('RATE_LIMITED', { retryAfterMs: decision.retryAfterMs });
}
