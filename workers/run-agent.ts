import { type AgentRunJob, QUEUES } from '../src/jobs.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Tracing } from '../src/lib/tracing.ts';
import { retryDuringOutage } from '../src/redis/errors.ts';
import type { RunClaims } from '../src/runs/run-claims.ts';
import type { RunEnd, RunExecutor } from '../src/runs/run-executor.ts';
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

/** The workers of a run died more often than a run that makes progress would explain. */
export class TooManyTakeovers extends Error {
  constructor(runId: string) {
    super(`too many takeovers of ${runId}`);
    this.name = 'TooManyTakeovers';
  }
}

/** Maximum number of takeovers of a run of `RUN_TIMEOUT_SECONDS`; a run that fails more workers is ended. */
const MAX_TAKEOVERS = 3;
/** A run that lasts may be taken over once more in each of these periods: workers are also restarted on purpose. */
const TAKEOVER_EVERY_MS = 60_000;

/** Returns the maximum number of takeovers of a run that was accepted `elapsedMs` ago. */
export function takeoversWithin(elapsedMs: number): number {
  return MAX_TAKEOVERS + Math.floor(elapsedMs / TAKEOVER_EVERY_MS);
}

export interface RunAgentDeps {
  readonly claims: RunClaims;
  readonly executor: RunExecutor;
  readonly clock: Clock;
  readonly tracing: Tracing;
}

/** How often a job was delivered. */
export interface Delivery {
  readonly firstOf?: string;
  readonly takeovers?: number;
}

/**
 * Executes an accepted run. A job may be processed twice, even concurrently: each claim takes the run over from the
 * previous owner, whose later writes Redis rejects.
 * @param delivery.firstOf see `RunClaims.claim`
 * @param delivery.takeovers number of workers that died while they processed the job
 * @returns how the run ended; `finished` if it had ended before, or another job of the run is executed; `waiting` if
 *   another job continues it
 * @throws TooManyTakeovers; retries are useless
 * @throws RunMissing, and any error that prevented the terminal event; retries can succeed
 */
export async function runAgent(
  job: AgentRunJob,
  deps: RunAgentDeps,
  delivery: Delivery = {},
): Promise<RunEnd | 'waiting' | 'finished'> {
  const attributes = {
    'messaging.system': 'redis',
    'messaging.destination.name': QUEUES.agentRuns,
    'messaging.operation.type': 'process',
    'messaging.message.id': job.run_id,
  };
  const options = { kind: 'consumer', parent: job.traceparent, attributes } as const;
  return deps.tracing.root(`process ${QUEUES.agentRuns}`, options, () => claimAndRun(job, deps, delivery));
}

async function claimAndRun(
  { user_id, run_id }: AgentRunJob,
  deps: RunAgentDeps,
  { firstOf = '', takeovers = 0 }: Delivery,
): Promise<RunEnd | 'waiting' | 'finished'> {
  for (;;) {
    const claim = await retryDuringOutage(deps.clock, OUTAGE_RETRY_MS, () =>
      deps.claims.claim(user_id, run_id, firstOf),
    );
    if (claim.outcome !== 'claimed') {
      if (claim.outcome === 'missing') throw new RunMissing(run_id);
      return 'finished';
    }
    if (takeovers > takeoversWithin(claim.run.waitedMs)) throw new TooManyTakeovers(run_id);
    const end = await deps.executor.execute(claim.run);
    // Each answer ends one input request, so the number of repetitions is bounded.
    if (end !== 'answered') return end;
  }
}
