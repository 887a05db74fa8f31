import { createSecretKey, type KeyObject } from 'node:crypto';
import jwt from 'jsonwebtoken';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { hasJoseHeader, isCanonical, type JsonObject, jsonObject } from '../lib/jws.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { AuthMethod, Identity } from '../protocol/identity.ts';
import { bearerFault, headerFault, type TokenTypes, tokenTypes, userFault } from './access-token-rules.ts';
import { SERVICE_PREFIX } from './credentials.ts';
import { KeySet } from './key-set.ts';

/** Plan for tokens without a plan claim. */
export const UNNAMED_PLAN = 'free';

/** Tolerated difference between the clocks of issuer and gateway. */
export const CLOCK_SKEW_SECONDS = 5;
/** The year 5138. A later time is a value in milliseconds by mistake; such a token would practically never expire. */
const MAX_TIME_SECONDS = 1e11;

/** NumericDate, which may have a fraction (RFC 7519 section 2). */
const seconds = z.number().positive().max(MAX_TIME_SECONDS);
const identifier = z.string().min(1).max(128);

/** Claims of a user's token that Tollgate reads; others are ignored. */
export const AccessClaims = z.object({
  // A user id is part of Redis keys and of paths, so it has no spaces and no control characters.
  // The prefix of services is excluded, so that no user can act as a service.
  sub: z.string().regex(/^(?!service:)[\w.@:+-]{1,128}$/),
  exp: seconds,
  iat: seconds,
  jti: identifier,
  sid: identifier.optional(),
  email: z.string().max(320).optional(),
  plan: z.string().max(64).default(UNNAMED_PLAN),
  permissions: z.array(z.string().max(64)).max(64).default([]),
  roles: z.array(z.string().max(64)).max(64).default([]),
  feature_flags: z.record(z.string(), z.boolean()).default({}),
  token_use: z.literal('access').optional(),
});

export type AccessClaims = z.infer<typeof AccessClaims>;

const ServiceClaims = z.object({
  sub: z.string().regex(/^service:[\w.-]{1,64}$/),
  exp: seconds,
  iat: seconds,
  jti: identifier,
  scope: z.string().max(512).default(''),
  token_use: z.literal('service'),
});

/** A service and the scopes of its token. */
export interface ServiceIdentity {
  readonly serviceId: string;
  readonly scopes: readonly string[];
  readonly tokenId: string;
  /** Milliseconds since the epoch. */
  readonly tokenIssuedAt: number;
  readonly tokenExpiresAt: number;
}

export interface TokenOptions {
  readonly issuer: string;
  readonly audience: string;
  /** HS256 keys, the current one first; the second one is the previous key during a rotation. */
  readonly secrets: readonly string[];
  /** URL of the RS256 and ES256 keys. Configuration alone determines the accepted algorithms, never a token. */
  readonly jwksUrl: string | undefined;
  /** Accepted values of the header parameter `typ`; `none` accepts a header without it. */
  readonly acceptedTypes: readonly string[];
}

/** A token with valid signature, issuer, audience and times. */
interface VerifiedToken {
  readonly header: JsonObject;
  readonly claims: JsonObject;
}

type Keyed = { readonly key: KeyObject; readonly algorithms: jwt.Algorithm[] };

/**
 * Verifies tokens: encoding, header, signature, issuer, audience, times, kind and the form of the claims. An HS256
 * token is verified without network access.
 */
export class TokenVerifier {
  readonly #options: TokenOptions;
  readonly #clock: Clock;
  /** Key objects, because jsonwebtoken first tries a string as a public key, at fifty times the cost. */
  readonly #secrets: readonly KeyObject[];
  readonly #keySet: KeySet | undefined;
  readonly #types: TokenTypes;

  constructor({ clock }: { clock: Clock }, options: TokenOptions) {
    this.#options = options;
    this.#clock = clock;
    this.#types = tokenTypes(options.acceptedTypes);
    this.#secrets = options.secrets.map((secret) => createSecretKey(Buffer.from(secret)));
    this.#keySet = options.jwksUrl === undefined ? undefined : new KeySet({ clock }, { url: options.jwksUrl });
  }

  /** @throws TollgateError TOKEN_EXPIRED, VALIDATION_FAILED; AUTH_SERVICE_UNAVAILABLE if keys cannot be fetched */
  async verifyAccess(token: string, method: AuthMethod): Promise<Identity> {
    const { header, claims } = await this.#verify(token);
    refuseFor(bearerFault(claims, header) ?? userFault(claims));
    const read = AccessClaims.safeParse(claims);
    if (!read.success) throw new TollgateError('VALIDATION_FAILED', { cause: read.error });
    return userIdentity(read.data, method);
  }

  /** @throws TollgateError as `verifyAccess` */
  async verifyService(token: string): Promise<ServiceIdentity> {
    const { header, claims } = await this.#verify(token);
    refuseFor(bearerFault(claims, header));
    const read = ServiceClaims.safeParse(claims);
    if (!read.success) throw new TollgateError('VALIDATION_FAILED', { cause: read.error });
    const { sub, scope, jti, iat, exp } = read.data;
    return {
      serviceId: sub.slice(SERVICE_PREFIX.length),
      scopes: scope.split(' ').filter(Boolean),
      tokenId: jti,
      tokenIssuedAt: Math.floor(iat * 1000),
      tokenExpiresAt: Math.floor(exp * 1000),
    };
  }

  async #verify(token: string): Promise<VerifiedToken> {
    const header = this.#headerOf(token);
    let failure: unknown;
    for (const { key, algorithms } of await this.#keysFor(header)) {
      try {
        this.#verifyWith(token, key, algorithms);
        return { header, claims: claimsOf(token) };
      } catch (error) {
        // The next key can succeed only after a signature mismatch.
        failure = error;
        if (!(error instanceof jwt.JsonWebTokenError) || error.message !== 'invalid signature') break;
      }
    }
    throw tokenError(failure);
  }

  /** Returns the header of a canonically encoded token. @throws TollgateError VALIDATION_FAILED */
  #headerOf(token: string): JsonObject {
    if (!isCanonical(token)) throw new TollgateError('VALIDATION_FAILED', { cause: new Error('not canonical') });
    const header = jsonObject(token.slice(0, token.indexOf('.')));
    if (header === undefined) throw new TollgateError('VALIDATION_FAILED', { cause: new Error('no header') });
    refuseFor(headerFault(header, this.#types));
    return header;
  }

  #verifyWith(token: string, key: KeyObject, algorithms: jwt.Algorithm[]): void {
    const now = Math.floor(this.#clock.now() / 1000);
    const payload = jwt.verify(token, key, {
      algorithms,
      issuer: this.#options.issuer,
      audience: this.#options.audience,
      clockTolerance: CLOCK_SKEW_SECONDS,
      clockTimestamp: now,
    });
    const issuedAt = typeof payload === 'object' ? payload.iat : undefined;
    if (issuedAt !== undefined && issuedAt > now + CLOCK_SKEW_SECONDS) {
      throw new jwt.JsonWebTokenError('issued in the future');
    }
  }

  /** Returns the keys that may have signed a token with this header, according to the configured algorithms. */
  async #keysFor({ alg, kid }: JsonObject): Promise<Keyed[]> {
    if (alg === 'HS256' && this.#secrets.length > 0) {
      return this.#secrets.map((key) => ({ key, algorithms: ['HS256'] }));
    }
    if ((alg === 'RS256' || alg === 'ES256') && this.#keySet && typeof kid === 'string') {
      return [{ key: await this.#keySet.get(kid), algorithms: [alg] }];
    }
    throw new TollgateError('VALIDATION_FAILED');
  }
}

/** Maps the claims of a user's token to an identity. */
export function userIdentity(claims: AccessClaims, method: AuthMethod): Identity {
  return {
    userId: claims.sub,
    email: claims.email,
    plan: claims.plan,
    permissions: claims.permissions,
    roles: claims.roles,
    featureFlags: claims.feature_flags,
    sessionId: claims.sid,
    tokenId: claims.jti,
    tokenIssuedAt: Math.floor(claims.iat * 1000),
    tokenExpiresAt: Math.floor(claims.exp * 1000),
    method,
  };
}

/**
 * Whether the gateway can verify a bearer token itself: it has three parts, and the first is a JOSE header. Any other
 * token can be read only by its issuer.
 */
export function isJwt(token: string): boolean {
  return token.split('.').length === 3 && hasJoseHeader(token);
}

/** @param fault result of a rule in `access-token-rules.ts` */
function refuseFor(fault: string | undefined): void {
  if (fault !== undefined) throw new TollgateError('VALIDATION_FAILED', { cause: new Error(fault) });
}

/** Returns the claims of a verified token. @throws TollgateError VALIDATION_FAILED */
function claimsOf(token: string): JsonObject {
  const claims = jsonObject(token.slice(token.indexOf('.') + 1, token.lastIndexOf('.')));
  if (claims === undefined) throw new TollgateError('VALIDATION_FAILED', { cause: new Error('no claims') });
  return claims;
}

function tokenError(failure: unknown): TollgateError {
  if (failure instanceof TollgateError) return failure;
  if (failure instanceof jwt.TokenExpiredError) return new TollgateError('TOKEN_EXPIRED', { cause: failure });
  return new TollgateError('VALIDATION_FAILED', { cause: failure });
}
