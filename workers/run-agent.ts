import type { RunEnd, RunExecutor } from '../src/agents/run-executor.ts';
import { OUTAGE_PATIENCE_MS } from '../src/agents/run-log.ts';
import type { Runs } from '../src/agents/runs.ts';
import { AgentRunJob } from '../src/jobs.ts';
import type { Clock } from '../src/lib/clock.ts';
import { whileAway } from '../src/redis/errors.ts';

/**
 * There is no such run: its message was over the limit, or the job was faster than the run, which can happen where the
 * two are on different shards.
 */
export class RunMissing extends Error {
  constructor(runId: string) {
    super(`no run ${runId}`);
    this.name = 'RunMissing';
  }
}

/**
 * Executes a run that a gateway accepted. Can run twice, also at the same time: each claim takes the run away from
 * whoever had it, and what that one writes afterwards is refused.
 * @returns how the run ended; `finished` when it had ended before
 * @throws ZodError for a payload that is none: final, since it cannot get better
 * @throws RunMissing, and whatever kept the terminal event from being written: worth another attempt
 */
export async function runAgent(
  payload: unknown,
  deps: { readonly runs: Runs; readonly executor: RunExecutor; readonly clock: Clock },
): Promise<RunEnd | 'finished'> {
  const { user_id, run_id } = AgentRunJob.parse(payload);
  const claim = await whileAway(deps.clock, OUTAGE_PATIENCE_MS, () => deps.runs.claim(user_id, run_id));
  if (claim.outcome !== 'claimed') {
    if (claim.outcome === 'missing') throw new RunMissing(run_id);
    return 'finished';
  }
  return deps.executor.execute(claim.run);
}
