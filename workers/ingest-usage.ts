import type { Clock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import type { Tracing } from '../src/lib/tracing.ts';
import type { Consumers } from '../src/usage/ledger/consumers.ts';
import type { LedgerWriter } from '../src/usage/ledger/ledger-writer.ts';
import type { Windows } from '../src/usage/ledger/windows.ts';
import type { LedgerGate } from '../src/usage/recovery/ledger-server.ts';

/**
 * Maximum number of batches per job, each with up to 128 records per outbox. The next job continues a larger backlog.
 */
const MAX_PASSES = 500;

export interface IngestDeps {
  readonly writer: LedgerWriter;
  /** Present only if an archive is configured, against which the ledger is checked first. */
  readonly gate: Pick<LedgerGate, 'isOpen'> | undefined;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'ledgerRecords' | 'ledgerLagSeconds' | 'ledgerFaults' | 'ledgerRecovered'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/**
 * Moves records from the outboxes into the ledger. Several workers may do so concurrently, and a job may run twice.
 * @returns the time (clock of Redis) up to which the ledger is complete; undefined if records remain in the outboxes,
 *   because another writer is active, an outbox is stuck, the backlog exceeds one job, or the check against the
 *   archive is pending
 */
export async function ingestUsage(deps: IngestDeps): Promise<number | undefined> {
  const { writer, gate, clock, metrics, logger, tracing } = deps;
  if (gate && !(await gate.isOpen())) return undefined;
  for (let pass = 0; pass < MAX_PASSES; pass++) {
    const { records, lagMs, completeUntil, unreadable, recovered } = await writer.ingest(clock.now(), tracing);
    metrics.ledgerRecords.inc(records);
    metrics.ledgerLagSeconds.set(lagMs / 1000);
    for (const [source, count] of Object.entries(recovered))
      metrics.ledgerRecovered.inc({ how: `from_${source}` }, count);
    metrics.ledgerFaults.set({ kind: 'unreadable_entry' }, unreadable.length);
    if (unreadable.length > 0) logger.error({ outboxes: unreadable }, 'outbox entry is unreadable');
    if (completeUntil !== undefined || records === 0) return completeUntil;
  }
  return undefined;
}

/** Closes the windows that are due. Several workers may run concurrently; each window is closed once. */
export async function closeWindows({
  windows,
  ...deps
}: IngestDeps & {
  readonly windows: Windows;
  readonly metrics: Pick<Metrics, 'ledgerWindowsClosed'>;
}): Promise<number> {
  const completeUntil = await ingestUsage(deps);
  if (completeUntil === undefined) return 0;
  const { closed, disagreeing } = await windows.closeDue(completeUntil);
  deps.metrics.ledgerWindowsClosed.inc(closed);
  deps.metrics.ledgerFaults.set({ kind: 'window_disagrees' }, disagreeing.length);
  if (disagreeing.length > 0) deps.logger.error({ windows: disagreeing }, 'usage windows disagree with their records');
  return closed;
}

/** Trims records that every consumer has confirmed and that are old enough. Idempotent. */
export async function trimLedger(deps: {
  readonly consumers: Consumers;
  readonly metrics: Pick<Metrics, 'ledgerTrimmed'>;
}): Promise<number> {
  const trimmed = await deps.consumers.trim();
  deps.metrics.ledgerTrimmed.inc(trimmed);
  return trimmed;
}
