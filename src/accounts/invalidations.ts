import { parseTraceParent, type TraceParent, type Tracing } from '../lib/tracing.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/**
 * What can be revoked by itself: a token by its `jti`, a session by its `sid`. The tokens of a user are revoked by a
 * time in the user's account instead, which an admission reads anyway.
 */
export type Subject = `jti:${string}` | `sid:${string}`;

/**
 * What every gateway must learn. An account is only named: a node reads what is stored of it, so that two changes in
 * flight end as they are stored, whatever order they are heard in.
 */
export type Invalidation = InvalidatedState & {
  /** Of the request that decided it. */
  readonly traceparent?: TraceParent;
};

type InvalidatedState =
  | { readonly kind: 'account'; readonly userId: string }
  /** @see Revocations; `untilMs` is when it may be forgotten. */
  | { readonly kind: 'revoked'; readonly subject: Subject; readonly untilMs: number }
  /** Plans and tools are to be read from their files again. */
  | { readonly kind: 'catalogues' };

/**
 * Entries that the stream keeps, about: at a hundred announcements a second a node may be away for more than a minute
 * and a half. One that was away for longer looks at everything again (see `InvalidationReader`).
 */
export const INVALIDATIONS_KEPT = 10_000;
/** How long the stream lives when nothing is announced; a node whose place in it is gone looks at everything again. */
export const INVALIDATIONS_TTL_MS = 7 * 86_400_000;

export interface InvalidationDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  /** Absent in processes that have no traces. */
  readonly tracing?: Pick<Tracing, 'traceParent'> | undefined;
}

/**
 * Tells every gateway that a user's account was changed; after the change is stored, never before. One round trip.
 * @throws TollgateError OVERLOADED while Redis is away: the change is stored then, and making it again announces it
 */
export function invalidateAccount(deps: InvalidationDeps, userId: string): Promise<void> {
  return publishInvalidation(deps, 'account', ['user', userId]);
}

/** Tells every gateway and worker to read plans and tools again. @throws TollgateError OVERLOADED while Redis is away */
export function invalidateCatalogues(deps: InvalidationDeps): Promise<void> {
  return publishInvalidation(deps, 'catalogues', []);
}

/**
 * An entry that names nobody, behind those that name an erased user and are about to be removed.
 * @throws TollgateError OVERLOADED while Redis is away
 */
export function announceErasure(deps: InvalidationDeps): Promise<void> {
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
      // Last: whoever is woken finds the entry.
      redis.spublish(keys.invalidationChannel, kind),
    ]),
  );
}

/** Undefined for what a newer version announces and this one does not know. */
export function parseInvalidation(fields: readonly string[]): Invalidation | undefined {
  const values = new Map<string, string>();
  for (let at = 0; at + 1 < fields.length; at += 2) values.set(fields[at] ?? '', fields[at + 1] ?? '');
  const [kind, userId, subject] = [values.get('kind'), values.get('user'), values.get('subject')];
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
