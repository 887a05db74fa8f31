import type { Clock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import type { Consumers } from '../src/usage/consumers.ts';
import type { LedgerWriter } from '../src/usage/ledger-writer.ts';
import type { Windows } from '../src/usage/windows.ts';

/** Rounds of one job, of up to 500 records an outbox: a backlog that needs more is the next job's. */
const MAX_ROUNDS = 200;

export interface FoldDeps {
  readonly writer: LedgerWriter;
  readonly windows: Windows;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'ledgerRecords' | 'ledgerLagSeconds' | 'ledgerWindowsClosed' | 'ledgerFaults'>;
  readonly logger: Logger;
}

/**
 * Moves what waits in the outboxes into the ledger, and closes the windows that are due. Any number of workers may do so
 * at once, and a job may run twice.
 */
export async function foldUsage({ writer, windows, clock, metrics, logger }: FoldDeps): Promise<number> {
  let total = 0;
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const { records, lagMs, passedAt, unreadable } = await writer.fold(clock.now());
    metrics.ledgerRecords.inc(records);
    metrics.ledgerLagSeconds.set(lagMs / 1000);
    metrics.ledgerFaults.set({ kind: 'unreadable_entry' }, unreadable.length);
    if (unreadable.length > 0) logger.error({ outboxes: unreadable }, 'an entry of an outbox cannot be read');
    total += records;
    if (passedAt !== undefined) {
      const { closed, disagreeing } = await windows.closeDue(passedAt);
      metrics.ledgerWindowsClosed.inc(closed);
      metrics.ledgerFaults.set({ kind: 'window_disagrees' }, disagreeing.length);
      if (disagreeing.length > 0) logger.error({ windows: disagreeing }, 'windows disagree with their records');
      return total;
    }
    // Another writer is at it, or an outbox is stuck: the next job looks again.
    if (records === 0) return total;
  }
  return total;
}

/** Removes what every consumer has confirmed and is old enough. Can run anywhere, any number of times. */
export async function trimLedger(deps: {
  readonly consumers: Consumers;
  readonly metrics: Pick<Metrics, 'ledgerTrimmed'>;
}): Promise<number> {
  const trimmed = await deps.consumers.trim();
  deps.metrics.ledgerTrimmed.inc(trimmed);
  return trimmed;
}
