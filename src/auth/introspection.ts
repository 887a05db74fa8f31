import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { withoutNulls } from '../lib/jws.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { AuthMethod, Identity } from '../protocol/identity.ts';
import { bearerFault, userFault } from './access-token-rules.ts';
import { presented, type ReadIdentity, readClaims, seconds } from './claims.ts';
import { type AuthServiceClient, type Introspected, isRefusal } from './client/auth-service-client.ts';
import { SERVICE_PREFIX } from './credentials.ts';
import { CLOCK_SKEW_SECONDS, type IdentityProvider } from './providers/identity-provider.ts';
import { refusedClaim } from './token-fault.ts';
import { checkAudience } from './tokens.ts';

/** Tokens that are introspected: none, those that the gateway cannot verify itself, or all. */
export type IntrospectionMode = 'never' | 'opaque' | 'always';

/** Cache lifetime: for this long, a node may accept a token whose revocation it has not received. */
const CACHED_MS = 30_000;
const CACHED_TOKENS = 10_000;
/** Bound for the cache as a whole. A response has about 500 bytes, but may have 64 KiB. */
const CACHED_CHARACTERS = 16 * 2 ** 20;

/** Target of a revocation; one matching member is sufficient. */
export interface RevokedNames {
  readonly userId?: string;
  readonly tokenId?: string;
  readonly sessionId?: string;
}

export interface IntrospectionOptions {
  readonly mode: IntrospectionMode;
  /** The provider whose tokens the auth service introspects. */
  readonly provider: IdentityProvider;
}

/** Cached part of a response: neither the token nor unused claims. */
interface Verdict {
  readonly active: boolean;
  /** Set for a user's access token of this deployment. */
  readonly identity?: ReadIdentity;
  /** Why there is no identity. */
  readonly fault?: TollgateError;
  /** Kind of bearer for which the token is accepted: a user, only a service, or none. */
  readonly kind?: 'user' | 'service' | undefined;
  readonly userId?: string;
  readonly tokenId?: string;
  readonly sessionId?: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number;
}

const INACTIVE: Verdict = { active: false };

/** Members that RFC 7662 section 2.2 makes optional and that revocations refer to. */
const Names = z.object({
  sub: z.string().max(4_096).optional().catch(undefined),
  jti: z.string().max(128).optional().catch(undefined),
  sid: z.string().max(128).optional().catch(undefined),
  exp: z.number().positive().optional().catch(undefined),
});

/**
 * Introspects tokens at the auth service. Responses are cached under the SHA-256 of the token for half a minute, but
 * not beyond the expiry of the token. Concurrent requests for one token share one call.
 */
export class TokenIntrospection {
  readonly mode: IntrospectionMode;
  readonly #authService: Pick<AuthServiceClient, 'introspect'>;
  readonly #clock: Clock;
  readonly #metrics: Pick<Metrics, 'introspections'>;
  readonly #provider: IdentityProvider;
  readonly #verdicts: LRUCache<string, Verdict>;
  #requestedAt = 0;
  readonly #inFlight = new Map<string, Promise<Verdict>>();
  /**
   * Number of revocations seen. A response is not cached if the number changed since its request, as it may be stale.
   */
  #revocations = 0;

  constructor(
    deps: {
      authService: Pick<AuthServiceClient, 'introspect'>;
      clock: Clock;
      metrics: Pick<Metrics, 'introspections'>;
    },
    options: IntrospectionOptions,
  ) {
    this.mode = options.mode;
    this.#authService = deps.authService;
    this.#clock = deps.clock;
    this.#metrics = deps.metrics;
    this.#provider = options.provider;
    this.#verdicts = new LRUCache({
      max: CACHED_TOKENS,
      maxSize: CACHED_CHARACTERS,
      sizeCalculation: ({ fault: _, ...verdict }, key) => key.length + JSON.stringify(verdict).length,
      ttl: CACHED_MS,
      ttlResolution: 0,
      perf: { now: () => deps.clock.now() },
    });
  }

  /**
   * Identifies the user of a token that only the auth service can read.
   * @throws TollgateError TOKEN_REVOKED, TOKEN_EXPIRED, VALIDATION_FAILED, and the codes of an outage
   */
  async identify(token: string, method: AuthMethod): Promise<Identity> {
    const { active, identity, fault, expiresAt } = await this.#verdict(token);
    // The response contains no reason: a token that was never issued and a revoked one are both inactive.
    if (!active) throw refusedClaim('active', 'not active at the auth service');
    if (expiresAt !== undefined && expiresAt + CLOCK_SKEW_SECONDS * 1000 <= this.#clock.now()) {
      throw new TollgateError('TOKEN_EXPIRED');
    }
    if (!identity) throw fault ?? new TollgateError('VALIDATION_FAILED');
    return presented(identity, method);
  }

  /**
   * Confirms that a token that this node has verified is still active; does nothing unless all tokens are
   * introspected. Without a response the token is accepted: it is signed and has not expired, and an outage must not
   * lock out all users.
   * @throws TollgateError TOKEN_REVOKED; VALIDATION_FAILED for another kind of token or another subject
   */
  async confirm(token: string, userId: string, provider = this.#provider.name): Promise<void> {
    // The auth service introspects only its own tokens.
    if (this.mode !== 'always' || provider !== this.#provider.name) return;
    let verdict: Verdict;
    try {
      verdict = await this.#verdict(token);
    } catch (error) {
      if (!(error instanceof TollgateError) || isRefusal(error)) throw error;
      return;
    }
    if (!verdict.active) throw new TollgateError('TOKEN_REVOKED');
    // The response may contain claims that the token lacks, such as the key to which it is bound.
    const kinds = userId.startsWith(SERVICE_PREFIX) ? ['user', 'service'] : ['user'];
    if (!kinds.includes(verdict.kind ?? '')) throw new TollgateError('VALIDATION_FAILED');
    if (verdict.userId !== undefined && verdict.userId !== userId) throw new TollgateError('VALIDATION_FAILED');
  }

  /** Removes the cached responses that a revocation concerns. */
  invalidate(revoked: RevokedNames): void {
    this.#revocations += 1;
    for (const [key, verdict] of this.#verdicts.entries()) {
      if (concerns(revoked, verdict)) this.#verdicts.delete(key);
    }
  }

  /** Clears the cache, because this node may have missed revocations. */
  forget(): void {
    this.#revocations += 1;
    this.#verdicts.clear();
  }

  async #verdict(token: string): Promise<Verdict> {
    const key = digest(token);
    const now = this.#clock.now();
    // If the clock was set back, cached responses would be kept longer by the same amount.
    if (now < this.#requestedAt) this.#verdicts.clear();
    this.#requestedAt = now;
    const cached = this.#verdicts.get(key);
    this.#metrics.introspections.inc({ result: cached ? 'cached' : 'asked' });
    if (cached) return cached;
    let pending = this.#inFlight.get(key);
    if (!pending) {
      pending = this.#request(token, key).finally(() => this.#inFlight.delete(key));
      this.#inFlight.set(key, pending);
    }
    return pending;
  }

  async #request(token: string, key: string): Promise<Verdict> {
    const revocations = this.#revocations;
    const verdict = this.#read(await this.#authService.introspect(token), key);
    const remainingMs = Math.floor((verdict.expiresAt ?? Number.POSITIVE_INFINITY) - this.#clock.now());
    const overtaken = verdict.active && revocations !== this.#revocations;
    if (remainingMs > 0 && !overtaken) this.#verdicts.set(key, verdict, { ttl: Math.min(CACHED_MS, remainingMs) });
    return verdict;
  }

  /** @param key replaces the token id, which opaque tokens may lack */
  #read(answer: Introspected | undefined, key: string): Verdict {
    if (!answer) return INACTIVE;
    const { sub, jti = key, sid, exp } = Names.parse(answer);
    const claims = withoutNulls(answer);
    const kind = kindOf(claims, this.#provider);
    const read = kind === 'user' ? this.#user(claims, key) : {};
    return {
      active: true,
      kind,
      ...read,
      userId: read.identity?.userId ?? sub,
      tokenId: read.identity?.tokenId ?? jti,
      sessionId: read.identity?.sessionId ?? sid,
      expiresAt: exp === undefined ? undefined : exp * 1000,
    };
  }

  /** RFC 7662 requires none of the claims; those that are present are checked as in a JWT. */
  #user(claims: Introspected, key: string): Pick<Verdict, 'identity' | 'fault'> {
    const latest = this.#clock.now() / 1000 + this.#provider.clockSkewSeconds;
    try {
      if (claims.iss !== undefined && claims.iss !== this.#provider.issuer) throw refusedClaim('iss', 'another issuer');
      if (claims.aud !== undefined) checkAudience(claims, this.#provider);
      const notYet = ['iat', 'nbf'].find((claim) => (seconds(claims, claim) ?? 0) > latest);
      if (notYet !== undefined) throw refusedClaim(notYet, 'in the future');
      return { identity: readClaims(this.#provider, claims, () => key).identity };
    } catch (error) {
      if (error instanceof TollgateError) return { fault: error };
      throw error;
    }
  }
}

function kindOf(claims: Introspected, provider: IdentityProvider): Verdict['kind'] {
  if (bearerFault(claims, undefined, provider) !== undefined) return undefined;
  return userFault(claims, provider) === undefined ? 'user' : 'service';
}

function concerns(revoked: RevokedNames, verdict: Verdict): boolean {
  return (['userId', 'tokenId', 'sessionId'] as const).some((name) => {
    return revoked[name] !== undefined && revoked[name] === verdict[name];
  });
}

function digest(token: string): string {
  return createHash('sha256').update(token).digest('base64url');
}
