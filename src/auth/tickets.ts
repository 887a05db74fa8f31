import { createHash, randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { CLOCK_SKEW_SECONDS } from './tokens.ts';

/** From the purchase to the connection: a page needs less than one. */
export const TICKET_SECONDS = 30;
/** 256 bits: not to be guessed, and no salt needed for the hash. */
const TICKET_BYTES = 32;
/** Ten for each connection that a user may have by default; it bounds what one user can make Redis hold. */
const TICKETS_PER_WINDOW = 30;
const WINDOW_SECONDS = 60;

/** What a ticket stands for: the claims of the token it was bought with; the token itself only sealed. */
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
  }),
});

/**
 * One-time tickets, for clients that can put a credential nowhere but into a URL. Redis holds the SHA-256 of a ticket for
 * half a minute; GETDEL makes the first to present it the only one, on whichever node.
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
   * A ticket for the session of `identity`, to be used from `origin`; undefined for a client that is no page.
   * @throws TollgateError RATE_LIMITED, OVERLOADED while Redis is away
   */
  async issue(identity: Identity, origin: string | undefined): Promise<string> {
    await this.#count(identity.userId);
    const ticket = randomBytes(TICKET_BYTES).toString('base64url');
    const stored = JSON.stringify({ origin, identity });
    await mapRedisErrors(this.#redis.set(this.#keys.ticket(digest(ticket)), stored, 'EX', TICKET_SECONDS));
    return ticket;
  }

  /**
   * Spends a ticket, whatever comes of the connection: one that has stood in a URL may stand in a log. Unknown, spent,
   * run out and of another origin are one answer, so that none of them can be told from the others.
   * @throws TollgateError VALIDATION_FAILED, TOKEN_EXPIRED when the token it was bought with has ended, OVERLOADED
   */
  async consume(ticket: string, origin: string | undefined): Promise<Identity> {
    const stored = await mapRedisErrors(this.#redis.getdel(this.#keys.ticket(digest(ticket))));
    if (stored === null) throw new TollgateError('VALIDATION_FAILED');
    const { identity, origin: boundTo } = StoredTicket.parse(JSON.parse(stored));
    // No origin is one too: a ticket that a program bought is no use to a page, nor the other way round.
    if (boundTo !== origin) throw new TollgateError('VALIDATION_FAILED');
    const { email, sessionId, tokenExpiresAt } = identity;
    if (tokenExpiresAt + CLOCK_SKEW_SECONDS * 1000 <= this.#clock.now()) throw new TollgateError('TOKEN_EXPIRED');
    return { ...identity, email, sessionId, method: 'ticket' };
  }

  /** One round trip: Redis keeps the order of what is sent together. @throws TollgateError RATE_LIMITED, OVERLOADED */
  async #count(userId: string): Promise<void> {
    const key = this.#keys.user(userId).ticketRate;
    const [count, , remainingMs] = await mapRedisErrors(
      Promise.all([
        this.#redis.incr(key),
        // NX: the window begins with its first ticket. A window that was left without an end gets one from the next.
        this.#redis.expire(key, WINDOW_SECONDS, 'NX'),
        this.#redis.pttl(key),
      ]),
    );
    if (count <= TICKETS_PER_WINDOW) return;
    const text = 'Rate limit exceeded: too many tickets; try again later.';
    throw new TollgateError('RATE_LIMITED', { text, retryAfterMs: Math.max(remainingMs, 1) });
  }
}

function digest(ticket: string): string {
  return createHash('sha256').update(ticket).digest('base64url');
}
