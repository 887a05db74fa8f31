import type { RunEnd, RunExecutor } from '../src/agents/run-executor.ts';
import type { Runs } from '../src/agents/runs.ts';
import { AgentRunJob } from '../src/jobs.ts';

/**
 * Executes a run that a gateway accepted. Can run twice, also at the same time: each claim takes the run away from
 * whoever had it, and what that one writes afterwards is refused.
 * @returns how the run ended; `missing` for a job whose run was never accepted, `finished` for one that has ended
 * @throws ZodError for a payload that is none: final, since it cannot get better
 */
export async function runAgent(
  payload: unknown,
  deps: { readonly runs: Runs; readonly executor: RunExecutor },
): Promise<RunEnd | 'missing' | 'finished'> {
  const { user_id, run_id } = AgentRunJob.parse(payload);
  const claim = await deps.runs.claim(user_id, run_id);
  if (claim.outcome !== 'claimed') return claim.outcome;
  return deps.executor.execute(claim.run);
}
