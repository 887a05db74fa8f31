import type { Account } from '../accounts/accounts.ts';
import type { Plan } from '../catalogue/plans.ts';
import type { LimitState, UsageSummary } from '../limits/quotas.ts';
import type { ErrorCode } from '../protocol/errors.ts';

/** A limit of a user with its counter. */
export interface UserLimit {
  readonly name: string;
  readonly used: number;
  readonly limit: number;
  /** When the limit allows more by itself; null if nothing is counted or if it does not end by itself. */
  readonly ends_at: string | null;
  readonly reached: boolean;
  /** Code of a refusal by this limit. */
  readonly code: ErrorCode;
  /** What happens above the limit. */
  readonly refuses: string;
}

/** Why requests of a user are refused now. */
export interface RefusalReason {
  readonly code: ErrorCode;
  /** What is refused, and why: a clause that follows "refused because". */
  readonly because: string;
  /** When it ends by itself; null if it does not. */
  readonly until: string | null;
  /** What ends it earlier, or at all. */
  readonly remedy: string;
  /** Whether all requests are refused, not only some. */
  readonly all: boolean;
}

/** What counts against the limits of a user. */
export interface Counters {
  readonly plan: Plan;
  readonly messages: { readonly used: number; readonly limit: number; readonly endsAt: string | null };
  readonly connections: { readonly used: number; readonly limit: number };
  readonly threads: number;
  readonly usage: UsageSummary;
}

const HIGHER_PLAN = 'A plan with a higher limit ends it at once.';

/** Returns all limits of a user, the fullest first. */
export function limitsOf({ plan, messages, connections, threads, usage }: Counters): UserLimit[] {
  const limits = [
    ...connectionLimits(messages, connections),
    ...usageLimits(usage),
    ...(plan.threads === null ? [] : [threadLimit(threads, plan.threads)]),
  ];
  return limits
    .map((limit) => ({ ...limit, reached: limit.limit > 0 && limit.used >= limit.limit }))
    .toSorted((one, other) => fullness(other) - fullness(one));
}

/** A limit before it is compared with its counter. */
type CountedLimit = Omit<UserLimit, 'reached'>;

function connectionLimits(messages: Counters['messages'], connections: Counters['connections']): CountedLimit[] {
  return [
    {
      name: 'messages_per_minute',
      used: messages.used,
      limit: messages.limit,
      ends_at: messages.endsAt,
      code: 'RATE_LIMITED',
      refuses: 'every message and request',
    },
    {
      name: 'connections',
      ...connections,
      ends_at: null,
      code: 'CONNECTION_LIMIT_EXCEEDED',
      refuses: 'nothing: a further connection closes the oldest one',
    },
  ];
}

function usageLimits(usage: UsageSummary): CountedLimit[] {
  const { runs, under_way: calls, idempotency_keys: keys } = usage;
  const byName = new Map(usage.tools.flatMap(({ limits }) => limits).map((state) => [state.name, state]));
  return [
    {
      name: 'runs_in_flight',
      used: runs.in_flight.runs,
      limit: runs.in_flight.limit,
      ends_at: null,
      code: 'RATE_LIMITED',
      refuses: 'new runs',
    },
    windowed(runs.per_hour, 'QUOTA_EXCEEDED', 'new runs'),
    {
      name: 'tool_calls_in_flight',
      used: calls.calls,
      limit: calls.limit,
      ends_at: null,
      code: 'RATE_LIMITED',
      refuses: 'tool calls',
    },
    windowed(keys, 'RATE_LIMITED', 'tool calls with a new idempotency key'),
    ...[...byName.values()].map((state) => {
      const code = state.window === 'day' ? 'QUOTA_EXCEEDED' : 'RATE_LIMITED';
      return windowed(state, code, `calls of ${namesOf(usage, state.name)}`);
    }),
  ];
}

function threadLimit(used: number, limit: number): CountedLimit {
  return { name: 'threads', used, limit, ends_at: null, code: 'QUOTA_EXCEEDED', refuses: 'new threads' };
}

/** Returns what refuses requests of the user now, that which refuses most first; empty if nothing does. */
export function reasonsOf({ blocked, revokedBefore }: Account, limits: readonly UserLimit[]): RefusalReason[] {
  const reasons: RefusalReason[] = [];
  if (blocked) {
    reasons.push({
      code: 'USER_BLOCKED',
      because: 'an administrator has blocked the user',
      until: null,
      remedy: 'All connections are closed, and new ones are refused.',
      all: true,
    });
  }
  for (const limit of limits) if (limit.reached && limit.name !== 'connections') reasons.push(reasonOf(limit));
  if (revokedBefore > 0) {
    reasons.push({
      code: 'TOKEN_REVOKED',
      because: `tokens that were issued before ${new Date(revokedBefore).toISOString()} are revoked`,
      until: null,
      remedy: 'A new sign-in of the user helps.',
      all: false,
    });
  }
  return reasons.toSorted((one, other) => Number(other.all) - Number(one.all));
}

function reasonOf({ name, used, limit, ends_at, code, refuses }: UserLimit): RefusalReason {
  switch (name) {
    case 'messages_per_minute': {
      const because = `the user has sent the ${limit} messages that the plan allows per minute`;
      return { code, because, until: ends_at, remedy: `The client waits and sends again. ${HIGHER_PLAN}`, all: true };
    }
    case 'runs_in_flight':
      return {
        code,
        because: `${used} runs are in flight, as many as the plan allows; ${refuses} are refused`,
        until: null,
        remedy: 'It ends when one of the runs ends or is cancelled.',
        all: false,
      };
    case 'tool_calls_in_flight':
      return {
        code,
        because: `${used} tool calls are in flight, as many as the plan allows; ${refuses} are refused`,
        until: null,
        remedy: 'It ends when one of the calls ends.',
        all: false,
      };
    case 'threads':
      return {
        code,
        because: `the user has ${used} threads, as many as the plan allows; ${refuses} are refused`,
        until: null,
        remedy: 'It ends when the user deletes a thread, or with a plan that allows more.',
        all: false,
      };
    default:
      return {
        code,
        because: `${name} is used up, ${used} of ${limit}; ${refuses} are refused`,
        until: ends_at,
        remedy: HIGHER_PLAN,
        all: false,
      };
  }
}

function windowed({ name, used, limit, resets_at }: LimitState, code: ErrorCode, refuses: string) {
  return { name, used, limit, ends_at: resets_at, code, refuses };
}

/** The tools that share a limit. */
function namesOf({ tools }: UsageSummary, limit: string): string {
  const names = tools.filter(({ limits }) => limits.some(({ name }) => name === limit)).map(({ tool }) => tool);
  return names.join(', ');
}

function fullness({ used, limit }: UserLimit): number {
  return limit === 0 ? 0 : used / limit;
}
