import { type AgentRunJob, QUEUES } from '../src/jobs.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Tracing } from '../src/lib/tracing.ts';
import { retryDuringOutage } from '../src/redis/errors.ts';
import type { RunEnd, RunExecutor } from '../src/runs/run-executor.ts';
import type { Runs } from '../src/runs/runs.ts';
import { OUTAGE_RETRY_MS } from '../src/tools/outcome.ts';

/**
 * The run of a job does not exist: its message exceeded the message limit, or the job started before the run was
 * stored. The latter can happen if both are on different shards.
 */
export class RunMissing extends Error {
  constructor(runId: string) {
    super(`no run ${runId}`);
    this.name = 'RunMissing';
  }
}

export interface RunAgentDeps {
  readonly runs: Runs;
  readonly executor: RunExecutor;
  readonly clock: Clock;
  readonly tracing: Tracing;
}

/**
 * Executes an accepted run. A job may be processed twice, even concurrently: each claim takes the run over from the
 * previous owner, whose later writes Redis rejects.
 * @param firstOf see `Runs.claim`
 * @returns how the run ended; `finished` if it had ended before, or another job of the run is executed; `waiting` if
 *   another job continues it
 * @throws RunMissing, and any error that prevented the terminal event; retries can succeed
 */
export async function runAgent(
  job: AgentRunJob,
  deps: RunAgentDeps,
  firstOf = '',
): Promise<RunEnd | 'waiting' | 'finished'> {
  const attributes = {
    'messaging.system': 'redis',
    'messaging.destination.name': QUEUES.agentRuns,
    'messaging.operation.type': 'process',
    'messaging.message.id': job.run_id,
  };
  const options = { kind: 'consumer', parent: job.traceparent, attributes } as const;
  return deps.tracing.root(`process ${QUEUES.agentRuns}`, options, () => claimAndRun(job, deps, firstOf));
}

async function claimAndRun(
  { user_id, run_id }: AgentRunJob,
  deps: RunAgentDeps,
  firstOf: string,
): Promise<RunEnd | 'waiting' | 'finished'> {
  for (;;) {
    const claim = await retryDuringOutage(deps.clock, OUTAGE_RETRY_MS, () => deps.runs.claim(user_id, run_id, firstOf));
    if (claim.outcome !== 'claimed') {
      if (claim.outcome === 'missing') throw new RunMissing(run_id);
      return 'finished';
    }
    const end = await deps.executor.execute(claim.run);
    // Each answer ends one input request, so the number of repetitions is bounded.
    if (end !== 'answered') return end;
  }
}
