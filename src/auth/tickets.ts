import { createHash, randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { CLOCK_SKEW_SECONDS } from './providers/identity-provider.ts';

/** Lifetime of a ticket. A page needs less than one second between request and connection. */
export const TICKET_SECONDS = 30;
/** 256 bits: impossible to guess, and the hash needs no salt. */
const TICKET_BYTES = 32;
/**
 * Tickets per user and window: ten per connection of the default cap. Bounds the memory that one user can occupy in
 * Redis.
 */
const TICKETS_PER_WINDOW = 30;
const WINDOW_SECONDS = 60;

/** Stored data of a ticket: the claims of the token that it was issued for. The token itself is stored sealed. */
const StoredTicket = z.object({
  origin: z.string().optional(),
  identity: z.object({
    userId: z.string(),
    email: z.string().optional(),
    plan: z.string(),
    permissions: z.array(z.string()),
    roles: z.array(z.string()),
    featureFlags: z.record(z.string(), z.boolean()),
    sessionId: z.string().optional(),
    tokenId: z.string(),
    tokenIssuedAt: z.number(),
    tokenExpiresAt: z.number(),
    sealedToken: z.string().optional(),
    provider: z.string().optional(),
    tenant: z.string().optional(),
    displayName: z.string().optional(),
  }),
});

/**
 * One-time tickets for clients that can send a credential only in the URL. Redis stores the SHA-256 of a ticket for
 * half a minute. GETDEL ensures that a ticket is accepted once in the whole cluster.
 */
export class Tickets {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;

  constructor({ redis, keys, clock }: { redis: Redis; keys: Keys; clock: Clock }) {
    this.#redis = redis;
    this.#keys = keys;
    this.#clock = clock;
  }

  /**
   * Issues a ticket for the session of `identity`.
   * @param origin origin of the page that may use the ticket; undefined for a client other than a browser
   * @throws TollgateError RATE_LIMITED; OVERLOADED while Redis is unavailable
   */
  async issue(identity: Identity, origin: string | undefined): Promise<string> {
    await this.#count(identity.userId);
    const ticket = randomBytes(TICKET_BYTES).toString('base64url');
    const stored = JSON.stringify({ origin, identity });
    await mapRedisErrors(this.#redis.set(this.#keys.ticket(digest(ticket)), stored, 'EX', TICKET_SECONDS));
    return ticket;
  }

  /**
   * Consumes a ticket, even if the handshake fails later, because its URL may have been logged. Unknown, used and
   * expired tickets and those of another origin cause the same error, so that a client cannot distinguish them.
   * @throws TollgateError VALIDATION_FAILED; TOKEN_EXPIRED if the token that it was issued for has expired;
   *   OVERLOADED
   */
  async consume(ticket: string, origin: string | undefined): Promise<Identity> {
    const stored = await mapRedisErrors(this.#redis.getdel(this.#keys.ticket(digest(ticket))));
    if (stored === null) throw new TollgateError('VALIDATION_FAILED');
    const { identity, origin: boundTo } = StoredTicket.parse(JSON.parse(stored));
    // A missing origin must match too: a page cannot use the ticket of a program, or a program that of a page.
    if (boundTo !== origin) throw new TollgateError('VALIDATION_FAILED');
    const { email, sessionId, tokenExpiresAt } = identity;
    if (tokenExpiresAt + CLOCK_SKEW_SECONDS * 1000 <= this.#clock.now()) throw new TollgateError('TOKEN_EXPIRED');
    return { ...identity, email, sessionId, method: 'ticket' };
  }

  /** One round trip: Redis executes pipelined commands in order. @throws TollgateError RATE_LIMITED, OVERLOADED */
  async #count(userId: string): Promise<void> {
    const key = this.#keys.user(userId).ticketRate;
    const [count, , remainingMs] = await mapRedisErrors(
      Promise.all([
        this.#redis.incr(key),
        // NX: the window starts with its first ticket. If the expiry was not set, the next ticket sets it.
        this.#redis.expire(key, WINDOW_SECONDS, 'NX'),
        this.#redis.pttl(key),
      ]),
    );
    if (count <= TICKETS_PER_WINDOW) return;
    const text = 'Rate limit exceeded: too many tickets. Retry later.';
    throw new TollgateError('RATE_LIMITED', { text, retryAfterMs: Math.max(remainingMs, 1) });
  }
}

function digest(ticket: string): string {
  return createHash('sha256').update(ticket).digest('base64url');
}
