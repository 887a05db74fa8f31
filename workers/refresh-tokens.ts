import type { Revocations } from '../src/accounts/revocations.ts';
import { type AuthServiceClient, isRefusal } from '../src/auth/client/auth-service-client.ts';
import type { DueToken, TokenSessionRef, TokenSessions } from '../src/auth/token-refresh/token-sessions.ts';
import type { Clock } from '../src/lib/clock.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import type { Span, Tracing } from '../src/lib/tracing.ts';
import { toTollgateError } from '../src/protocol/errors.ts';
import type { Refusal } from '../src/protocol/token-lifecycle.ts';
import { PARTITIONS } from '../src/redis/keys.ts';

export interface RefreshDeps {
  readonly tokenSessions: Pick<TokenSessions, 'claimDue' | 'due' | 'refreshed' | 'failed' | 'end'>;
  readonly authService: Pick<AuthServiceClient, 'exchange'>;
  readonly revocations: Pick<Revocations, 'revoke'>;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'refreshes' | 'refreshSeconds' | 'refreshLead'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/**
 * Sessions of one partition taken at once. A job has eight partitions: two rounds of exchanges, each of which the auth
 * service's client ends within a few seconds, are over before the claim is.
 */
const BATCH = 8;
/** Exchanges under way at once, of one job. */
const CONCURRENCY = 32;
/** A job gives way to the next one of its schedule, so that none holds its lock for long. */
const JOB_BUDGET_MS = 5_000;
/** The third failure in a row degrades the session (docs/protocol.md). */
const DEGRADED_AFTER = 3;
const FIRST_RETRY_MS = 2_000;
const LONGEST_RETRY_MS = 30_000;

/** Refusals that are about the session; others may be about this token alone, or about how the auth service is asked. */
const TAKEN_BACK: readonly Refusal[] = ['TOKEN_REVOKED', 'USER_BLOCKED'];

/** The partitions of one of `shards` jobs. */
export function partitionsOf(shard: number, shards: number): number[] {
  return Array.from({ length: PARTITIONS }, (_, partition) => partition).filter((one) => one % shards === shard);
}

/**
 * Refreshes what is due in these partitions, until nothing is. Any number of workers may do so at once: a session that
 * one has taken is nobody else's until its claim ends.
 * @returns how many sessions were taken
 */
export async function refreshTokens(partitions: readonly number[], deps: RefreshDeps): Promise<number> {
  const yieldAt = deps.clock.now() + JOB_BUDGET_MS;
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
    const result = due ? await exchange(due, deps) : 'gone';
    deps.metrics.refreshes.inc({ result });
    span.set({ 'tollgate.refresh.result': result });
    deps.metrics.refreshSeconds.observe((deps.clock.now() - startedAt) / 1000);
  } catch (error) {
    // Redis is away: the claim ends by itself and the session is taken again.
    deps.tracing.failed(error);
    deps.logger.warn({ err: error, user: userHash(ref.userId) }, 'a refresh could not be carried through');
  }
}

async function exchange(due: DueToken, deps: RefreshDeps): Promise<'refreshed' | 'failed' | 'refused' | 'gone'> {
  const { ref, token, expiresAt } = due;
  try {
    const issued = await deps.authService.exchange(token);
    if (issued.expiresAt > expiresAt) {
      const current = await deps.tokenSessions.refreshed(ref, issued.accessToken, issued.expiresAt);
      if (current) deps.metrics.refreshLead.observe((expiresAt - deps.clock.now()) / 1000);
      return current ? 'refreshed' : 'gone';
    }
  } catch (thrown) {
    if (isRefusal(thrown)) {
      const revoked = TAKEN_BACK.includes(thrown.code);
      const ended = await deps.tokenSessions.end(due, thrown.code, revoked ? 'session' : 'token');
      // Its tokens have not ended yet: no node takes them any more, and whoever has come back meanwhile has to go.
      if (revoked) await deps.revocations.revoke(ref.session);
      return ended ? 'refused' : 'gone';
    }
    const { code } = toTollgateError(thrown);
    if (code === 'OVERLOADED') throw thrown;
    deps.logger.warn({ user: userHash(ref.userId), code, failures: due.failures + 1 }, 'a refresh failed');
    await deps.tokenSessions.failed(due, nextAttempt(due.failures + 1, code, Math.random()));
    return 'failed';
  }
  // The auth service prolongs it no further: the session has come to its end, which it says once that is reached.
  const retryInMs = Math.max(expiresAt - deps.clock.now(), FIRST_RETRY_MS);
  await deps.tokenSessions.failed(due, { retryInMs, degraded: due.failures + 1 >= DEGRADED_AFTER });
  return 'failed';
}

/**
 * Doubling waits of which up to half is left to chance, so that sessions that failed together do not come together
 * again. While the breaker is open nothing is asked, so that there is nothing to count.
 */
function nextAttempt(failures: number, code: string, random: number): { retryInMs: number; degraded: boolean } {
  const wait = Math.min(FIRST_RETRY_MS * 2 ** (failures - 1), LONGEST_RETRY_MS);
  const degraded = failures >= DEGRADED_AFTER || code === 'AUTH_CIRCUIT_BREAKER_OPEN';
  return { retryInMs: Math.round(wait * (1 - random / 2)), degraded };
}

/** Does `work` for each of `items`, at most `limit` at once. */
async function inParallel<T>(items: readonly T[], limit: number, work: (item: T) => Promise<void>): Promise<void> {
  const remaining = items.values();
  const workThrough = async () => {
    for (const item of remaining) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, workThrough));
}
