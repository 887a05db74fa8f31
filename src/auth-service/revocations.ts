import type { Clock } from '../lib/clock.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { answered } from './outage.ts';

/** Single tokens that were revoked, by their `jti`. Those of an ended session need no entry: the session is gone. */
export class Revocations {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;

  constructor({ redis, keys, clock }: { redis: Redis; keys: Keys; clock: Clock }) {
    this.#redis = redis;
    this.#keys = keys;
    this.#clock = clock;
  }

  /** @param untilMs when nothing accepts the token any more anyway */
  async add(tokenId: string, untilMs: number): Promise<void> {
    const remaining = untilMs - this.#clock.now();
    if (remaining > 0) await answered(this.#redis.set(this.#key(tokenId), 1, 'PX', Math.ceil(remaining)));
  }

  async has(tokenId: string): Promise<boolean> {
    return (await answered(this.#redis.exists(this.#key(tokenId)))) === 1;
  }

  #key(tokenId: string): string {
    return this.#keys.auth(`revoked:${tokenId}`);
  }
}
