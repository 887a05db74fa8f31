import type { Clock } from '../../lib/clock.ts';
import type { Logger } from '../../lib/logger.ts';
import type { UsageRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import type { LedgerServer } from './ledger-server.ts';
import { resubmit } from './resubmitted-records.ts';

/** Maximum number of records: at most about 20 MB, or 20 s of a process that writes 1,000 records per second. */
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
  /** Milliseconds that a record is kept, counted back from the latest record; 0 disables the component. */
  readonly keptMs: number;
  readonly maxRecords?: number;
}

/** A record and the time of its acknowledgement. */
interface AcknowledgedRecord {
  readonly record: UsageRecord;
  readonly at: number;
}

/**
 * The usage records that Redis acknowledged to this process in the last seconds. A restarted Redis or a promoted
 * replica may lack the last of them. The process then resubmits all of them, and the ledger appends those that it
 * lacks. Records remain lost only if this process dies at the same time.
 *
 * Age is counted from the latest record, so an outage expires nothing: Redis acknowledges no records while it lasts.
 */
export class AcknowledgedRecords {
  readonly #deps: AcknowledgedRecordsDeps;
  readonly #keptMs: number;
  readonly #maxRecords: number;
  #records: AcknowledgedRecord[] = [];
  /** Index of the oldest record that is kept. The records before it are removed together. */
  #oldest = 0;
  /** Id of the Redis server that acknowledged all records before the latest comparison. */
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

  /** Identifies the Redis server, and compares again after each reconnect. */
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

  /** Stores a record that Redis acknowledged. */
  onAcknowledged(record: UsageRecord): void {
    if (this.#keptMs === 0) return;
    const now = this.#deps.clock.now();
    this.#records.push({ record, at: now });
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
      // Redis is unavailable. If the connection is lost, the `ready` event triggers the next comparison before this
      // timer.
      this.#deps.logger.debug({ err: error }, 'comparison with the redis server failed, retrying');
      if (!this.#stopped) this.#cancel = this.#deps.clock.after(TRY_AGAIN_MS, this.#onReady);
    } finally {
      this.#isComparing = false;
    }
  }

  /** @param redisNow the time of Redis, because the clock of this process may differ */
  async #resubmitAll(redisNow: number): Promise<void> {
    const { clock, logger } = this.#deps;
    const acknowledged = this.#records.slice(this.#oldest);
    const [first] = acknowledged;
    if (!first) return;
    const records = acknowledged.map(({ record }) => record);
    await resubmit(this.#deps, records, { source: 'node', since: redisNow - (clock.now() - first.at) });
    logger.warn({ records: records.length }, 'redis server changed, acknowledged records resubmitted');
  }
}
