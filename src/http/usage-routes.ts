import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import type { RecordWitness } from '../events/event-log.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Closers } from '../lib/closers.ts';
import type { Logger } from '../lib/logger.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { UsageArchive } from '../usage/archive/archive.ts';
import { ArchiveDatabase } from '../usage/archive/database.ts';
import { Consumers } from '../usage/consumers.ts';
import { Corrections } from '../usage/corrections.ts';
import { PseudonymsInUse } from '../usage/erasures-in-progress.ts';
import { Ledger } from '../usage/ledger.ts';
import { LedgerTail } from '../usage/ledger-tail.ts';
import { Tallies } from '../usage/tallies.ts';
import { Verifier } from '../usage/verifier.ts';
import { Windows } from '../usage/windows.ts';
import { type IdentifyService, serviceGuard } from './services.ts';
import { usageRoutes } from './usage-api.ts';
import { usageReportRoutes } from './usage-reports-api.ts';

/** Readers of the usage feed that may wait for records on this node; one loop asks Redis for all of them. */
const MAX_WAITING_READERS = 200;
/** A PostgreSQL that hangs is not waited for. */
const CLOSE_PATIENCE_MS = 1_000;

export interface UsageRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly closers: Closers;
  /** Told of the corrections that are written. */
  readonly eventLog: RecordWitness;
}

/** The ledger for those who bill by it. */
export function addUsageRoutes(
  app: FastifyInstance,
  { identifyService, redis, keys, clock, logger, closers, eventLog }: UsageRoutesDeps,
  { USAGE_ARCHIVE_URL }: Pick<Config, 'USAGE_ARCHIVE_URL'>,
): void {
  const ledger = new Ledger({ redis, keys });
  const windows = new Windows({ redis, keys, ledger });
  const tallies = new Tallies({ redis, keys });
  const parts = { guard: serviceGuard(identifyService), ledger, windows, tallies, clock };
  const tail = new LedgerTail({ ledger, clock }, { maxWaiting: MAX_WAITING_READERS });
  usageRoutes(app, { ...parts, tail, consumers: new Consumers({ redis, keys, ledger, windows }) });
  const corrections = new Corrections({ redis, keys, ledger, clock, witness: eventLog });
  const archive = USAGE_ARCHIVE_URL ? openArchive(USAGE_ARCHIVE_URL, { logger, clock, closers }) : undefined;
  usageReportRoutes(app, {
    ...parts,
    corrections,
    verifier: new Verifier({
      ledger,
      windows,
      tallies,
      clock,
      archive,
      erasures: new PseudonymsInUse({ redis, keys }),
    }),
  });
}

/** To compare the ledger with: a gateway only reads, and connects when it does so for the first time. */
export function openArchive(
  url: string,
  { logger, clock, closers }: Pick<UsageRoutesDeps, 'logger' | 'clock' | 'closers'>,
): UsageArchive {
  const database = new ArchiveDatabase(url, { logger }, { migrates: false });
  closers.add('archive database', () => Promise.race([database.close(), sleep(clock, CLOSE_PATIENCE_MS)]));
  return new UsageArchive(database);
}
