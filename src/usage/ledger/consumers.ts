import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { LuaScript } from '../../redis/scripts.ts';
import type { Ledger, LedgerPosition } from './ledger.ts';
import type { Windows } from './windows.ts';

const confirmCursor = LuaScript.load('confirmCursor-1');
const trimLedger = LuaScript.load('trimLedger-4');

/** No record younger than this is ever trimmed, whoever has it. */
export const RETENTION_MS = 45 * 24 * 3_600_000;
/** More than any installation has systems that bill; every trim looks at all of them. */
const MAX_CONSUMERS = 100;
/** Records trimmed in one step. */
const TRIM_BATCH = 500;
/** Steps of one round: 50,000 records, more than a minute at 500 a second. */
const TRIM_STEPS = 100;

export interface Consumer {
  readonly consumer: string;
  /** The last record that it has confirmed; 0 for none. */
  readonly sequence: number;
  /** ISO 8601, UTC. */
  readonly confirmed_at: string;
  readonly service: string;
}

/**
 * - `confirmed` · `unknown`: the cursor is of no record of this ledger
 * - `foreign`: the name is another service's · `full`: there are as many consumers as there may be
 */
export type Confirmation = 'confirmed' | 'unknown' | 'foreign' | 'full';

/** Who reads the ledger to bill by it, how far each has it, and what may therefore go. */
export class Consumers {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #ledger: Ledger;
  readonly #windows: Windows;

  constructor({ redis, keys, ledger, windows }: { redis: Redis; keys: Keys; ledger: Ledger; windows: Windows }) {
    this.#redis = redis;
    this.#keys = keys;
    this.#ledger = ledger;
    this.#windows = windows;
  }

  /** Notes that the consumer has everything up to `place`; going back is allowed, and keeps more. */
  async confirm(consumer: string, service: string, position: LedgerPosition): Promise<Confirmation> {
    if (!(await this.#ledger.contains(position))) return 'unknown';
    const args = [consumer, service, position.sequence, MAX_CONSUMERS];
    return (await confirmCursor.run(this.#redis, [this.#keys.consumers], args)) as Confirmation;
  }

  /** False when there was none. */
  async forget(consumer: string): Promise<boolean> {
    return (await mapRedisErrors(this.#redis.hdel(this.#keys.consumers, consumer))) === 1;
  }

  async list(): Promise<Consumer[]> {
    const stored = await mapRedisErrors(this.#redis.hgetall(this.#keys.consumers));
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
   * in the ledger for `retentionMs`. While there is no consumer nothing goes: nobody has said that he has it.
   * @returns how many went
   */
  async trim(retentionMs = RETENTION_MS): Promise<number> {
    let trimmed = 0;
    for (let step = 0; step < TRIM_STEPS; step++) {
      const needed = await this.#windows.lowestOpen();
      const { ledger, ledgerState, consumers, erasedRecords } = this.#keys;
      const args = [retentionMs, TRIM_BATCH, needed ?? ''];
      const removed = Number(await trimLedger.run(this.#redis, [ledger, ledgerState, consumers, erasedRecords], args));
      trimmed += removed;
      if (removed < TRIM_BATCH) break;
    }
    return trimmed;
  }
}
