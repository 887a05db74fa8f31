import { type Plans, THREADS_KEPT } from '../catalogue/plans.ts';
import { TollgateError } from '../protocol/errors.ts';
import { BUSY_RETRY_MS, limitState, runsPerHour, scriptLimit } from './quotas.ts';

/** Why `startRun` refused a request: the limit, Redis's time, and what of the limits is used. */
export type RunRefusal = readonly [
  limit: 'threads' | 'runs_per_hour' | 'runs_in_flight',
  now: number,
  inFlight: number,
  inHour: number,
  leavesAt: number,
];

/** The limits of a plan on runs, as `startRun` takes them. */
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
 * A run in flight ends within seconds and makes room by itself: RATE_LIMITED, to be sent again. What a plan includes an hour,
 * and its threads, are walls of the plan: QUOTA_EXCEEDED, with the plan that allows more.
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
    const text = `Rate limit exceeded: ${inFlight} runs are in flight; wait for one of them to end.`;
    return new TollgateError('RATE_LIMITED', { text, retryAfterMs: BUSY_RETRY_MS, fields: { rate_limit_status } });
  }
  const upgrade_path = plans.withMore(planName, ({ runsPerHour }) => runsPerHour);
  const text = `The plan ${plan.name} includes ${hour.limit} runs an hour, and all of them are used.`;
  return new TollgateError('QUOTA_EXCEEDED', {
    text,
    fields: { rate_limit_status, resets_at: hour.resets_at, upgrade_path },
  });
}

/** No thread can be added, whoever asks for it: `create_thread` or a request that names a new one. */
export function threadsFull(plans: Plans, planName: string): TollgateError {
  const limit = plans.effective(planName).threads ?? THREADS_KEPT;
  const text = `There can be ${limit} threads, and all of them are in use.`;
  const upgrade_path = plans.withMore(planName, ({ threads }) => threads ?? Number.POSITIVE_INFINITY);
  return new TollgateError('QUOTA_EXCEEDED', { text, fields: { limit, resets_at: null, upgrade_path } });
}
