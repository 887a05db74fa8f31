import { createHash } from 'node:crypto';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import type { LedgerRecord } from '../records.ts';
import { isErased } from '../redaction.ts';

/** Records read from Redis at once: bounds what one reply holds. */
const READ_BATCH = 1_000;
/** Records of a long read that are worked on at once: a few milliseconds, between which a gateway serves its sockets. */
const STREAM_BATCH = 250;
/** Records looked at for one page of a filtered feed; past it the page is short and `has_more` says so. */
const SCAN_LIMIT = 10_000;

export interface Page {
  readonly records: readonly LedgerRecord[];
  /** The last record that was looked at: where the next page begins. */
  readonly end: LedgerPosition;
  readonly hasMore: boolean;
  /** Records after the reader's place are gone, or are not those of the ledger that the place was in. */
  readonly gapDetected: boolean;
}

/** A place in the ledger: after the record of this sequence. */
export interface LedgerPosition {
  /** 0 before the first record. */
  readonly sequence: number;
  /** Hash of that record, or as much of its beginning as the reader has kept; "" where it is not known. */
  readonly hash: string;
}

export const BEGINNING: LedgerPosition = { sequence: 0, hash: '' };

export interface Feed {
  readonly after: LedgerPosition;
  readonly limit: number;
  readonly userId?: string | undefined;
  readonly tool?: string | undefined;
}

/** A record as it is stored, with the JSON that it was read from. */
export interface StoredRecord {
  /** By its place in the stream. */
  readonly sequence: number;
  readonly json: string;
  /** When it came into the ledger of this Redis, by its clock, in milliseconds since the epoch. */
  readonly appendedAt: number;
}

/** What is known of the ledger as a whole. */
export interface LedgerHead extends LedgerPosition {
  /** The last record that was trimmed. */
  readonly trimmed: LedgerPosition;
}

/**
 * The one ordered ledger of everything that was executed, for reading: a gap-free `sequence`, each record chained to the
 * one before it by its hash. `LedgerWriter` writes it.
 */
export class Ledger {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /** A page of the ledger, in order; the same page always has the same bytes. @throws TollgateError OVERLOADED */
  async read({ after, limit, userId, tool }: Feed): Promise<Page> {
    const wanted = (record: LedgerRecord) => (!userId || record.user_id === userId) && (!tool || record.tool === tool);
    // The head first: what it names must be there when the records are read.
    const head = await this.head();
    const records: LedgerRecord[] = [];
    let gapDetected = after.sequence > head.sequence || !(await this.#isPosition(after, head));
    let end = after;
    for (let seen = 0; end.sequence < head.sequence && seen < SCAN_LIMIT; ) {
      const batch = await this.range(
        end.sequence + 1,
        head.sequence,
        userId || tool ? READ_BATCH : limit - records.length,
      );
      for (const { sequence, json } of batch) {
        const record = JSON.parse(json) as LedgerRecord;
        gapDetected ||= sequence !== end.sequence + 1;
        end = { sequence, hash: record.hash };
        seen += 1;
        if (wanted(record)) records.push(record);
        if (records.length === limit) return { records, end, gapDetected, hasMore: sequence < head.sequence };
      }
      // The rest of the ledger, up to the head that was read before, is not there.
      if (batch.length === 0) return { records, end, gapDetected: true, hasMore: false };
    }
    return { records, end, gapDetected, hasMore: end.sequence < head.sequence };
  }

  async head(): Promise<LedgerHead> {
    const state = await mapRedisErrors(
      this.#redis.hmget(this.#keys.ledgerState, 'sequence', 'hash', 'trimmed', 'trimmed_hash'),
    );
    const [sequence, hash, trimmed, trimmedHash] = state;
    return {
      sequence: Number(sequence ?? 0),
      hash: hash ?? '',
      trimmed: { sequence: Number(trimmed ?? 0), hash: trimmedHash ?? '' },
    };
  }

  /** Records from one sequence to another, both included, at most `READ_BATCH`. */
  async range(from: number, to: number, limit = READ_BATCH): Promise<StoredRecord[]> {
    if (from > to || limit < 1) return [];
    const count = Math.min(limit, READ_BATCH);
    const entries = await mapRedisErrors(this.#redis.xrange(this.#keys.ledger, `${from}-0`, `${to}-0`, 'COUNT', count));
    const records = entries.map(storedRecord);
    if (isWhole(records, from, Math.min(to, from + count - 1))) return records;
    const erased = await mapRedisErrors(
      this.#redis.zrange(this.#keys.erasedRecords, from, String(to), 'BYSCORE', 'LIMIT', 0, count),
    );
    if (erased.length === 0) return records;
    return merged([...records, ...erased.map(erasedRecord)]).slice(0, count);
  }

  /**
   * The latest records first, a batch at a time, from a sequence down to where they came into the ledger before a time (of
   * Redis's clock, in milliseconds since the epoch). The last batch may go beyond it.
   */
  async *backwards(from: number, since: number): AsyncGenerator<StoredRecord[]> {
    for (let next = from; next > 0; ) {
      const entries = await mapRedisErrors(
        this.#redis.xrevrange(this.#keys.ledger, `${next}-0`, '-', 'COUNT', READ_BATCH),
      );
      const { erasedRecords } = this.#keys;
      const erased = await mapRedisErrors(
        this.#redis.zrange(erasedRecords, next, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, READ_BATCH),
      );
      const batch = merged([...entries.map(storedRecord), ...erased.map(erasedRecord)])
        .reverse()
        .slice(0, READ_BATCH);
      const last = batch.at(-1);
      if (!last) return;
      yield batch;
      if (last.appendedAt < since) return;
      next = last.sequence - 1;
    }
  }

  /** All records from one sequence to another, both included, a batch at a time. */
  async *batches(from: number, to: number): AsyncGenerator<StoredRecord[]> {
    for (let next = from; next <= to; ) {
      const batch = await this.range(next, to, STREAM_BATCH);
      const last = batch.at(-1);
      if (!last) return;
      yield batch;
      next = last.sequence + 1;
    }
  }

  /** Whether the ledger has, or had, the record that the place names. */
  async contains(position: LedgerPosition): Promise<boolean> {
    const head = await this.head();
    return position.sequence <= head.sequence && (await this.#isPosition(position, head));
  }

  /** Whether the place is one of this ledger, and not of one that was lost or restored. */
  async #isPosition({ sequence, hash }: LedgerPosition, { trimmed }: LedgerHead): Promise<boolean> {
    if (sequence === 0 || hash === '') return true;
    if (sequence === trimmed.sequence) return trimmed.hash.startsWith(hash);
    const [stored] = await this.range(sequence, sequence);
    // One that was trimmed is told by the gap after it.
    if (!stored) return sequence < trimmed.sequence;
    return (JSON.parse(stored.json) as LedgerRecord).hash.startsWith(hash);
  }
}

function storedRecord([id, [, json = '', , appended = '']]: [id: string, fields: string[]]): StoredRecord {
  return { sequence: Number.parseInt(id, 10), json, appendedAt: Number(appended) };
}

/** A member of `Keys.erasedRecords`: "<sequence> <ms when appended> <JSON>". */
function erasedRecord(member: string): StoredRecord {
  const [, sequence = '', appended = '', json = ''] = /^(\d+) (\d*) (.*)$/s.exec(member) ?? [];
  return { sequence: Number(sequence), json, appendedAt: Number(appended) };
}

/** Whether nothing is missing between: the last one tells, since a read goes on behind a hole until it has its count. */
function isWhole(records: readonly StoredRecord[], from: number, to: number): boolean {
  return records.length === to - from + 1 && records.at(-1)?.sequence === to;
}

function merged(records: readonly StoredRecord[]): StoredRecord[] {
  return records.toSorted((one, other) => one.sequence - other.sequence);
}

/** A record with its hash, and as it is stored. */
export interface ChainedRecord {
  readonly record: LedgerRecord;
  readonly json: string;
}

/** The hash of a record: over the hash before it and the record's JSON, members in the order they are stored. */
export function chainHash(previous: string, record: Omit<LedgerRecord, 'hash'>): string {
  return hashOf(previous, JSON.stringify(record));
}

/** Puts a record behind the one of the hash `previous`. */
export function chained(previous: string, record: Omit<LedgerRecord, 'hash'>): ChainedRecord {
  const json = JSON.stringify(record);
  const hash = hashOf(previous, json);
  return { record: { ...record, hash }, json: `${json.slice(0, -1)},"hash":"${hash}"}` };
}

/**
 * The record that is stored there, if it follows from the hash before it, and from its place. Of an erased record only the
 * place is checked: its hash is proved by the record after it, its content by `RedactionCheck`.
 * @returns undefined, with no word why, when it does not: see `Verifier` for that
 */
export function following(previous: string, stored: Pick<StoredRecord, 'sequence' | 'json'>): LedgerRecord | undefined {
  const record = JSON.parse(stored.json) as LedgerRecord;
  const { hash: _, ...rest } = record;
  if (isErased(record)) return record.sequence === stored.sequence ? record : undefined;
  return record.sequence === stored.sequence && chained(previous, rest).json === stored.json ? record : undefined;
}

function hashOf(previous: string, json: string): string {
  return createHash('sha256').update(previous).update('\n').update(json).digest('hex');
}
