import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { integer, literal } from '../../redis/replies.ts';
import { LuaScript } from '../../redis/scripts.ts';
import type { Ledger, LedgerPosition } from './ledger.ts';
import type { Windows } from './windows.ts';

const confirmCursor = LuaScript.load('confirmCursor-1', literal('confirmed', 'foreign', 'full'));
const trimLedger = LuaScript.load('trimLedger-4', integer);

/** Minimum age of a trimmed record, even if all consumers have confirmed it. */
const RETENTION_MS = 45 * 24 * 3_600_000;
/** Maximum number of consumers, more than a deployment has billing systems. Every trim reads all of them. */
const MAX_CONSUMERS = 100;
/** Records trimmed per step. */
const TRIM_BATCH = 500;
/** Maximum number of steps per call: 50,000 records, more than a minute adds at 500 records per second. */
const TRIM_STEPS = 100;

export interface Consumer {
  readonly consumer: string;
  /** Sequence of the last confirmed record; 0 for none. */
  readonly sequence: number;
  /** ISO 8601, UTC. */
  readonly confirmed_at: string;
  readonly service: string;
}

/**
 * - `confirmed`: stored.
 * - `unknown`: the position does not belong to this ledger.
 * - `foreign`: the name belongs to another service.
 * - `full`: the maximum number of consumers is reached.
 */
export type Confirmation = 'confirmed' | 'unknown' | 'foreign' | 'full';

export interface ConsumersDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
  readonly windows: Windows;
}

/** The consumers of the ledger (billing systems), their confirmed positions, and the trimming that depends on them. */
export class Consumers {
  readonly #deps: ConsumersDeps;

  constructor(deps: ConsumersDeps) {
    this.#deps = deps;
  }

  /** Stores that the consumer has every record up to `position`. A consumer may move back, which keeps more records. */
  async confirm(consumer: string, service: string, position: LedgerPosition): Promise<Confirmation> {
    if (!(await this.#deps.ledger.contains(position))) return 'unknown';
    const args = [consumer, service, position.sequence, MAX_CONSUMERS];
    return confirmCursor.run(this.#deps.redis, [this.#deps.keys.consumers], args);
  }

  /** Removes a consumer; false when it does not exist. */
  async forget(consumer: string): Promise<boolean> {
    return (await mapRedisErrors(this.#deps.redis.hdel(this.#deps.keys.consumers, consumer))) === 1;
  }

  async list(): Promise<Consumer[]> {
    const stored = await mapRedisErrors(this.#deps.redis.hgetall(this.#deps.keys.consumers));
    return Object.entries(stored)
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([consumer, confirmed]) => {
        const [sequence = '0', at = '0', ...service] = confirmed.split(' ');
        const confirmedAt = new Date(Number(at)).toISOString();
        return { consumer, sequence: Number(sequence), confirmed_at: confirmedAt, service: service.join(' ') };
      });
  }

  /**
   * Removes the oldest records: those that every consumer has confirmed, that no open window needs, and that have been
   * in the ledger for `retentionMs`. Without a consumer it removes nothing, because no system has confirmed that it has
   * the records.
   * @returns the number of removed records
   */
  async trim(retentionMs = RETENTION_MS): Promise<number> {
    let trimmed = 0;
    for (let step = 0; step < TRIM_STEPS; step++) {
      const needed = await this.#deps.windows.lowestOpen();
      const { ledger, ledgerState, consumers, erasedRecords } = this.#deps.keys;
      const args = [retentionMs, TRIM_BATCH, needed ?? ''];
      const removed = await trimLedger.run(this.#deps.redis, [ledger, ledgerState, consumers, erasedRecords], args);
      trimmed += removed;
      if (removed < TRIM_BATCH) break;
    }
    return trimmed;
  }
}
