import { type Plans, THREADS_KEPT } from '../catalogue/plans.ts';
import { TollgateError } from '../protocol/errors.ts';
import { BUSY_RETRY_MS, limitState, runsPerHour, scriptLimit } from './quotas.ts';

/** Refusal by the script `startRun`: the exceeded limit, the time of Redis, and the use of the limits. */
export type RunRefusal = readonly [
  limit: 'threads' | 'runs_per_hour' | 'runs_in_flight',
  now: number,
  inFlight: number,
  inHour: number,
  leavesAt: number,
];

/** Returns the run limits of a plan as an argument of the script `startRun`. */
export function runLimits(plans: Plans, planName: string): string {
  const plan = plans.effective(planName);
  const { threads, runsInFlight: inFlight } = plan;
  return JSON.stringify({
    inFlight,
    perHour: scriptLimit(runsPerHour(plan)),
    ...(threads === null ? {} : { threads }),
  });
}

/**
 * Returns the error for a refused run. The limit on runs in flight gives RATE_LIMITED, because runs end within seconds
 * and the client can retry. The hourly limit and the thread limit give QUOTA_EXCEEDED with the plan that allows more.
 */
export function runRefusal(plans: Plans, planName: string, refusal: RunRefusal): TollgateError {
  const [limit, , inFlight, inHour, leavesAt] = refusal;
  if (limit === 'threads') return threadsFull(plans, planName);
  const plan = plans.effective(planName);
  const hour = limitState(runsPerHour(plan), [inHour, leavesAt], 0);
  const rate_limit_status = {
    allowed: false,
    limits: { runs_in_flight: plan.runsInFlight, runs_per_hour: hour.limit },
    current_usage: { runs_in_flight: inFlight, runs_per_hour: inHour },
    ...(limit === 'runs_per_hour'
      ? { limit: hour.limit, used: inHour, remaining: hour.remaining, resets_at: hour.resets_at }
      : { limit: plan.runsInFlight, used: inFlight, remaining: 0, resets_at: null }),
  };
  if (limit === 'runs_in_flight') {
    const text = `Rate limit exceeded: ${inFlight} runs are in flight. Wait until one of them ends.`;
    return new TollgateError('RATE_LIMITED', { text, retryAfterMs: BUSY_RETRY_MS, fields: { rate_limit_status } });
  }
  const upgrade_path = plans.withMore(planName, ({ runsPerHour }) => runsPerHour);
  const text = `The plan ${plan.name} includes ${hour.limit} runs per hour, and all of them are used.`;
  return new TollgateError('QUOTA_EXCEEDED', {
    text,
    fields: { rate_limit_status, resets_at: hour.resets_at, upgrade_path },
  });
}

/** Returns the error when a user has the maximum number of threads, for `create_thread` and for `agent_request`. */
export function threadsFull(plans: Plans, planName: string): TollgateError {
  const limit = plans.effective(planName).threads ?? THREADS_KEPT;
  const text = `There can be ${limit} threads, and all of them are in use.`;
  const upgrade_path = plans.withMore(planName, ({ threads }) => threads ?? Number.POSITIVE_INFINITY);
  return new TollgateError('QUOTA_EXCEEDED', { text, fields: { limit, resets_at: null, upgrade_path } });
}
