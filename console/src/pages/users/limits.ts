import type { LimitState, UsageSummary } from '../../api/types.ts';

/** The bounded limits of a user, each once, the fullest first. Several tools share the limit of their permission. */
export function limitsOf({ tools, runs, idempotency_keys }: UsageSummary): readonly LimitState[] {
  const all = [...tools.flatMap(({ limits }) => limits), runs.per_hour, idempotency_keys];
  const byName = new Map(all.filter(({ limit }) => limit !== null).map((state) => [state.name, state]));
  return [...byName.values()].toSorted((one, other) => fullness(other) - fullness(one));
}

export function isReached({ limit, used }: LimitState): boolean {
  return limit !== null && used >= limit;
}

function fullness({ limit, used }: LimitState): number {
  return limit ? used / limit : 0;
}
