import { derivedId } from '../lib/ids.ts';
import type { LedgerRecord, UsageRecord } from '../protocol/usage.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors, redisError } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { done, integer } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import type { ArchiveWriter, UsageArchive } from './archive/archive.ts';
import { HOUR_MS, hourOf, hoursBetween } from './hours.ts';
import { following, type Ledger } from './ledger/ledger.ts';
import { rowUnder } from './measures.ts';
import { parseLedgerRecord } from './records.ts';
import { type ErasedForm, erasedDigest, erasedForm, erasedJson, isErased } from './redaction.ts';
import type { Tallies } from './reports/tallies.ts';

const recordErasure = LuaScript.load('recordErasure-2', done);
const eraseRecords = LuaScript.load('eraseRecords-3', integer);
const renameTallyRows = LuaScript.load('renameTallyRows-2', integer);

/** Maximum number of records per redaction entry, which then has about 8 KB. */
const LISTED_PER_ENTRY = 100;
const READ_BATCH = 1_000;
/**
 * Maximum number of batches searched per entry: an entry of a user with few records covers a stretch of 50,000 ledger
 * records.
 */
const BATCHES_PER_ENTRY = 50;
/** Maximum number of hourly tallies checked per step. */
const HOURS_PER_STEP = 500;

/** The user of an erasure. The pseudonym is also the id of the erasure. */
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
  /** Undefined in a deployment without an archive. */
  readonly archive?: UsageArchive | undefined;
}

/**
 * A record does not follow from the one before it. Erasing it would hide the manipulation, so the erasure stops until
 * an operator intervenes.
 */
export class LedgerBroken extends Error {
  constructor(sequence: number) {
    super(`the ledger is broken at record ${sequence}, verify it for details`);
    this.name = 'LedgerBroken';
  }
}

/**
 * Replaces a user by a pseudonym in the ledger, its archive and its tallies. Each step is idempotent:
 *
 * 1. `list`: redaction entries with the SHA-256 of each erased record are appended to the outbox of corrections, and
 *    ingested from there.
 * 2. `replace`: the records that the entries list are replaced, in the ledger and in the archive, under the lease of
 *    the archive.
 * 3. `renameTallies`: the rows of the user in the tallies are renamed.
 */
export class LedgerErasure {
  readonly #deps: LedgerErasureDeps;

  constructor(deps: LedgerErasureDeps) {
    this.#deps = deps;
  }

  /** Returns the last sequence of the ledger. */
  async head(): Promise<number> {
    return (await this.#deps.ledger.head()).sequence;
  }

  /**
   * Lists the user's records in the next stretch of the ledger in a redaction entry.
   * @param from sequence up to which earlier steps have listed the records
   * @returns the sequence up to which the records are listed now (`cursor`), and the number that this step listed
   *   (`listed`)
   * @throws LedgerBroken; RedisUnavailable; Error while PostgreSQL is unavailable
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
   * Replaces the records that the redaction entries of the user list, for the entries in one stretch of the ledger.
   * @returns the sequence up to which entries were searched; undefined when the archive is busy, then nothing was
   *   replaced
   * @throws as `list`
   */
  async replace(user: ErasedUser, from: number, to: number): Promise<number | undefined> {
    const batch = await this.#deps.ledger.range(from + 1, to, READ_BATCH);
    const entries = batch.flatMap(({ json }) => {
      if (!mentions(json, user.pseudonym)) return [];
      const record = parseLedgerRecord(json);
      return record.user_id === user.pseudonym && record.erases ? [record] : [];
    });
    for (const entry of entries) if (!(await this.#replaceListed(user, entry))) return undefined;
    return batch.at(-1)?.sequence ?? to;
  }

  /**
   * Renames the rows of the user in the tallies of some hours.
   * @returns the time of the next hour to check
   */
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

  /**
   * Erases the superseded records of the user, which exist only in the archive. Returns false while another archiver
   * holds its lease.
   */
  async eraseSuperseded({ userId, pseudonym }: ErasedUser): Promise<boolean> {
    const { archive } = this.#deps;
    if (!archive) return true;
    const erase = (writer: ArchiveWriter) => writer.eraseSuperseded(userId, (json) => superseded(json, pseudonym));
    return (await archive.alone(erase)) !== undefined;
  }

  /** Erases the stored responses of corrections to the records of the user, which a repeated request receives. */
  async eraseCorrections({ userId, pseudonym }: ErasedUser): Promise<void> {
    const { redis, keys } = this.#deps;
    for (const digest of await mapRedisErrors(redis.smembers(keys.correctionsOf(userId)))) {
      const key = keys.correction(digest);
      const json = await mapRedisErrors(redis.hget(key, 'record'));
      // An expired key is not recreated: it would have no expiry.
      if (json === null) continue;
      const erased = erasedForm(parseLedgerRecord(json), pseudonym);
      await mapRedisErrors(redis.hset(key, 'record', JSON.stringify(erased)));
    }
    await mapRedisErrors(redis.unlink(keys.correctionsOf(userId)));
  }

  /**
   * Adds the user's records of one batch to `found`.
   * @returns the sequence up to which it has searched
   */
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
      const record = parseLedgerRecord(stored.json);
      if (record.user_id !== userId || isErased(record)) continue;
      if (!follows(stored, batch[at - 1])) throw new LedgerBroken(stored.sequence);
      found.push(record);
      if (found.length === LISTED_PER_ENTRY) break;
    }
    return cursor;
  }

  /**
   * Reads the records after `from`, with the one before them, from Redis or, if they are trimmed there, from the
   * archive.
   */
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
    // The lease excludes an archiver that has read the original records and not yet written them.
    return (await archive.alone(async (writer) => this.#replaceIn(user, entry, writer))) !== undefined;
  }

  async #replaceIn(user: ErasedUser, entry: LedgerRecord, writer: ArchiveWriter | undefined): Promise<true> {
    const { redis, keys, ledger } = this.#deps;
    const listed = new Map(entry.erases);
    const sequences = [...listed.keys()];
    const stored = (await Promise.all(sequences.map((sequence) => ledger.range(sequence, sequence)))).flat();
    const archived = (await writer?.recordsAt(sequences)) ?? [];
    const erased = (one: Located): (ErasedForm & Located)[] => {
      const record = parseLedgerRecord(one.json);
      if (isErased(record)) return [];
      const form = erasedForm(record, user.pseudonym);
      // The record is not the one that was listed: its sequence was lost and assigned to another record.
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

/**
 * Returns whether a record follows from the one before it; true when that is not available, as for the first record of
 * a trimmed ledger.
 */
function follows(stored: Located, before: Located | undefined): boolean {
  if (!before || before.sequence !== stored.sequence - 1) return true;
  return following(parseLedgerRecord(before.json).hash, stored) !== undefined;
}

function redactionEntry({ pseudonym }: ErasedUser, records: readonly LedgerRecord[], now: number): UsageRecord {
  const [first] = records;
  if (!first) throw new RangeError('a redaction entry must list at least one record');
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

/**
 * Returns the erased form of a superseded record. It belongs to no chain, so it needs no commitment to its personal
 * fields.
 */
function superseded(json: string, pseudonym: string): string {
  const { personal: _, ...record } = erasedForm(parseLedgerRecord(json), pseudonym);
  return JSON.stringify(record);
}
