import { connectAndDeliver } from './connect-and-deliver.ts';
import { delivery } from './delivery.ts';
import { firstEvent } from './first-event.ts';
import { runAsProgram } from './lib/report.ts';
import { modelRuns } from './model-runs.ts';
import { roundTrips } from './round-trips.ts';

// The counts first: they are exact on any machine, the times are only as good as the quiet around them.
await runAsProgram([roundTrips, firstEvent, modelRuns, connectAndDeliver, delivery]);
