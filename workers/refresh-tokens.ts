import type { Revocations } from '../src/accounts/revocations.ts';
import { isRefusal } from '../src/auth/client/auth-service-client.ts';
import type { HeldRefreshToken, Refreshers } from '../src/auth/token-refresh/refreshers.ts';
import type {
  DueToken,
  NextRefreshToken,
  TokenSessionRef,
  TokenSessions,
} from '../src/auth/token-refresh/token-sessions.ts';
import type { Clock } from '../src/lib/clock.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import type { Span, Tracing } from '../src/lib/tracing.ts';
import { toTollgateError } from '../src/protocol/errors.ts';
import type { Refusal } from '../src/protocol/token-lifecycle.ts';
import { RedisUnavailable } from '../src/redis/errors.ts';

export interface RefreshDeps {
  readonly tokenSessions: Pick<
    TokenSessions,
    'claimDue' | 'due' | 'refreshed' | 'failed' | 'end' | 'leaveToClient' | 'takeRefreshToken' | 'keepRefreshToken'
  >;
  readonly refreshers: Pick<Refreshers, 'refresh'>;
  readonly revocations: Pick<Revocations, 'revoke'>;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'refreshes' | 'refreshSeconds' | 'refreshLead'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/**
 * Sessions claimed per partition at once. The 64 partitions need two rounds of exchanges per batch. Each round ends
 * within the few seconds of the auth service client's timeout, and both end before the claim expires.
 */
const BATCH = 8;
/** Concurrent exchanges per worker. */
const CONCURRENCY = 256;
/** Time after which a task ends and leaves the rest to the next one. */
const TASK_BUDGET_MS = 5_000;
const FIRST_RETRY_MS = 2_000;
const LONGEST_RETRY_MS = 30_000;

/** Rejections of the session. Other codes may concern only the token or the request to the auth service. */
const TAKEN_BACK: readonly Refusal[] = ['TOKEN_REVOKED', 'USER_BLOCKED'];

/**
 * Refreshes the due tokens of all partitions. While it runs longer than its period, other workers run it too and claim
 * the sessions that this worker has not claimed.
 * @returns the number of claimed sessions
 */
export async function refreshDueTokens(
  deps: RefreshDeps & { readonly tokenSessions: Pick<TokenSessions, 'duePartitions'> },
): Promise<number> {
  const partitions = await deps.tokenSessions.duePartitions();
  return partitions.length > 0 ? refreshTokens(partitions, deps) : 0;
}

/**
 * Refreshes the due tokens of these partitions until none is left. Several workers may do so concurrently: a claimed
 * session is not available to others until the claim expires.
 * @returns the number of claimed sessions
 */
export async function refreshTokens(partitions: readonly number[], deps: RefreshDeps): Promise<number> {
  const yieldAt = deps.clock.now() + TASK_BUDGET_MS;
  let total = 0;
  for (;;) {
    const claimed = (await Promise.all(partitions.map((one) => deps.tokenSessions.claimDue(one, BATCH)))).flat();
    total += claimed.length;
    await inParallel(claimed, CONCURRENCY, (ref) => refreshOne(ref, deps));
    if (claimed.length === 0 || deps.clock.now() >= yieldAt) return total;
  }
}

function refreshOne(ref: TokenSessionRef, deps: RefreshDeps): Promise<void> {
  return deps.tracing.root('refresh token', {}, (span) => {
    if (span.recording) span.set({ 'user.hash': userHash(ref.userId) });
    return refreshTraced(ref, deps, span);
  });
}

async function refreshTraced(ref: TokenSessionRef, deps: RefreshDeps, span: Span): Promise<void> {
  const startedAt = deps.clock.now();
  try {
    const due = await deps.tokenSessions.due(ref);
    const result = due ? await refreshDue(due, deps) : 'gone';
    deps.metrics.refreshes.inc({ result });
    span.set({ 'tollgate.refresh.result': result });
    deps.metrics.refreshSeconds.observe((deps.clock.now() - startedAt) / 1000);
  } catch (error) {
    // Redis is unavailable: the claim expires, and a worker claims the session again.
    deps.tracing.failed(error);
    deps.logger.warn({ err: error, user: userHash(ref.userId) }, 'token refresh interrupted, it will be claimed again');
  }
}

async function refreshDue(
  due: DueToken,
  deps: RefreshDeps,
): Promise<'refreshed' | 'failed' | 'refused' | 'gone' | 'client'> {
  const { ref, token, expiresAt } = due;
  try {
    const issued = await deps.refreshers.refresh(token, heldRefreshToken(due, deps));
    if (!issued) {
      await deps.tokenSessions.leaveToClient(due);
      return 'client';
    }
    const next = nextRefreshToken(due, issued.refreshToken);
    if (issued.expiresAt > expiresAt) {
      const current = await deps.tokenSessions.refreshed(ref, issued.accessToken, issued.expiresAt, next);
      if (current) deps.metrics.refreshLead.observe((expiresAt - deps.clock.now()) / 1000);
      return current ? 'refreshed' : 'gone';
    }
    if (next) await deps.tokenSessions.keepRefreshToken(ref, next);
  } catch (thrown) {
    if (isRefusal(thrown)) {
      const revoked = TAKEN_BACK.includes(thrown.code);
      const ended = await deps.tokenSessions.end(due, thrown.code, revoked ? 'session' : 'token');
      // The session's tokens have not expired. The revocation makes all nodes reject them and closes connections that
      // were opened with them in the meantime.
      if (revoked) await deps.revocations.revoke(ref.session);
      return ended ? 'refused' : 'gone';
    }
    if (thrown instanceof RedisUnavailable) throw thrown;
    const { code } = toTollgateError(thrown);
    deps.logger.warn(
      { user: userHash(ref.userId), code, failures: due.failures + 1 },
      'token refresh failed, retrying',
    );
    await failed(due, retryDelay(due.failures + 1, Math.random()), deps);
    return 'failed';
  }
  // The auth service does not extend the token because the session is about to end. It rejects the token after that.
  const retryInMs = Math.max(expiresAt - deps.clock.now(), FIRST_RETRY_MS);
  await failed(due, retryInMs, deps);
  return 'failed';
}

/**
 * Returns the refresh token of the session. It is taken out of Redis before it is sent, so that no second worker sends
 * it: the provider would detect a reuse and end the login (RFC 9700 section 4.14.2). If this worker dies in between,
 * the token is lost and the session is left to its client.
 */
function heldRefreshToken(due: DueToken, { tokenSessions }: RefreshDeps): HeldRefreshToken | undefined {
  const { ref, refreshDigest: from } = due;
  if (from === undefined) return undefined;
  return {
    take: () => tokenSessions.takeRefreshToken(due),
    restore: (token) => tokenSessions.keepRefreshToken(ref, { from, token }),
  };
}

function nextRefreshToken({ refreshDigest: from }: DueToken, token: string | undefined): NextRefreshToken | undefined {
  return from === undefined || token === undefined ? undefined : { from, token };
}

/**
 * Schedules the next attempt. A session is degraded when its token has expired, not before: the token is still valid.
 */
function failed(due: DueToken, retryInMs: number, { tokenSessions, clock }: RefreshDeps): Promise<void> {
  return tokenSessions.failed(due, { retryInMs, degraded: clock.now() >= due.expiresAt });
}

/**
 * Exponential backoff with up to half of the delay random, so that sessions that failed together are not retried
 * together.
 */
function retryDelay(failures: number, random: number): number {
  const wait = Math.min(FIRST_RETRY_MS * 2 ** (failures - 1), LONGEST_RETRY_MS);
  return Math.round(wait * (1 - random / 2));
}

/** Runs `work` for each of `items`, at most `limit` at once. */
async function inParallel<T>(items: readonly T[], limit: number, work: (item: T) => Promise<void>): Promise<void> {
  const remaining = items.values();
  const workThrough = async () => {
    for (const item of remaining) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, workThrough));
}
