import { createHash } from 'node:crypto';
import type { Clock } from '../../lib/clock.ts';
import { derivedId } from '../../lib/ids.ts';
import type { LedgerRecord, UsageRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { literal, oneOf, text, tuple } from '../../redis/replies.ts';
import { LuaScript } from '../../redis/scripts.ts';
import { hourOf } from '../hours.ts';
import { parseLedgerRecord, parseUsageRecord } from '../records.ts';
import type { AcknowledgedRecords } from '../recovery/acknowledged-records.ts';
import type { Ledger } from './ledger.ts';

const recordCorrection = LuaScript.load(
  'recordCorrection-4',
  oneOf(tuple([literal('recorded', 'repeated', 'excessive'), text]), tuple([literal('conflict')])),
);

/** Expiry of an idempotency key: the minimum retention of records, within which every retry arrives. */
const KEY_SECONDS = 45 * 24 * 3_600;

export interface CorrectionRequest {
  /** Id of the record to correct. `sequence` locates the record, and the id verifies that it is the right one. */
  readonly recordId: string;
  readonly sequence: number;
  /** Units to add to the record; negative to subtract. */
  readonly units: number;
  readonly reason: string;
}

/** The requesting service and its idempotency key: the same pair identifies the same correction. */
export interface CorrectionKey {
  readonly serviceId: string;
  readonly idempotencyKey: string;
}

/**
 * - `recorded`, `repeated`: the correction, which the next ingestion pass adds to the ledger
 * - `conflict`: the key was used for another correction
 * - `excessive`: only `remaining` units of the record can be subtracted
 * - `missing`: the ledger does not contain the record, or no longer
 * - `correction`: the record is itself a correction
 */
export type CorrectionResult =
  | { readonly outcome: 'recorded' | 'repeated'; readonly record: UsageRecord }
  | { readonly outcome: 'excessive'; readonly remaining: number }
  | { readonly outcome: 'conflict' | 'missing' | 'correction' };

export interface CorrectionsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
  readonly clock: Clock;
  /** Receives corrections that Redis acknowledged. */
  readonly observer?: Pick<AcknowledgedRecords, 'onAcknowledged'> | undefined;
}

/**
 * Records corrections. The corrected record does not change: a correction is a record of its own, in the hour in which
 * it was made, and its units change those of the original. Closed windows therefore remain unchanged, and sums are
 * correct.
 */
export class Corrections {
  readonly #deps: CorrectionsDeps;

  constructor(deps: CorrectionsDeps) {
    this.#deps = deps;
  }

  /**
   * Records a correction, once per idempotency key.
   * @throws RedisUnavailable; the same request can be repeated
   */
  async record(key: CorrectionKey, request: CorrectionRequest): Promise<CorrectionResult> {
    const keyDigest = digest([key.serviceId, key.idempotencyKey]);
    const keyName = this.#deps.keys.correction(keyDigest);
    const requestDigest = digest([request.recordId, request.sequence, request.units, request.reason]);
    // The key is read before the record, which may have been trimmed since the key was used.
    const [existing, stored] = await mapRedisErrors(this.#deps.redis.hmget(keyName, 'request', 'record'));
    if (existing) {
      if (existing !== requestDigest) return { outcome: 'conflict' };
      return { outcome: 'repeated', record: parseUsageRecord(stored ?? '') };
    }
    const original = await this.#find(request);
    if (!original) return { outcome: 'missing' };
    if (original.corrects !== undefined) return { outcome: 'correction' };
    // The id also depends on the request: a key expires, and a billing system would treat two records with the same id
    // as one.
    const id = derivedId('usage', 'correction', key.serviceId, key.idempotencyKey, requestDigest);
    const record = this.#correction(id, key, request, original);
    const reply = await recordCorrection.run(
      this.#deps.redis,
      [
        this.#deps.keys.corrections,
        keyName,
        this.#deps.keys.corrected,
        this.#deps.keys.correctionsOf(original.user_id),
      ],
      [requestDigest, JSON.stringify(record), original.id, request.units, original.units, KEY_SECONDS, keyDigest],
    );
    if (reply[0] === 'conflict') return { outcome: 'conflict' };
    const [outcome, detail] = reply;
    if (outcome === 'excessive') return { outcome, remaining: Number(detail) };
    const written = parseUsageRecord(detail);
    this.#deps.observer?.onAcknowledged(written);
    return { outcome, record: written };
  }

  async #find({ recordId, sequence }: CorrectionRequest): Promise<LedgerRecord | undefined> {
    const [stored] = await this.#deps.ledger.range(sequence, sequence);
    const record = stored && parseLedgerRecord(stored.json);
    return record?.id === recordId ? record : undefined;
  }

  #correction(
    id: string,
    key: CorrectionKey,
    { units, reason }: CorrectionRequest,
    original: LedgerRecord,
  ): UsageRecord {
    const { user_id, plan, tool, permission, run_id, thread_id, request_id } = original;
    const now = this.#deps.clock.now();
    const time = new Date(now).toISOString();
    return {
      id,
      user_id,
      plan,
      tool,
      permission,
      status: original.status,
      units,
      run_id,
      thread_id,
      request_id,
      idempotency_key: key.idempotencyKey,
      transport: 'http',
      started_at: time,
      completed_at: time,
      duration_ms: 0,
      period: hourOf(now),
      corrects: original.id,
      reason,
    };
  }
}

function digest(values: readonly (string | number)[]): string {
  return createHash('sha256').update(JSON.stringify(values)).digest('hex');
}
