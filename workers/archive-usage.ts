import { type Clock, sleep } from '../src/lib/clock.ts';
import type { Closers } from '../src/lib/closers.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import { TollgateError } from '../src/protocol/errors.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';
import { ArchiveDisagrees, UsageArchive } from '../src/usage/archive/archive.ts';
import { ARCHIVE_CONSUMER, Archiver, type Step } from '../src/usage/archive/archiver.ts';
import { ArchiveDatabase } from '../src/usage/archive/database.ts';
import type { Consumers } from '../src/usage/ledger/consumers.ts';
import type { Ledger } from '../src/usage/ledger/ledger.ts';
import type { Windows } from '../src/usage/ledger/windows.ts';
import type { LedgerServer } from '../src/usage/recovery/ledger-server.ts';

/** Twice the ingestion period: the archive is about two seconds behind the execution of a call. */
const EVERY_MS = 1_000;
/** Maximum of the interval, which doubles with each consecutive failure. */
const MAX_DELAY_MS = 30_000;
/** Timeout for the current step at shutdown. An interrupted step is rolled back and repeated by another worker. */
const CLOSE_TIMEOUT_MS = 5_000;
/** Maximum number of ids per log line. */
const MAX_LOGGED = 20;

export interface ArchiveDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
  readonly server: LedgerServer;
  readonly consumers: Consumers;
  readonly windows: Windows;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly closers: Closers;
}

/** Opens the archive. Its tables are created or migrated on first use. */
export function openArchive(
  url: string,
  { logger, clock, closers }: Pick<ArchiveDeps, 'logger' | 'clock' | 'closers'>,
): UsageArchive {
  const database = new ArchiveDatabase(url, { logger }, { migrates: true });
  // The timeout covers a hanging connection.
  closers.add('archive database', () => Promise.race([database.close(), sleep(clock, CLOSE_TIMEOUT_MS)]));
  return new UsageArchive(database);
}

/**
 * Archives the ledger until the worker stops. Every worker tries, but only the one with the lease writes. If
 * PostgreSQL is unavailable, the ledger continues and keeps the records that are not archived, and
 * `tollgate_archive_lag_records` grows.
 */
export function startArchiving(archive: UsageArchive, deps: ArchiveDeps): void {
  const { closers } = deps;
  const archiver = new Archiver({ ...deps, archive });
  const stop = new AbortController();
  const working = work(archiver, deps, stop.signal);
  closers.add('archiver', () => {
    stop.abort();
    return Promise.race([working, sleep(deps.clock, CLOSE_TIMEOUT_MS)]);
  });
}

/** Never rejects. */
async function work(archiver: Archiver, deps: ArchiveDeps, stop: AbortSignal): Promise<void> {
  let failures = 0;
  while (!stop.aborted) {
    let more = false;
    try {
      const step = await archiver.step();
      if (failures > 0) deps.logger.info({ failures }, 'archiving resumed');
      failures = 0;
      report(step, deps);
      more = step.more;
    } catch (error) {
      failures += 1;
      reportFailure(error, failures, deps);
    }
    await reportLag(deps);
    if (!more) await sleep(deps.clock, Math.min(EVERY_MS * 2 ** Math.min(failures, 10), MAX_DELAY_MS), stop);
  }
}

function report({ archived, repaired }: Step, { metrics, logger }: ArchiveDeps): void {
  metrics.archiveRecords.inc(archived);
  metrics.ledgerFaults.set({ kind: 'archive_disagrees' }, 0);
  if (!repaired) return;
  const { restored, resubmitted, chargedOtherwise } = repaired;
  metrics.ledgerRecovered.inc({ how: 'restored' }, restored);
  if (restored > 0) logger.warn({ records: restored }, 'records lost by Redis were restored unchanged');
  if (resubmitted > 0) logger.warn({ records: resubmitted }, 'records lost by Redis were resubmitted to the ledger');
  if (chargedOtherwise.length === 0) return;
  const some = chargedOtherwise.slice(0, MAX_LOGGED);
  logger.error({ records: some, count: chargedOtherwise.length }, 'lost records were resubmitted with different units');
}

function reportFailure(error: unknown, failures: number, { metrics, logger }: ArchiveDeps): void {
  const disagrees = error instanceof ArchiveDisagrees;
  const reason = disagrees ? 'disagrees' : error instanceof TollgateError ? 'redis' : 'postgresql';
  metrics.archiveFailures.inc({ reason });
  metrics.ledgerFaults.set({ kind: 'archive_disagrees' }, disagrees ? 1 : 0);
  const text = error instanceof Error ? error.message : String(error);
  // Only the first failure is logged; the metric counts the others.
  if (disagrees) logger.error({ error: text }, 'ledger and archive disagree, see docs/billing.md');
  else if (failures === 1) logger.warn({ error: text, reason }, 'archiving failed, retrying');
}

/** Computes the lag from Redis alone, so that it is reported while PostgreSQL is unavailable. */
async function reportLag({ ledger, consumers, clock, metrics }: ArchiveDeps): Promise<void> {
  try {
    const [{ sequence: head }, consumer] = await Promise.all([ledger.head(), consumers.list()]);
    const archived = consumer.find(({ consumer }) => consumer === ARCHIVE_CONSUMER)?.sequence ?? 0;
    const [oldest] = await ledger.range(archived + 1, head, 1);
    metrics.archiveLagRecords.set(Math.max(0, head - archived));
    metrics.archiveLagSeconds.set(oldest ? Math.max(0, clock.now() - oldest.appendedAt) / 1000 : 0);
  } catch {
    // Redis is unavailable, which other metrics report.
  }
}
