import type { Clock } from '../src/lib/clock.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import type { Ledger } from '../src/usage/ledger.ts';

/** Moves what waits in the outboxes into the ledger, until nothing does. Any number of workers may do so at once. */
export async function foldUsage(deps: {
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'ledgerRecords' | 'ledgerLagSeconds'>;
}): Promise<number> {
  let total = 0;
  for (;;) {
    const { records, lagMs } = await deps.ledger.fold(deps.clock.now());
    deps.metrics.ledgerLagSeconds.set(lagMs / 1000);
    if (records === 0) return total;
    deps.metrics.ledgerRecords.inc(records);
    total += records;
  }
}
