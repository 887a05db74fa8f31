import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import { type IdentifyService, serviceGuard } from '../http/services.ts';
import { registerUsageReportRoutes } from '../http/usage-report-routes.ts';
import { registerUsageRoutes } from '../http/usage-routes.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Closers } from '../lib/closers.ts';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { UsageArchive } from '../usage/archive/archive.ts';
import { ArchiveDatabase } from '../usage/archive/database.ts';
import { pseudonymsInUse } from '../usage/erasures-in-progress.ts';
import { Consumers } from '../usage/ledger/consumers.ts';
import { Corrections } from '../usage/ledger/corrections.ts';
import { Ledger } from '../usage/ledger/ledger.ts';
import { LedgerTail } from '../usage/ledger/ledger-tail.ts';
import { Verifier } from '../usage/ledger/verifier.ts';
import { Windows } from '../usage/ledger/windows.ts';
import type { AcknowledgedRecords } from '../usage/recovery/acknowledged-records.ts';
import { Tallies } from '../usage/reports/tallies.ts';

/** Maximum number of long-polling readers of the feed per node. One loop reads Redis for all of them. */
const MAX_WAITING_READERS = 200;
/** Timeout for closing a connection to a hanging PostgreSQL. */
const CLOSE_TIMEOUT_MS = 1_000;

export interface UsageRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  /** Archive of the ledger; undefined if none is configured. */
  readonly archive: UsageArchive | undefined;
  /** Receives the corrections that are written. */
  readonly acknowledgedRecords: AcknowledgedRecords;
}

/** Registers the routes of the ledger for billing systems. */
export function registerUsage(
  app: FastifyInstance,
  { identifyService, redis, keys, clock, archive, acknowledgedRecords }: UsageRoutesDeps,
): void {
  const ledger = new Ledger({ redis, keys });
  const windows = new Windows({ redis, keys, ledger });
  const tallies = new Tallies({ redis, keys });
  const deps = { guard: serviceGuard(identifyService), ledger, windows, tallies, clock };
  const tail = new LedgerTail({ ledger, clock }, { maxWaiting: MAX_WAITING_READERS });
  registerUsageRoutes(app, { ...deps, tail, consumers: new Consumers({ redis, keys, ledger, windows }) });
  const corrections = new Corrections({ redis, keys, ledger, clock, observer: acknowledgedRecords });
  registerUsageReportRoutes(app, {
    ...deps,
    corrections,
    verifier: new Verifier({
      ledger,
      windows,
      tallies,
      clock,
      archive,
      pseudonymsInUse: () => pseudonymsInUse({ redis, keys }),
    }),
  });
}

/**
 * Opens the archive for the usage routes; returns undefined without `USAGE_ARCHIVE_URL`. A gateway only reads it, and
 * connects at the first read.
 */
export function openArchive(
  { USAGE_ARCHIVE_URL: url }: Pick<Config, 'USAGE_ARCHIVE_URL'>,
  { logger, clock, closers }: { readonly logger: Logger; readonly clock: Clock; readonly closers: Closers },
): UsageArchive | undefined {
  if (url === undefined) return undefined;
  const database = new ArchiveDatabase(url, { logger }, { migrates: false });
  closers.add('archive database', () => Promise.race([database.close(), sleep(clock, CLOSE_TIMEOUT_MS)]));
  return new UsageArchive(database);
}
