import type { Clock } from '../../lib/clock.ts';
import type { Logger } from '../../lib/logger.ts';
import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import type { UsageRecord } from '../records.ts';
import type { LedgerServer } from './ledger-server.ts';
import { resubmit } from './resubmitted-records.ts';

/** Some 20 MB at most: 20 s of a process that records 1,000 executions a second. */
const MAX_RECORDS = 20_000;
const TRY_AGAIN_MS = 1_000;

export interface AcknowledgedRecordsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly server: LedgerServer;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface AcknowledgedRecordsOptions {
  /** How long a record is remembered, counted back from the latest one; 0 remembers none. */
  readonly keptMs: number;
  readonly maxRecords?: number;
}

/** A record, since when it is known to be written. */
interface AcknowledgedRecord {
  readonly record: UsageRecord;
  readonly at: number;
}

/**
 * The usage records of the last seconds that Redis has acknowledged to this process. A Redis that was started again, or a
 * replica that was promoted, may not have the last of them: then all are given back to the ledger, which takes up those that
 * it does not have. What it loses is what this process loses when it dies in the same moments.
 *
 * Age is counted from the latest record, so that an outage takes nothing away: nothing is acknowledged while it lasts.
 */
export class AcknowledgedRecords {
  readonly #deps: AcknowledgedRecordsDeps;
  readonly #keptMs: number;
  readonly #maxRecords: number;
  #records: AcknowledgedRecord[] = [];
  /** Where the oldest that is still remembered stands; those before it go in one piece. */
  #oldest = 0;
  /** The Redis that everything before the latest look was written to. */
  #serverId: string | undefined;
  #isComparing = false;
  #stopped = false;
  #cancel: (() => void) | undefined;
  readonly #onReady = () => void this.#compare();

  constructor(deps: AcknowledgedRecordsDeps, { keptMs, maxRecords = MAX_RECORDS }: AcknowledgedRecordsOptions) {
    this.#deps = deps;
    this.#keptMs = keptMs;
    this.#maxRecords = maxRecords;
  }

  /** Learns which Redis it is, and looks again whenever the connection was lost. */
  start(): void {
    if (this.#keptMs === 0) return;
    this.#deps.redis.on('ready', this.#onReady);
    this.#onReady();
  }

  stop(): void {
    this.#stopped = true;
    this.#deps.redis.off('ready', this.#onReady);
    this.#cancel?.();
  }

  get size(): number {
    return this.#records.length - this.#oldest;
  }

  /** Redis has said that the record, a `UsageRecord` as the event log has it, is written. */
  onAcknowledged(record: object): void {
    if (this.#keptMs === 0) return;
    const now = this.#deps.clock.now();
    this.#records.push({ record: record as UsageRecord, at: now });
    while (this.size > this.#maxRecords || this.#isOld(now)) this.#oldest += 1;
    if (this.#oldest < this.#records.length / 2) return;
    this.#records = this.#records.slice(this.#oldest);
    this.#oldest = 0;
  }

  #isOld(now: number): boolean {
    const oldest = this.#records[this.#oldest];
    return oldest !== undefined && now - oldest.at > this.#keptMs;
  }

  /** Never rejects. */
  async #compare(): Promise<void> {
    if (this.#isComparing) return;
    this.#isComparing = true;
    this.#cancel?.();
    try {
      const { serverId, now } = await this.#deps.server.identify();
      if (this.#serverId !== undefined && this.#serverId !== serverId) await this.#resubmitAll(now);
      this.#serverId = serverId;
    } catch (error) {
      // Away again, or not there yet; while the connection is lost, `ready` comes first.
      this.#deps.logger.debug({ err: error }, 'acknowledged records were not compared');
      if (!this.#stopped) this.#cancel = this.#deps.clock.after(TRY_AGAIN_MS, this.#onReady);
    } finally {
      this.#isComparing = false;
    }
  }

  /** @param redisNow what Redis's clock says now: this process's own may say something else */
  async #resubmitAll(redisNow: number): Promise<void> {
    const { clock, logger } = this.#deps;
    const acknowledged = this.#records.slice(this.#oldest);
    const [first] = acknowledged;
    if (!first) return;
    const records = acknowledged.map(({ record }) => record);
    await resubmit(this.#deps, records, { source: 'node', since: redisNow - (clock.now() - first.at) });
    logger.warn({ records: records.length }, 'Redis is another one: records that it may have lost were given back');
  }
}
