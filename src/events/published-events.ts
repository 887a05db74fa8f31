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

export interface DurablePublication {
  readonly userId: string;
  readonly type: PublishedEvent;
  readonly fields: Fields;
  /** Keys of different services are independent. */
  readonly serviceId: string;
  readonly idempotencyKey: string | undefined;
}

/** Appends the events of services to the logs of users. Each call is one round trip. */
export class PublishedEvents {
  readonly #log: Pick<UserLogWriter, 'appendWith'>;
  readonly #keys: Keys;
  readonly #clock: Clock;

  constructor({ log, keys, clock }: { log: Pick<UserLogWriter, 'appendWith'>; keys: Keys; clock: Clock }) {
    this.#log = log;
    this.#keys = keys;
    this.#clock = clock;
  }

  /**
   * Appends an event, once per idempotency key.
   * @returns the position of the event, also if an earlier request with the same key appended it
   * @throws TollgateError RATE_LIMITED above `PUBLISHED_PER_MINUTE`; IDEMPOTENCY_CONFLICT for a key of another request;
   *   USER_BLOCKED while the data of the user is being erased; OVERLOADED while Redis is unavailable
   */
  async append(publication: DurablePublication): Promise<{ readonly seq: number; readonly epoch: string }> {
    const { userId, type, fields, serviceId, idempotencyKey } = publication;
    const keys = this.#keys.user(userId);
    const timestamp = new Date(this.#clock.now()).toISOString();
    const reply = await this.#log.appendWith(userId, {
      script: publishEvent,
      keys: [keys.log, keys.logState, keys.published, keys.publishedKeys, keys.account],
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
    if (reply[0] === 'conflict' || reply[0] === 'erasing') {
      throw new TollgateError(reply[0] === 'erasing' ? 'USER_BLOCKED' : 'IDEMPOTENCY_CONFLICT');
    }
    if (reply[0] === 'limited') throw new TollgateError('RATE_LIMITED', { retryAfterMs: reply[1] });
    const [, seq, epoch] = reply;
    return { seq, epoch };
  }
}

function digest(values: readonly unknown[]): string {
  return createHash('sha256').update(canonicalJson(values)).digest('base64url');
}
