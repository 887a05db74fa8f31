import { derivedId } from '../lib/ids.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors, redisError } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { LuaScript } from '../redis/scripts.ts';
import type { ArchiveWriter, UsageArchive } from './archive/archive.ts';
import { HOUR_MS, hourOf, hoursBetween } from './hours.ts';
import { following, type Ledger } from './ledger/ledger.ts';
import { rowUnder } from './measures.ts';
import type { LedgerRecord, UsageRecord } from './records.ts';
import { type ErasedForm, erasedDigest, erasedForm, erasedJson, isErased } from './redaction.ts';
import type { Tallies } from './reports/tallies.ts';

const recordErasure = LuaScript.load('recordErasure-2');
const eraseRecords = LuaScript.load('eraseRecords-3');
const renameTallyRows = LuaScript.load('renameTallyRows-2');

/** Records that one redaction entry lists: an entry of some 8 KB. */
const LISTED_PER_ENTRY = 100;
const READ_BATCH = 1_000;
/** Batches that one entry looks through: of a user with few records, an entry lists those of 50,000 records. */
const BATCHES_PER_ENTRY = 50;
/** Hours of tallies looked at in one step. */
const HOURS_PER_STEP = 500;

/** Who is erased, and under which pseudonym, which is also the id of the erasure. */
export interface ErasedUser {
  readonly userId: string;
  readonly pseudonym: string;
}

interface Located {
  readonly sequence: number;
  readonly json: string;
}

export interface LedgerErasureDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
  readonly tallies: Tallies;
  /** Where there is a second copy. */
  readonly archive?: UsageArchive | undefined;
}

/** A record does not follow from the one before: an erasure would hide that, and waits for an operator. */
export class LedgerBroken extends Error {
  constructor(sequence: number) {
    super(`the ledger is broken at record ${sequence}: verify names what is wrong`);
    this.name = 'LedgerBroken';
  }
}

/**
 * Puts a pseudonym in the place of a user in the ledger, its archive and its tallies, in steps that can each be repeated:
 *
 * 1. `list`: redaction entries that name the SHA-256 of each erased record go through the outbox of corrections into the ledger.
 * 2. `replace`: what the entries list is replaced, in the ledger and in the archive, under the archive's lease.
 * 3. `renameTallies`.
 */
export class LedgerErasure {
  readonly #deps: LedgerErasureDeps;

  constructor(deps: LedgerErasureDeps) {
    this.#deps = deps;
  }

  /** The last sequence of the ledger: everything that is in it lies at or before it. */
  async head(): Promise<number> {
    return (await this.#deps.ledger.head()).sequence;
  }

  /**
   * Lists the user's records of the next stretch of the ledger in a redaction entry.
   * @param from sequence up to which they are listed
   * @returns the sequence up to which they are listed now; `listed` of them in this step
   * @throws LedgerBroken; TollgateError OVERLOADED while Redis is away; Error while PostgreSQL is
   */
  async list(user: ErasedUser, from: number, to: number, now: number): Promise<{ cursor: number; listed: number }> {
    const found: LedgerRecord[] = [];
    let cursor = from;
    for (let batches = 0; batches < BATCHES_PER_ENTRY && cursor < to && found.length < LISTED_PER_ENTRY; batches++) {
      cursor = await this.#find(user, { from: cursor, to }, found);
    }
    const entry = found.length > 0 ? JSON.stringify(redactionEntry(user, found, now)) : '';
    const keys = [this.#deps.keys.corrections, this.#deps.keys.erasure(user.pseudonym)];
    await recordErasure.run(this.#deps.redis, keys, [from, cursor, entry, found.length]);
    return { cursor, listed: found.length };
  }

  /**
   * Replaces what the user's redaction entries list, those of a stretch of the ledger.
   * @returns the sequence up to which entries were looked for; undefined when the archive is busy, with nothing done
   * @throws as `list`
   */
  async replace(user: ErasedUser, from: number, to: number): Promise<number | undefined> {
    const batch = await this.#deps.ledger.range(from + 1, to, READ_BATCH);
    const entries = batch.flatMap(({ json }) => {
      if (!mentions(json, user.pseudonym)) return [];
      const record = JSON.parse(json) as LedgerRecord;
      return record.user_id === user.pseudonym && record.erases ? [record] : [];
    });
    for (const entry of entries) if (!(await this.#replaceListed(user, entry))) return undefined;
    return batch.at(-1)?.sequence ?? to;
  }

  /** Moves the user's rows of the tallies of some hours. @returns the time of the next hour to look at */
  async renameTallies({ userId, pseudonym }: ErasedUser, from: number, to: number): Promise<number> {
    const { redis, keys, tallies } = this.#deps;
    const hours = hoursBetween(from, to).slice(0, HOURS_PER_STEP);
    const pipeline = redis.pipeline();
    for (const hour of hours) pipeline.exists(keys.tally(hour));
    const there = (await mapRedisErrors(pipeline.exec())) ?? [];
    for (const [error] of there) if (error) throw redisError(error);
    for (const [at, hour] of hours.entries()) {
      if (there[at]?.[1] === 0) continue;
      const rows = [...(await tallies.rows(hour, userId)).keys()];
      const moves = rows.flatMap((row) => {
        const renamed = rowUnder(row, userId, pseudonym);
        return renamed === undefined ? [] : [row, renamed];
      });
      if (moves.length > 0) await renameTallyRows.run(redis, [keys.tally(hour), keys.erasure(pseudonym)], moves);
    }
    return hours.length === 0 ? to : from + hours.length * HOUR_MS;
  }

  /** Of the archive what is in no ledger any more. False while another one has its lease. */
  async eraseSuperseded({ userId, pseudonym }: ErasedUser): Promise<boolean> {
    const { archive } = this.#deps;
    if (!archive) return true;
    const erase = (writer: ArchiveWriter) => writer.eraseSuperseded(userId, (json) => superseded(json, pseudonym));
    return (await archive.alone(erase)) !== undefined;
  }

  /** What corrections of the user's records answer to whoever repeats them. */
  async eraseCorrections({ userId, pseudonym }: ErasedUser): Promise<void> {
    const { redis, keys } = this.#deps;
    for (const digest of await mapRedisErrors(redis.smembers(keys.correctionsOf(userId)))) {
      const key = keys.correction(digest);
      const json = await mapRedisErrors(redis.hget(key, 'record'));
      // One that has expired is not made again: it would have no end.
      if (json === null) continue;
      const erased = erasedForm(JSON.parse(json) as LedgerRecord, pseudonym);
      await mapRedisErrors(redis.hset(key, 'record', JSON.stringify(erased)));
    }
    await mapRedisErrors(redis.unlink(keys.correctionsOf(userId)));
  }

  /** Adds the user's records of one batch to `found`. @returns the sequence up to which it has looked */
  async #find(
    { userId }: ErasedUser,
    { from, to }: { readonly from: number; readonly to: number },
    found: LedgerRecord[],
  ): Promise<number> {
    const batch = await this.#read(from, to);
    let cursor = to;
    for (const [at, stored] of batch.entries()) {
      if (stored.sequence <= from) continue;
      cursor = stored.sequence;
      if (!mentions(stored.json, userId)) continue;
      const record = JSON.parse(stored.json) as LedgerRecord;
      if (record.user_id !== userId || isErased(record)) continue;
      if (!follows(stored, batch[at - 1])) throw new LedgerBroken(stored.sequence);
      found.push(record);
      if (found.length === LISTED_PER_ENTRY) break;
    }
    return cursor;
  }

  /** The records behind `from`, with the one before them, from Redis or, where they are trimmed, from the archive. */
  async #read(from: number, to: number): Promise<Located[]> {
    const { ledger, archive } = this.#deps;
    const { trimmed } = await ledger.head();
    const last = Math.min(to, from + READ_BATCH - 1);
    if (from >= trimmed.sequence || !archive) return ledger.range(Math.max(from, 1), to);
    const rows = await archive.range(Math.max(from, 1), Math.min(last, trimmed.sequence));
    return rows.some(({ sequence }) => sequence > from) ? rows : ledger.range(trimmed.sequence + 1, to);
  }

  async #replaceListed(user: ErasedUser, entry: LedgerRecord): Promise<boolean> {
    const { archive } = this.#deps;
    if (!archive) {
      await this.#replaceIn(user, entry, undefined);
      return true;
    }
    // While the lease is held no copier can have read the records and not yet written them.
    return (await archive.alone(async (writer) => this.#replaceIn(user, entry, writer))) !== undefined;
  }

  async #replaceIn(user: ErasedUser, entry: LedgerRecord, writer: ArchiveWriter | undefined): Promise<true> {
    const { redis, keys, ledger } = this.#deps;
    const listed = new Map(entry.erases);
    const sequences = [...listed.keys()];
    const stored = (await Promise.all(sequences.map((sequence) => ledger.range(sequence, sequence)))).flat();
    const archived = (await writer?.recordsAt(sequences)) ?? [];
    const erased = (one: Located): (ErasedForm & Located)[] => {
      const record = JSON.parse(one.json) as LedgerRecord;
      if (isErased(record)) return [];
      const form = erasedForm(record, user.pseudonym);
      // Another record than the one that was listed: its place in the ledger was lost and taken again.
      if (listed.get(one.sequence) !== erasedDigest(form)) throw new LedgerBroken(one.sequence);
      return [{ ...form, json: erasedJson(form, entry.sequence) }];
    };
    await writer?.replace(archived.flatMap(erased));
    const inRedis = stored.flatMap(erased);
    const used = [keys.ledger, keys.erasedRecords, keys.erasure(user.pseudonym)];
    if (inRedis.length > 0)
      await eraseRecords.run(
        redis,
        used,
        inRedis.flatMap(({ sequence, json }) => [sequence, json]),
      );
    return true;
  }
}

function mentions(json: string, userId: string): boolean {
  return json.includes(`"user_id":${JSON.stringify(userId)}`);
}

/** Unless the one before is not known, which only the first of a trimmed ledger is without. */
function follows(stored: Located, before: Located | undefined): boolean {
  if (!before || before.sequence !== stored.sequence - 1) return true;
  return following((JSON.parse(before.json) as LedgerRecord).hash, stored) !== undefined;
}

function redactionEntry({ pseudonym }: ErasedUser, records: readonly LedgerRecord[], now: number): UsageRecord {
  const [first] = records;
  if (!first) throw new RangeError('a redaction entry lists one record at least');
  const time = new Date(now).toISOString();
  return {
    id: derivedId('usage', 'erasure', pseudonym, String(first.sequence)),
    user_id: pseudonym,
    plan: first.plan,
    tool: 'erasure',
    permission: 'erasure',
    status: 'success',
    units: 0,
    run_id: null,
    thread_id: null,
    request_id: null,
    idempotency_key: null,
    transport: 'http',
    started_at: time,
    completed_at: time,
    duration_ms: 0,
    period: hourOf(now),
    corrects: first.id,
    reason: 'erasure',
    erases: records.map((record) => [record.sequence, erasedDigest(erasedForm(record, pseudonym))]),
  };
}

/** A superseded record is in no chain: nothing of it has to go on verifying. */
function superseded(json: string, pseudonym: string): string {
  const { personal: _, ...record } = erasedForm(JSON.parse(json) as LedgerRecord, pseudonym);
  return JSON.stringify(record);
}
