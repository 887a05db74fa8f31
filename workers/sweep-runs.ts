import type { UserLogWriter } from '../src/events/user-log-writer.ts';
import type { AgentRunJob } from '../src/jobs.ts';
import type { Clock } from '../src/lib/clock.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import { type ErrorCode, TollgateError } from '../src/protocol/errors.ts';
import { RedisUnavailable, retryDuringOutage } from '../src/redis/errors.ts';
import type { RunClaims } from '../src/runs/run-claims.ts';
import { RunOwnershipLost } from '../src/runs/run-end.ts';
import type { RunInputs } from '../src/runs/run-inputs.ts';
import { RunLog } from '../src/runs/run-log.ts';
import { OUTAGE_RETRY_MS } from '../src/tools/outcome.ts';

export interface SweepDeps {
  readonly claims: RunClaims;
  readonly inputs: Pick<RunInputs, 'expire'>;
  readonly log: UserLogWriter;
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Ends every overdue run without a terminal event, so that each run has exactly one. A run that waited for input in
 * vain continues without it.
 */
export async function sweepRuns(deps: SweepDeps): Promise<number> {
  let ended = 0;
  for (const job of await deps.claims.overdue()) {
    const context = { run_id: job.run_id, user: userHash(job.user_id) };
    const end = async () => !(await deps.inputs.expire(job)) && (await abandonRun(job, 'RUN_TIMEOUT', deps));
    if (await trySweep(deps.logger, context, end)) ended += 1;
  }
  return ended;
}

/**
 * Calls `end` and returns its result. An error, for example because of damaged user data, is logged and does not stop
 * the sweep of other users.
 * @throws RedisUnavailable; the sweep stops then
 */
export async function trySweep(logger: Logger, context: object, end: () => Promise<boolean>): Promise<boolean> {
  try {
    return await end();
  } catch (error) {
    if (error instanceof RedisUnavailable) throw error;
    logger.error({ ...context, err: error }, 'sweep failed, the data of the user may be damaged');
    return false;
  }
}

/** Takes the run over and ends it with `agent_failed`. Returns false if it has ended in the meantime. */
export async function abandonRun(
  { user_id, run_id }: AgentRunJob,
  code: ErrorCode,
  deps: Omit<SweepDeps, 'inputs'>,
): Promise<boolean> {
  const claim = await retryDuringOutage(deps.clock, OUTAGE_RETRY_MS, () => deps.claims.claim(user_id, run_id));
  if (claim.outcome !== 'claimed') {
    await deps.claims.forget(user_id, run_id);
    return false;
  }
  const log = new RunLog(deps, claim.run, () => undefined);
  try {
    await log.abandoned(new TollgateError(code));
  } catch (error) {
    if (error instanceof RunOwnershipLost) return false;
    throw error;
  }
  deps.logger.warn({ run_id, user: userHash(user_id), code }, 'interrupted run ended');
  return true;
}
