import { createHash } from 'node:crypto';
import { canonicalJson } from '../lib/canonical-json.ts';
import type { Clock } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Fields, PublishedEvent } from '../protocol/messages.ts';
import type { Keys } from '../redis/keys.ts';
import { integer, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import type { UserLogWriter } from './user-log-writer.ts';

const publishEvent = LuaScript.load(
  'publishEvent-5',
  oneOf(
    tuple([literal('appended', 'repeated'), integer, text]),
    tuple([literal('conflict', 'erasing')]),
    tuple([literal('limited'), integer]),
  ),
);

/** Bound on the durable events of services per user: a log of `EVENT_LOG_LENGTH` events also has those of runs. */
export const PUBLISHED_PER_MINUTE = 60;
const WINDOW_MS = 60_000;
/** An idempotency key is kept for a day, unless the user receives this many events with newer keys. */
export const PUBLISHED_KEYS = 1_000;
const KEY_MS = 24 * 3_600_000;

export interface PublishingDeps {
  readonly log: Pick<UserLogWriter, 'appendWith'>;
  readonly keys: Keys;
  readonly clock: Clock;
}

export interface DurablePublication {
  readonly userId: string;
  readonly type: PublishedEvent;
  readonly fields: Fields;
  /** Keys of different services are independent. */
  readonly serviceId: string;
  readonly idempotencyKey: string | undefined;
}

/**
 * Appends the event of a service to the log of a user, once per idempotency key, in one round trip.
 * @returns the position of the event, also if an earlier request with the same key appended it
 * @throws TollgateError RATE_LIMITED above `PUBLISHED_PER_MINUTE`; IDEMPOTENCY_CONFLICT for a key of another request;
 *   USER_BLOCKED while the data of the user is being erased; OVERLOADED while Redis is unavailable
 */
export async function appendForUser(
  { log, keys, clock }: PublishingDeps,
  { userId, type, fields, serviceId, idempotencyKey }: DurablePublication,
): Promise<{ readonly seq: number; readonly epoch: string }> {
  const { log: events, logState, published, publishedKeys, account } = keys.user(userId);
  const timestamp = new Date(clock.now()).toISOString();
  const reply = await log.appendWith(userId, {
    script: publishEvent,
    keys: [events, logState, published, publishedKeys, account],
    args: [
      type,
      timestamp,
      JSON.stringify({ ...fields, timestamp }),
      idempotencyKey === undefined ? '' : digest([serviceId, idempotencyKey]),
      digest([type, fields]),
      PUBLISHED_PER_MINUTE,
      WINDOW_MS,
      PUBLISHED_KEYS,
      KEY_MS,
    ],
    event: 'published',
    outcomeOf: ([outcome]) => (outcome === 'appended' || outcome === 'repeated' ? outcome : 'none'),
  });
  switch (reply[0]) {
    case 'appended':
    case 'repeated':
      return { seq: reply[1], epoch: reply[2] };
    case 'limited':
      throw new TollgateError('RATE_LIMITED', { retryAfterMs: reply[1] });
    case 'erasing':
      throw new TollgateError('USER_BLOCKED');
    case 'conflict':
      throw new TollgateError('IDEMPOTENCY_CONFLICT');
  }
}

function digest(values: readonly unknown[]): string {
  return createHash('sha256').update(canonicalJson(values)).digest('base64url');
}
