import { createHash } from 'node:crypto';
import type { LedgerRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { parseLedgerRecord } from '../records.ts';
import { isErased } from '../redaction.ts';

/** Records read per command: bounds the size of one reply. */
const READ_BATCH = 1_000;
/**
 * Records per batch of a long read. Processing one takes a few milliseconds; between batches a gateway serves its
 * sockets.
 */
const STREAM_BATCH = 250;
/** Maximum number of records read per page of a filtered feed. Beyond it the page is short and `has_more` is true. */
export const SCAN_LIMIT = 10_000;

export interface Page {
  readonly records: readonly LedgerRecord[];
  /** Position of the last record read, where the next page begins. */
  readonly end: LedgerPosition;
  readonly hasMore: boolean;
  /** Records after the reader's position are missing, or its position belongs to another history of the ledger. */
  readonly gapDetected: boolean;
}

/** A position in the ledger: after the record with this sequence. */
export interface LedgerPosition {
  /** 0 before the first record. */
  readonly sequence: number;
  /** Hash of that record or a prefix of it; "" if it is not known. */
  readonly hash: string;
}

export const BEGINNING: LedgerPosition = { sequence: 0, hash: '' };

export interface RecordFilter {
  readonly userId?: string | undefined;
  readonly tool?: string | undefined;
  /** Time of completion: from this one, and before that one; RFC 3339, UTC. */
  readonly from?: string | undefined;
  readonly to?: string | undefined;
}

export interface Feed extends RecordFilter {
  readonly after: LedgerPosition;
  readonly limit: number;
}

/** A record with its stored JSON. */
export interface StoredRecord {
  /** Sequence from the id of the stream entry. */
  readonly sequence: number;
  readonly json: string;
  /** Time at which it was appended in this Redis, by the clock of Redis, in milliseconds since the epoch. */
  readonly appendedAt: number;
}

/** The last record of the ledger, and the last one that was trimmed. */
export interface LedgerHead extends LedgerPosition {
  /** Position of the last trimmed record. */
  readonly trimmed: LedgerPosition;
}

export interface LedgerDeps {
  readonly redis: Redis;
  readonly keys: Keys;
}

/**
 * Reads the ledger of all usage records: a gap-free `sequence`, each record chained to the one before by its hash.
 * `LedgerWriter` writes it.
 */
export class Ledger {
  readonly #deps: LedgerDeps;

  constructor(deps: LedgerDeps) {
    this.#deps = deps;
  }

  /**
   * Returns a page of the ledger, in order. The same page always has the same bytes.
   * @throws RedisUnavailable
   */
  async read({ after, limit, ...filter }: Feed): Promise<Page> {
    const wanted = wantedBy(filter);
    const isFiltered = Object.values(filter).some((value) => value !== undefined);
    // The head is read first, so that every record up to it exists when the records are read.
    const head = await this.head();
    const records: LedgerRecord[] = [];
    let gapDetected = after.sequence > head.sequence || !(await this.#isPosition(after, head));
    let end = after;
    for (let seen = 0; end.sequence < head.sequence && seen < SCAN_LIMIT; ) {
      const count = isFiltered ? READ_BATCH : limit - records.length;
      const batch = await this.range(end.sequence + 1, head.sequence, count);
      for (const { sequence, json } of batch) {
        const record = parseLedgerRecord(json);
        gapDetected ||= sequence !== end.sequence + 1;
        end = { sequence, hash: record.hash };
        seen += 1;
        if (wanted(record)) records.push(record);
        if (records.length === limit) return { records, end, gapDetected, hasMore: sequence < head.sequence };
      }
      // The remaining records up to the head are missing.
      if (batch.length === 0) return { records, end, gapDetected: true, hasMore: false };
    }
    return { records, end, gapDetected, hasMore: end.sequence < head.sequence };
  }

  async head(): Promise<LedgerHead> {
    const state = await mapRedisErrors(
      this.#deps.redis.hmget(this.#deps.keys.ledgerState, 'sequence', 'hash', 'trimmed', 'trimmed_hash'),
    );
    const [sequence, hash, trimmed, trimmedHash] = state;
    return {
      sequence: Number(sequence ?? 0),
      hash: hash ?? '',
      trimmed: { sequence: Number(trimmed ?? 0), hash: trimmedHash ?? '' },
    };
  }

  /** Returns the records from one sequence to another, both inclusive, at most `READ_BATCH`. */
  async range(from: number, to: number, limit = READ_BATCH): Promise<StoredRecord[]> {
    if (from > to || limit < 1) return [];
    const count = Math.min(limit, READ_BATCH);
    const entries = await mapRedisErrors(
      this.#deps.redis.xrange(this.#deps.keys.ledger, `${from}-0`, `${to}-0`, 'COUNT', count),
    );
    const records = entries.map(storedRecord);
    if (isWhole(records, from, Math.min(to, from + count - 1))) return records;
    const erased = await mapRedisErrors(
      this.#deps.redis.zrange(this.#deps.keys.erasedRecords, from, String(to), 'BYSCORE', 'LIMIT', 0, count),
    );
    if (erased.length === 0) return records;
    return merged([...records, ...erased.map(erasedRecord)]).slice(0, count);
  }

  /**
   * Yields batches of records in descending order, from a sequence back to the first batch that ends before a time (by
   * the clock of Redis, in milliseconds since the epoch). The last batch may contain older records.
   */
  async *backwards(from: number, since: number): AsyncGenerator<StoredRecord[]> {
    for (let next = from; next > 0; ) {
      const entries = await mapRedisErrors(
        this.#deps.redis.xrevrange(this.#deps.keys.ledger, `${next}-0`, '-', 'COUNT', READ_BATCH),
      );
      const { erasedRecords } = this.#deps.keys;
      const erased = await mapRedisErrors(
        this.#deps.redis.zrange(erasedRecords, next, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, READ_BATCH),
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

  /** Yields all records from one sequence to another, both inclusive, in batches. */
  async *batches(from: number, to: number): AsyncGenerator<StoredRecord[]> {
    for (let next = from; next <= to; ) {
      const batch = await this.range(next, to, STREAM_BATCH);
      const last = batch.at(-1);
      if (!last) return;
      yield batch;
      next = last.sequence + 1;
    }
  }

  /** Returns whether the ledger contains, or contained, the record at this position. */
  async contains(position: LedgerPosition): Promise<boolean> {
    const head = await this.head();
    return position.sequence <= head.sequence && (await this.#isPosition(position, head));
  }

  /** Returns whether the position belongs to this ledger and not to one that was lost or restored. */
  async #isPosition({ sequence, hash }: LedgerPosition, { trimmed }: LedgerHead): Promise<boolean> {
    if (sequence === 0 || hash === '') return true;
    if (sequence === trimmed.sequence) return trimmed.hash.startsWith(hash);
    const [stored] = await this.range(sequence, sequence);
    // A trimmed record cannot be compared. The reader notices it by the gap after its position.
    if (!stored) return sequence < trimmed.sequence;
    return parseLedgerRecord(stored.json).hash.startsWith(hash);
  }
}

/** Returns whether a filter includes a record. Times are compared as text: all of them have the same form. */
export function wantedBy({ userId, tool, from, to }: RecordFilter): (record: LedgerRecord) => boolean {
  return ({ user_id, tool: used, completed_at: at }) =>
    (!userId || user_id === userId) && (!tool || used === tool) && (!from || at >= from) && (!to || at < to);
}

function storedRecord([id, [, json = '', , appended = '']]: [id: string, fields: string[]]): StoredRecord {
  return { sequence: Number.parseInt(id, 10), json, appendedAt: Number(appended) };
}

/** Parses a member of `Keys.erasedRecords`: "<sequence> <ms when appended> <JSON>". */
function erasedRecord(member: string): StoredRecord {
  const [, sequence = '', appended = '', json = ''] = /^(\d+) (\d*) (.*)$/s.exec(member) ?? [];
  return { sequence: Number(sequence), json, appendedAt: Number(appended) };
}

/**
 * Returns whether no record is missing. The last record must be compared too, because a read continues after a gap
 * until it has its count.
 */
function isWhole(records: readonly StoredRecord[], from: number, to: number): boolean {
  return records.length === to - from + 1 && records.at(-1)?.sequence === to;
}

function merged(records: readonly StoredRecord[]): StoredRecord[] {
  return records.toSorted((one, other) => one.sequence - other.sequence);
}

/** A record with its hash, and its stored JSON. */
export interface ChainedRecord {
  readonly record: LedgerRecord;
  readonly json: string;
}

/** Returns the hash of a record, over the previous hash and the JSON of the record with its members in stored order. */
export function chainHash(previous: string, record: Omit<LedgerRecord, 'hash'>): string {
  return hashOf(previous, JSON.stringify(record));
}

/** Chains a record to the one with the hash `previous`. */
export function chained(previous: string, record: Omit<LedgerRecord, 'hash'>): ChainedRecord {
  const json = JSON.stringify(record);
  const hash = hashOf(previous, json);
  return { record: { ...record, hash }, json: `${json.slice(0, -1)},"hash":"${hash}"}` };
}

/**
 * Returns the stored record if it follows from the previous hash and its own sequence. For an erased record only the
 * sequence is checked: the next record proves its hash, and `RedactionCheck` proves its content.
 * @returns undefined when it does not follow; `Verifier` reports the reason
 */
export function following(previous: string, stored: Pick<StoredRecord, 'sequence' | 'json'>): LedgerRecord | undefined {
  const record = parseLedgerRecord(stored.json);
  const { hash: _, ...rest } = record;
  if (isErased(record)) return record.sequence === stored.sequence ? record : undefined;
  return record.sequence === stored.sequence && chained(previous, rest).json === stored.json ? record : undefined;
}

function hashOf(previous: string, json: string): string {
  return createHash('sha256').update(previous).update('\n').update(json).digest('hex');
}
