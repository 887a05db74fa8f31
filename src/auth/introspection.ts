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

/** Which tokens the auth service is asked about: none, those that cannot be verified here, or all. */
export type IntrospectionMode = 'never' | 'opaque' | 'always';

/** How long a token that was revoked elsewhere, without word to this node, can go on being taken. */
const CACHED_MS = 30_000;
const CACHED_TOKENS = 10_000;
/** An answer has some 500 bytes, but may have 64 KiB. */
const CACHED_CHARACTERS = 16 * 2 ** 20;

/** What a revocation names; each member alone is enough. */
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

/** What is kept of an answer: neither the token, nor claims that are not read. */
interface Verdict {
  readonly active: boolean;
  /** Set for a user's access token of this installation. */
  readonly claims?: AccessClaims;
  /** Which bearer the token is acceptable for, by its kind: a user's, or only a service's, or none. */
  readonly kind?: 'user' | 'service' | undefined;
  readonly userId?: string;
  readonly tokenId?: string;
  readonly sessionId?: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number;
}

const INACTIVE: Verdict = { active: false };

/** What RFC 7662 section 2.2 leaves open and a revocation can name. */
const Names = z.object({
  sub: z.string().max(256).optional().catch(undefined),
  jti: z.string().max(128).optional().catch(undefined),
  sid: z.string().max(128).optional().catch(undefined),
  exp: z.number().positive().optional().catch(undefined),
});

/**
 * Asks the auth service what tokens are worth. Answers are kept by the SHA-256 of their token for half a minute, and no
 * longer than the token lives; any number who ask about one token at once cost one request.
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
  /** Counts them: an answer that a revocation overtook may be of the time before it, and is not kept. */
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
   * Who bears a token that only the auth service can read.
   * @throws TollgateError TOKEN_REVOKED, TOKEN_EXPIRED, VALIDATION_FAILED, and the codes of an outage
   */
  async identify(token: string, method: AuthMethod): Promise<Identity> {
    const { active, claims, expiresAt } = await this.#verdict(token);
    // The service does not say why, and one that it never issued is no more active than one that it took back.
    if (!active) throw new TollgateError('VALIDATION_FAILED');
    if (expiresAt !== undefined && expiresAt + CLOCK_SKEW_SECONDS * 1000 <= this.#clock.now()) {
      throw new TollgateError('TOKEN_EXPIRED');
    }
    if (!claims) throw new TollgateError('VALIDATION_FAILED');
    return userIdentity(claims, method);
  }

  /**
   * Whether a token that has been verified here is still good, where all tokens are asked about. Without an answer it is:
   * it is signed and in its time, and an outage must not lock everybody out.
   * @throws TollgateError TOKEN_REVOKED, VALIDATION_FAILED for another kind of token or another subject
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
    // The answer may tell what the token does not, such as the key that it is bound to.
    const kinds = userId.startsWith(SERVICE_PREFIX) ? ['user', 'service'] : ['user'];
    if (!kinds.includes(verdict.kind ?? '')) throw new TollgateError('VALIDATION_FAILED');
    if (verdict.userId !== undefined && verdict.userId !== userId) throw new TollgateError('VALIDATION_FAILED');
  }

  /** Forgets what has been said of the tokens that were revoked. */
  invalidate(revoked: RevokedNames): void {
    this.#revocations += 1;
    for (const [key, verdict] of this.#verdicts.entries()) {
      if (concerns(revoked, verdict)) this.#verdicts.delete(key);
    }
  }

  /** Forgets everything: revocations may have been missed. */
  forget(): void {
    this.#revocations += 1;
    this.#verdicts.clear();
  }

  async #verdict(token: string): Promise<Verdict> {
    const key = digest(token);
    const now = this.#clock.now();
    // The clock was set back: answers would be kept for that much longer.
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

  /** @param key stands for the token's id, which opaque tokens need not have */
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

/** The form of a user's claims, as strict as for a JWT about what the answer says: RFC 7662 requires none of it. */
function userClaims({ issuer, audience }: IntrospectionOptions, clock: Clock): z.ZodType<AccessClaims, unknown> {
  const nowSeconds = () => clock.now() / 1000 + CLOCK_SKEW_SECONDS;
  return AccessClaims.extend({
    // Opaque tokens have no id of their own.
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
