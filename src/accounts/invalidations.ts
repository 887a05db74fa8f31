import { parseTraceParent, type TraceParent, type Tracing } from '../lib/tracing.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/**
 * What can be revoked individually: a token by its `jti`, a session by its `sid`. The tokens of a user are revoked by a
 * time in the account instead, which each admission reads anyway.
 */
export type Subject = `jti:${string}` | `sid:${string}`;

/**
 * A change that every gateway must apply. An account is only named: each node reads its stored state, so concurrent
 * changes have the stored result whatever the order of their invalidations.
 */
export type Invalidation = InvalidatedState & {
  /** Trace of the request that caused it. */
  readonly traceparent?: TraceParent;
};

type InvalidatedState =
  | { readonly kind: 'account'; readonly userId: string }
  /** @see Revocations; `untilMs` is the time after which nodes may drop it. */
  | { readonly kind: 'revoked'; readonly subject: Subject; readonly untilMs: number }
  /** Plans and tools must be reloaded from their files. */
  | { readonly kind: 'catalogues' };

/**
 * Approximate length of the stream. At 100 invalidations per second it covers a disconnection of more than 90 seconds.
 * A node that was disconnected for longer reloads all state (see `InvalidationReader`).
 */
export const INVALIDATIONS_KEPT = 10_000;
/** Expiry of an unused stream; a node whose position it contained reloads all state. */
export const INVALIDATIONS_TTL_MS = 7 * 86_400_000;

export interface InvalidationDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  /** Absent in processes without tracing. */
  readonly tracing?: Pick<Tracing, 'traceParent'> | undefined;
}

/**
 * Publishes that a user's account has changed. Call it after the change is stored, never before. One round trip.
 * @throws RedisUnavailable; the caller repeats the change to publish it
 */
export function invalidateAccount(deps: InvalidationDeps, userId: string): Promise<void> {
  return publishInvalidation(deps, 'account', ['user', userId]);
}

/** Makes all processes reload plans and tools. @throws RedisUnavailable */
export function invalidateCatalogues(deps: InvalidationDeps): Promise<void> {
  return publishInvalidation(deps, 'catalogues', []);
}

/**
 * Publishes an entry without a user, after the entries that name an erased user. It moves every node's position past
 * those entries before they are removed.
 * @throws RedisUnavailable
 */
export function advancePositions(deps: InvalidationDeps): Promise<void> {
  return publishInvalidation(deps, 'erasure', []);
}

async function publishInvalidation(
  { redis, keys, tracing }: InvalidationDeps,
  kind: string,
  fields: readonly string[],
): Promise<void> {
  const trace = tracing?.traceParent === undefined ? [] : ['trace', tracing.traceParent];
  const stream = keys.invalidations;
  await mapRedisErrors(
    Promise.all([
      redis.xadd(stream, 'MAXLEN', '~', INVALIDATIONS_KEPT, '*', 'kind', kind, ...fields, ...trace),
      redis.pexpire(stream, INVALIDATIONS_TTL_MS),
      // Last, so that a woken node finds the entry.
      redis.spublish(keys.invalidationChannel, kind),
    ]),
  );
}

/** Returns undefined for a kind that only a newer version knows. */
export function parseInvalidation(fields: readonly string[]): Invalidation | undefined {
  const values = new Map<string, string>();
  for (let at = 0; at + 1 < fields.length; at += 2) values.set(fields[at] ?? '', fields[at + 1] ?? '');
  const kind = values.get('kind');
  const userId = values.get('user');
  const subject = values.get('subject');
  const traceparent = parseTraceParent(values.get('trace'));
  const trace = traceparent === undefined ? {} : { traceparent };
  if (kind === 'account' && userId) return { kind, userId, ...trace };
  if (kind === 'catalogues') return { kind, ...trace };
  const untilMs = Number(values.get('until'));
  if (kind === 'revoked' && isSubject(subject) && untilMs > 0) return { kind, subject, untilMs, ...trace };
  return undefined;
}

export function isSubject(text: string | undefined): text is Subject {
  return text !== undefined && /^(jti|sid):./.test(text);
}
