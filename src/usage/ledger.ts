import { createHash } from 'node:crypto';
import type { Redis } from '../redis/client.ts';
import { asked } from '../redis/errors.ts';
import { type Keys, PARTITIONS } from '../redis/keys.ts';
import { LuaScript } from '../redis/scripts.ts';
import type { LedgerRecord, UsageRecord } from './records.ts';

const foldUsage = LuaScript.load('foldUsage-2');

/** Records moved in one step: bounds the time that the script holds Redis. */
const FOLD_BATCH = 500;
/** Entries looked at for one page of a filtered feed; past it the page is short and `has_more` says so. */
const SCAN_LIMIT = 10_000;

export interface Page {
  readonly records: readonly LedgerRecord[];
  /** Where the next page begins. */
  readonly nextCursor: number;
  readonly hasMore: boolean;
  /** Records between the cursor and the first one that is still there are gone. */
  readonly gapDetected: boolean;
}

export interface Feed {
  /** The last sequence the reader has; 0 for none. */
  readonly cursor: number;
  readonly limit: number;
  readonly userId?: string | undefined;
  readonly tool?: string | undefined;
}

export interface Folded {
  readonly records: number;
  /** Age of the oldest record among them, in milliseconds. */
  readonly lagMs: number;
}

/**
 * The one ordered ledger of everything that was executed: a gap-free `sequence`, each record chained to the one before
 * it by its hash. Records come from the outboxes of the partitions, where they were written with their events.
 */
export class Ledger {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /**
   * Moves what waits in the outboxes into the ledger. Can run anywhere, any number of times: a batch is appended only
   * onto the ledger that its hashes were computed from, and only after the entry of the outbox that came before it.
   */
  async fold(now: number): Promise<Folded> {
    const state = await this.#redis.hgetall(this.#keys.ledgerState);
    const waiting = await this.#waiting(state);
    let sequence = Number(state.sequence ?? 0);
    let hash = state.hash ?? '';
    let records = 0;
    let lagMs = 0;
    for (const { partition, entries } of waiting) {
      const batch = entries.map(([, [, json = '{}']]) => JSON.parse(json) as UsageRecord);
      const chained = chain(batch, sequence, hash);
      const last = chained.at(-1);
      const cursor = entries.at(-1)?.[0];
      if (!last || cursor === undefined) continue;
      const appended = await foldUsage.run(
        this.#redis,
        [this.#keys.ledger, this.#keys.ledgerState],
        [
          partition,
          state[`cursor:${partition}`] ?? '',
          cursor,
          sequence,
          last.hash,
          ...chained.map((r) => JSON.stringify(r)),
        ],
      );
      // Another worker was faster; what is left is its, or the next round's.
      if (appended !== 1) break;
      await this.#redis.xtrim(this.#keys.outbox(partition), 'MINID', after(cursor));
      ({ sequence, hash } = last);
      records += chained.length;
      lagMs = Math.max(lagMs, now - Number.parseInt(entries[0]?.[0] ?? '', 10));
    }
    return { records, lagMs };
  }

  /** A page of the ledger, in order; the same page always has the same bytes. @throws TollgateError OVERLOADED */
  async read({ cursor, limit, userId, tool }: Feed): Promise<Page> {
    const count = userId || tool ? SCAN_LIMIT : limit + 1;
    const entries = await asked(this.#redis.xrange(this.#keys.ledger, `(${cursor}-0`, '+', 'COUNT', count));
    const first = entries[0] ? Number.parseInt(entries[0][0], 10) : cursor + 1;
    const records: LedgerRecord[] = [];
    let nextCursor = cursor;
    let seen = 0;
    for (const [, [, json = '{}']] of entries) {
      if (records.length === limit) break;
      const record = JSON.parse(json) as LedgerRecord;
      nextCursor = record.sequence;
      seen += 1;
      if ((!userId || record.user_id === userId) && (!tool || record.tool === tool)) records.push(record);
    }
    const hasMore = seen < entries.length || entries.length === SCAN_LIMIT;
    return { records, nextCursor, hasMore, gapDetected: first > cursor + 1 };
  }

  /** What each outbox holds beyond what has been folded: one round trip for all partitions. */
  async #waiting(state: Record<string, string>): Promise<{ partition: number; entries: StreamEntry[] }[]> {
    const pipeline = this.#redis.pipeline();
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const from = after(state[`cursor:${partition}`] ?? '0-0');
      pipeline.xrange(this.#keys.outbox(partition), from, '+', 'COUNT', FOLD_BATCH);
    }
    const replies = (await pipeline.exec()) ?? [];
    return replies.flatMap(([error, entries], partition) => {
      if (error) throw error;
      return (entries as StreamEntry[]).length > 0 ? [{ partition, entries: entries as StreamEntry[] }] : [];
    });
  }
}

type StreamEntry = [id: string, fields: string[]];

/** The smallest id after `id`. */
function after(id: string): string {
  const [ms = '0', n = '0'] = id.split('-');
  return `${ms}-${BigInt(n) + 1n}`;
}

function chain(records: readonly UsageRecord[], sequence: number, hash: string): LedgerRecord[] {
  let previous = hash;
  return records.map((record, at) => {
    const placed = { ...record, sequence: sequence + at + 1 };
    previous = chainHash(previous, placed);
    return { ...placed, hash: previous };
  });
}

/** The hash of a record: over the hash before it and the record's JSON, members in the order they are stored. */
export function chainHash(previous: string, record: Omit<LedgerRecord, 'hash'>): string {
  return createHash('sha256').update(previous).update('\n').update(JSON.stringify(record)).digest('hex');
}
