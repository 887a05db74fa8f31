import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { AuthMethod, Identity } from '../protocol/identity.ts';
import { bearerFault, userFault } from './access-token-rules.ts';
import { type AuthServiceClient, type Introspected, isRefusal } from './client/auth-service-client.ts';
import { SERVICE_PREFIX } from './credentials.ts';
import { AccessClaims, CLOCK_SKEW_SECONDS, userIdentity } from './tokens.ts';

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
  readonly issuer: string;
  readonly audience: string;
}

/** Cached part of a response: neither the token nor unused claims. */
interface Verdict {
  readonly active: boolean;
  /** Set for a user's access token of this deployment. */
  readonly claims?: AccessClaims;
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
  sub: z.string().max(256).optional().catch(undefined),
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
  readonly #claims: z.ZodType<AccessClaims, unknown>;
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
    this.#claims = userClaims(options, deps.clock);
    this.#verdicts = new LRUCache({
      max: CACHED_TOKENS,
      maxSize: CACHED_CHARACTERS,
      sizeCalculation: (verdict, key) => key.length + JSON.stringify(verdict).length,
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
    const { active, claims, expiresAt } = await this.#verdict(token);
    // The response contains no reason: a token that was never issued and a revoked one are both inactive.
    if (!active) throw new TollgateError('VALIDATION_FAILED');
    if (expiresAt !== undefined && expiresAt + CLOCK_SKEW_SECONDS * 1000 <= this.#clock.now()) {
      throw new TollgateError('TOKEN_EXPIRED');
    }
    if (!claims) throw new TollgateError('VALIDATION_FAILED');
    return userIdentity(claims, method);
  }

  /**
   * Confirms that a token that this node has verified is still active; does nothing unless all tokens are
   * introspected. Without a response the token is accepted: it is signed and has not expired, and an outage must not
   * lock out all users.
   * @throws TollgateError TOKEN_REVOKED; VALIDATION_FAILED for another kind of token or another subject
   */
  async confirm(token: string, userId: string): Promise<void> {
    if (this.mode !== 'always') return;
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
    const kind = kindOf(answer);
    const claims = this.#claims.safeParse({ jti: key, ...answer });
    return {
      active: true,
      kind,
      claims: kind === 'user' ? claims.data : undefined,
      userId: sub,
      tokenId: jti,
      sessionId: sid,
      expiresAt: exp === undefined ? undefined : exp * 1000,
    };
  }
}

/** Schema of a user's claims. RFC 7662 requires none of them; those that are present are validated as for a JWT. */
function userClaims({ issuer, audience }: IntrospectionOptions, clock: Clock): z.ZodType<AccessClaims, unknown> {
  const nowSeconds = () => clock.now() / 1000 + CLOCK_SKEW_SECONDS;
  return AccessClaims.extend({
    // Opaque tokens may have no id.
    jti: AccessClaims.shape.jti.default(''),
    iat: AccessClaims.shape.iat.default(1),
    iss: z.literal(issuer).optional(),
    aud: z.union([z.literal(audience), z.array(z.string()).refine((all) => all.includes(audience))]).optional(),
    nbf: z.number().optional(),
  }).refine(({ iat, nbf = 0 }) => Math.max(iat, nbf) <= nowSeconds());
}

function kindOf(answer: Introspected): Verdict['kind'] {
  if (bearerFault(answer) !== undefined) return undefined;
  return userFault(answer) === undefined ? 'user' : 'service';
}

function concerns(revoked: RevokedNames, verdict: Verdict): boolean {
  return (['userId', 'tokenId', 'sessionId'] as const).some((name) => {
    return revoked[name] !== undefined && revoked[name] === verdict[name];
  });
}

function digest(token: string): string {
  return createHash('sha256').update(token).digest('base64url');
}
