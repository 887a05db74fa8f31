import { hash } from 'node:crypto';
import { isObject } from '../lib/json.ts';
import type { JsonObject } from '../lib/jws.ts';
import type { AuthMethod, Identity } from '../protocol/identity.ts';
import { claimAt, firstClaim, mapped, textsOf, unmet } from './providers/claim-mapping.ts';
import type { IdentityProvider, MappedField } from './providers/identity-provider.ts';
import { refusedClaim } from './token-fault.ts';
import { userIdOf } from './user-id.ts';

/** Plan for tokens without a plan claim. */
export const UNNAMED_PLAN = 'free';

/** The year 5138. A later time is a value in milliseconds by mistake; such a token would practically never expire. */
const MAX_TIME_SECONDS = 1e11;
/** Bounds of the lists of an identity, and of each of their entries. */
const MAX_LISTED = 64;
const MAX_NAME_LENGTH = 64;
/** Longer ids of tokens and sessions are replaced by a hash. */
const MAX_ID_LENGTH = 128;
const MAX_EMAIL_LENGTH = 320;
const MAX_DISPLAY_NAME_LENGTH = 256;
/**
 * Assumed age of a token that has no `iat` at its expiry. Issue times before the real one are safe: a revocation of all
 * tokens of a user then also covers this one.
 */
const LONGEST_LIFE_SECONDS = 86_400;

/** An identity as a token states it, before the way of its presentation is known. */
export type ReadIdentity = Omit<Identity, 'method'>;

/** Part of a claim that was not used, with the number of dropped values. Logged; never a reason to refuse a token. */
export interface IgnoredClaim {
  readonly claim: string;
  readonly ignored: number;
}

export interface ReadClaims {
  readonly identity: ReadIdentity;
  readonly ignored: readonly IgnoredClaim[];
}

/** Shared by all identities without names or flags, because each connection keeps its identity. */
const NO_NAMES: readonly string[] = Object.freeze([]);
const NO_FLAGS: Readonly<Record<string, boolean>> = Object.freeze({});

/**
 * Reads the identity of a user from verified claims, with the mapping of the provider. Claims that are null count as
 * missing. Only the user id and the expiry are necessary; values of optional claims that have another form or exceed
 * the bounds are ignored.
 * @param derivedId returns what replaces the token id if the token has none
 * @throws TollgateError VALIDATION_FAILED with the name of the claim
 */
export function readClaims(provider: IdentityProvider, claims: JsonObject, derivedId: () => string): ReadClaims {
  const missing = unmet(claims, provider.required);
  if (missing) throw refusedClaim(missing.claim, 'a required claim is missing or has another value');
  const reader = new Reader(provider, claims);
  const identity = {
    userId: userId(provider, claims),
    email: reader.text('email', MAX_EMAIL_LENGTH),
    plan: reader.plan(),
    permissions: reader.list('permissions'),
    roles: reader.list('roles'),
    featureFlags: reader.flags(),
    sessionId: reader.id('session_id'),
    tokenId: reader.id('token_id') ?? derivedId(),
    ...readTimes(claims),
    provider: provider.name,
    tenant: reader.text('tenant', MAX_DISPLAY_NAME_LENGTH),
    displayName: reader.text('display_name', MAX_DISPLAY_NAME_LENGTH),
  };
  return { identity, ignored: reader.ignored };
}

/** Completes an identity with the way in which its token was presented. */
export function presented(identity: ReadIdentity, method: AuthMethod): Identity {
  return { ...identity, method };
}

/**
 * Returns expiry and issue time of a token in milliseconds. NumericDate may have a fraction (RFC 7519 section 2).
 * @throws TollgateError VALIDATION_FAILED
 */
export function readTimes(claims: JsonObject): Pick<Identity, 'tokenIssuedAt' | 'tokenExpiresAt'> {
  const exp = seconds(claims, 'exp');
  if (exp === undefined) throw refusedClaim('exp', 'the claim is missing');
  const issuedAt = seconds(claims, 'iat') ?? seconds(claims, 'nbf') ?? Math.max(exp - LONGEST_LIFE_SECONDS, 0);
  return { tokenIssuedAt: Math.floor(issuedAt * 1000), tokenExpiresAt: Math.floor(exp * 1000) };
}

/**
 * Returns a NumericDate; undefined if the claim is missing.
 * @throws TollgateError VALIDATION_FAILED for another value
 */
export function seconds(claims: JsonObject, claim: string): number | undefined {
  const value = claimAt(claims, claim);
  if (value === undefined) return undefined;
  if (typeof value === 'number' && value >= 0 && value <= MAX_TIME_SECONDS) return value;
  throw refusedClaim(claim, 'not a time in seconds since 1970');
}

/**
 * Derives a token id from the signed part of a token. The signature is left out: a holder of an ES256 token can form a
 * second valid signature.
 * @param token compact JWS
 */
export function derivedTokenId(token: string): string {
  return digest(token.slice(0, token.lastIndexOf('.')));
}

/** An id of a token or a session; a number counts as its text. Undefined for a value that is no id. */
export function idOf(value: unknown): string | undefined {
  const id = typeof value === 'number' ? String(value) : value;
  if (typeof id !== 'string' || id === '') return undefined;
  return id.length > MAX_ID_LENGTH ? digest(id) : id;
}

function userId(provider: IdentityProvider, claims: JsonObject): string {
  const { user_id: rule } = provider.claims;
  const found = firstClaim(claims, rule);
  const claim = found?.claim ?? rule.from[0] ?? 'sub';
  if (typeof found?.value !== 'string') throw refusedClaim(claim, 'the user id is missing or is not a string');
  const id = userIdOf(found.value, provider.userPrefix);
  if (id === undefined) throw refusedClaim(claim, 'no user id: empty, above 255 characters, or the prefix of services');
  return id;
}

function digest(text: string): string {
  return hash('sha256', text, 'base64url');
}

/** Reads optional fields and records what it ignores. */
class Reader {
  readonly ignored: IgnoredClaim[] = [];
  readonly #rules: IdentityProvider['claims'];
  readonly #claims: JsonObject;

  constructor({ claims: rules }: IdentityProvider, claims: JsonObject) {
    this.#rules = rules;
    this.#claims = claims;
  }

  /** The first of several plans; with a map, the first entry of the map that the claim contains. */
  plan(): string {
    const values = this.#values('plan');
    const plan = values.find((one) => one.length <= MAX_NAME_LENGTH);
    if (this.#rules.plan.map === undefined) this.#ignore('plan', values.length - (plan === undefined ? 0 : 1));
    return plan ?? UNNAMED_PLAN;
  }

  list(field: 'permissions' | 'roles'): readonly string[] {
    // One text with several permissions is an OAuth scope; a role may contain spaces.
    const values = this.#values(field, field === 'permissions' ? ' ' : undefined);
    const names = [...new Set(values.filter((one) => one.length <= MAX_NAME_LENGTH))];
    this.#ignore(field, new Set(values).size - Math.min(names.length, MAX_LISTED));
    return names.length === 0 ? NO_NAMES : names.slice(0, MAX_LISTED);
  }

  flags(): Readonly<Record<string, boolean>> {
    const found = firstClaim(this.#claims, this.#rules.feature_flags)?.value;
    // A list contains the names of the flags that are set.
    const entries: [string, unknown][] = isObject(found)
      ? Object.entries(found)
      : this.#values('feature_flags').map((flag) => [flag, true]);
    const read = entries.filter((entry): entry is [string, boolean] => typeof entry[1] === 'boolean');
    this.#ignore('feature_flags', entries.length - Math.min(read.length, MAX_LISTED));
    return read.length === 0 ? NO_FLAGS : Object.fromEntries(read.slice(0, MAX_LISTED));
  }

  text(field: 'email' | 'tenant' | 'display_name', maxLength: number): string | undefined {
    const value = this.#values(field)[0];
    if (value === undefined || value.length <= maxLength) return value;
    this.#ignore(field, 1);
    return undefined;
  }

  id(field: 'session_id' | 'token_id'): string | undefined {
    const found = firstClaim(this.#claims, this.#rules[field]);
    const id = idOf(found?.value);
    if (found && id === undefined) this.#ignore(field, 1);
    return id;
  }

  #values(field: MappedField, separator?: string): readonly string[] {
    const rule = this.#rules[field];
    const { texts, ignored } = textsOf(firstClaim(this.#claims, rule)?.value, separator);
    this.#ignore(field, ignored);
    return mapped(rule, texts);
  }

  #ignore(field: MappedField, ignored: number): void {
    if (ignored <= 0) return;
    this.ignored.push({ claim: firstClaim(this.#claims, this.#rules[field])?.claim ?? field, ignored });
  }
}
