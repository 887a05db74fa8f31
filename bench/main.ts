import { connectAndDeliver } from './connect-and-deliver.ts';
import { delivery } from './delivery.ts';
import { firstEvent } from './first-event.ts';
import { ledger } from './ledger.ts';
import { runAsProgram } from './lib/report.ts';
import { modelRuns } from './model-runs.ts';
import { runPrice } from './price.ts';
import { revocation } from './revocation.ts';
import { roundTrips } from './round-trips.ts';
import { upstreamCalls } from './upstream-calls.ts';

if (process.argv.includes('--against')) await runPrice(process.argv);
// Counts come first: they are exact on any machine, while times depend on an otherwise idle one.
else
  await runAsProgram([
    roundTrips,
    revocation,
    firstEvent,
    modelRuns,
    connectAndDeliver,
    delivery,
    ledger,
    upstreamCalls,
  ]);
