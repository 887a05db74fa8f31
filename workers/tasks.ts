import { eraseUsers } from './erase-users.ts';
import { closeWindows, ingestUsage, trimLedger } from './ingest-usage.ts';
import type { PeriodicTask } from './periodic-tasks.ts';
import { refreshDueTokens } from './refresh-tokens.ts';
import { sweepCalls } from './sweep-calls.ts';
import { sweepRuns } from './sweep-runs.ts';

type SecondsDeps = Parameters<typeof eraseUsers>[0] &
  Parameters<typeof refreshDueTokens>[0] &
  Parameters<typeof ingestUsage>[0];

/** The tasks of a second or less. They carry no state; each reads the current state from Redis. */
export function periodicTasks(deps: SecondsDeps): PeriodicTask[] {
  return [
    // Moves usage records from the outboxes into the ledger. The period bounds the lag of the ledger.
    { name: 'fold-usage', everyMs: 500, run: () => ingestUsage(deps) },
    // Continues the erasure of user data.
    { name: 'erase-users', everyMs: 1_000, run: () => eraseUsers(deps) },
    // Refreshes the tokens of live sessions. The period bounds the delay of a refresh.
    { name: 'refresh-tokens', everyMs: 1_000, run: () => refreshDueTokens(deps) },
  ];
}

type MaintenanceDeps = Parameters<typeof closeWindows>[0] &
  Parameters<typeof trimLedger>[0] &
  Parameters<typeof sweepRuns>[0] &
  Parameters<typeof sweepCalls>[0];

/** The jobs of BullMQ. They carry no state either. */
export function maintenanceTasks(deps: MaintenanceDeps): PeriodicTask[] {
  const sweep = async () => {
    await sweepRuns(deps);
    await sweepCalls(deps);
  };
  return [
    // Closes the hourly windows that are due. Separate from ingestion, which must not wait while a large window is
    // summed.
    { name: 'close-windows', everyMs: 5_000, run: () => closeWindows(deps) },
    // Trims ledger records that every consumer has confirmed and that are old enough.
    { name: 'trim-ledger', everyMs: 60_000, run: () => trimLedger(deps) },
    // Ends runs and tool calls whose process was interrupted.
    { name: 'sweep-runs', everyMs: 5_000, run: sweep },
  ];
}
