import type { Caller, Permissions } from '../catalogue/permissions.ts';
import { allowanceOf, type Plan, type Plans } from '../catalogue/plans.ts';
import type { Tool, ToolCatalogue } from '../catalogue/tool-catalogue.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { LuaScript, type ScriptReply } from '../redis/scripts.ts';

const reserveCall = LuaScript.load('reserveCall-2');
const readQuota = LuaScript.load('readQuota-3');

/**
 * Windows slide by buckets: a use counts until its whole bucket is older than the window, so for up to one bucket more
 * than the window and never for less. Coarse enough that a limit is one short field, fine enough that nobody notices.
 */
const WINDOWS = {
  hour: { windowMs: 3_600_000, bucketMs: 300_000 },
  day: { windowMs: 24 * 3_600_000, bucketMs: 3_600_000 },
} as const;
type Window = keyof typeof WINDOWS;

/**
 * Questions that one call may ask its caller, one after the other. A question costs nothing, and the tool has run for it:
 * so each limit on uses allows this many questions a use, and no more.
 */
export const MAX_INPUT_ROUNDS = 8;
/** Uses an hour whose questions are allowed where the plan limits none. */
const INPUT_USES_PER_HOUR = 60;
/** Tried again after this when too much is under way: about as long as the calls before it take. */
export const BUSY_RETRY_MS = 1_000;

/** How often something may be done in a window, for one plan. */
export interface Limit {
  /** What it is called outside: `analytics_per_hour`. */
  readonly name: string;
  /** What it counts: one tool, all tools of a permission together, runs, or idempotency keys. */
  readonly scope: `tool:${string}` | `permission:${string}` | 'runs' | 'idempotency_keys';
  readonly window: Window;
  readonly max: number;
}

/** How much of the limits of a tool is used; the numbers are those after the call that it came with. */
export interface RateLimitStatus {
  readonly allowed: boolean;
  readonly limits: Readonly<Record<string, number>>;
  readonly current_usage: Readonly<Record<string, number>>;
  /** The limit with the least left; null when there is no limit. */
  readonly limit: number | null;
  readonly used: number | null;
  readonly remaining: number | null;
  /** When something that was counted against it leaves its window, ISO 8601; null when nothing is counted. */
  readonly resets_at: string | null;
}

export type QuotaDecision =
  | { readonly allowed: true; readonly status: RateLimitStatus }
  | { readonly allowed: false; readonly error: TollgateError };

/** A call that wants a place. */
export interface QuotaRequest {
  readonly callId: string;
  readonly tool: Tool;
  readonly caller: Caller;
  /** Whether the tool may ask its caller something; then it needs to be within those limits too. */
  readonly mayRequestInput?: boolean;
}

/** What an execution adds to the totals, when it ends. */
export interface Consumption {
  readonly units: number;
  /** ISO 8601, UTC: says which day and month it belongs to. */
  readonly completedAt: string;
}

/** A place that was asked for, as the scripts take it. */
export interface Reservation {
  readonly member: string;
  /** For `reserve` of include/quotas.lua. */
  readonly request: string;
  /** For `settle` there. */
  commit(consumption: Consumption): string;
  /** Instead of that, for an execution that ended with a question: it counts as one, and as no use. */
  readonly inputRequired: string;
  /** The limit on new idempotency keys, for `beginCall`, and the refusal of a key above it. */
  readonly newKeys: { readonly limit: string; refusal(reply: readonly ScriptReply[]): TollgateError };
  /** What the script answered, beginning with Redis's time. */
  decision(allowed: boolean, reply: readonly ScriptReply[]): QuotaDecision;
}

/** The settlement of what no limit holds and no place was taken for, such as a step of a model: it adds to the totals. */
export function unreservedCommit(consumption: Consumption): string {
  return commitArgument('', [], consumption);
}

export interface QuotasDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly plans: Plans;
  readonly tools: ToolCatalogue;
  readonly permissions: Permissions;
  readonly metrics: Pick<Metrics, 'quotaDecisions'>;
}

/**
 * Who may use what how often. A call takes a place among the user's calls under way; while it has it, it counts; when it
 * has run, its use is counted in the same step in which its event and its record are written; a place that nobody gives
 * back ends with its time. Everything of a user is in two keys, a hash and a sorted set, and on Redis's clock.
 */
export class Quotas {
  readonly #deps: QuotasDeps;
  readonly #reservationMs: number;

  /** @param options.reservationMs how long a call may take before it counts as dead */
  constructor(deps: QuotasDeps, options: { readonly reservationMs: number }) {
    this.#deps = deps;
    this.#reservationMs = options.reservationMs;
  }

  /** The limits on a tool in a plan: those of its permission times the plan's multiplier, and the plan's allowance. */
  limitsOf(tool: Pick<Tool, 'name' | 'permission'>, plan: Plan): Limit[] {
    const { hour, day } = this.#deps.tools.permission(tool.permission)?.limits ?? { hour: null, day: null };
    const limits: Limit[] = [];
    const add = (scope: Limit['scope'], window: Window, max: number | null | undefined) => {
      if (max === null || max === undefined) return;
      limits.push({ name: `${scope.slice(scope.indexOf(':') + 1)}_per_${window}`, scope, window, max });
    };
    const multiplied = (limit: number | null) => limit && Math.max(1, Math.floor(limit * plan.multiplier));
    add(`permission:${tool.permission}`, 'hour', multiplied(hour));
    add(`permission:${tool.permission}`, 'day', multiplied(day));
    add(`tool:${tool.name}`, 'day', allowanceOf(plan, tool.name));
    return limits;
  }

  /** The place of a call, to be asked for by a script. */
  reservationFor({ callId, tool, caller, mayRequestInput = false }: QuotaRequest): Reservation {
    const plan = this.#deps.plans.effective(caller.plan);
    const limits = this.limitsOf(tool, plan);
    const keys = idempotencyKeysPerHour(plan);
    const member = `${callId} ${tool.name} ${tool.permission}`;
    const forScript = limits.map(scriptLimit);
    const inputLimits = mayRequestInput ? inputRoundLimits(tool, limits).map(scriptLimit) : [];
    const argument = {
      member,
      concurrency: plan.concurrency,
      forMs: this.#reservationMs,
      limits: [...forScript, ...inputLimits],
    };
    return {
      member,
      request: JSON.stringify(argument),
      commit: (consumption) => commitArgument(member, forScript, consumption),
      inputRequired: JSON.stringify({ member, limits: inputLimits, units: 0 }),
      newKeys: { limit: JSON.stringify(scriptLimit(keys)), refusal: (reply) => this.#tooManyKeys(keys, reply) },
      decision: (allowed, reply) => {
        const decision = this.#decision({ allowed, reply, limits, tool, caller });
        const result = decision.allowed ? 'allowed' : decision.error.code;
        this.#deps.metrics.quotaDecisions.inc({ result });
        return decision;
      },
    };
  }

  /** Takes a place; asked again for the same call it is the same one, with more time. One round trip. */
  async reserve(userId: string, reservation: Reservation): Promise<QuotaDecision> {
    const { quota, reservations } = this.#deps.keys.user(userId);
    const reply = await reserveCall.run(this.#deps.redis, [quota, reservations], [reservation.request]);
    const [outcome, ...rest] = reply as [string, ...ScriptReply[]];
    return reservation.decision(outcome === 'reserved', rest);
  }

  /** Gives a place back that was not used; without it, it ends by itself. */
  async release(userId: string, { member }: Reservation): Promise<void> {
    await this.#deps.redis.zrem(this.#deps.keys.user(userId).reservations, member);
  }

  /** What the user has used, what is left, and when it comes back. One round trip. @throws TollgateError OVERLOADED */
  async summary(userId: string, caller: Caller): Promise<UsageSummary> {
    const { redis, keys, plans, permissions } = this.#deps;
    const plan = plans.effective(caller.plan);
    const tools = permissions.toolsOf(caller);
    const limits = [...new Map(tools.flatMap((tool) => this.limitsOf(tool, plan)).map((l) => [l.name, l])).values()];
    const ofPlan = [runsPerHour(plan), idempotencyKeysPerHour(plan)] as const;
    const { quota, reservations, runsInFlight } = keys.user(userId);
    const outcome = JSON.stringify([...ofPlan, ...limits].map(scriptLimit));
    const reply = await readQuota.run(redis, [quota, reservations, runsInFlight], [outcome]);
    const [now, inFlight, runs, day, month, ...status] = reply as [number, number, number, string, string, ...number[]];
    const ofTools = status.slice(2 * ofPlan.length);
    const states = new Map(limits.map((limit, at) => [limit.name, limitState(limit, ofTools, at)]));
    const today = new Date(now).toISOString();
    return {
      plan: plan.name,
      tools: tools.map((tool) => ({
        tool: tool.name,
        permission: tool.permission,
        units: tool.units,
        limits: this.limitsOf(tool, plan).flatMap(({ name }) => states.get(name) ?? []),
      })),
      under_way: { calls: inFlight, limit: plan.concurrency },
      runs: { in_flight: { runs, limit: plan.runsInFlight }, per_hour: limitState(ofPlan[0], status, 0) },
      idempotency_keys: limitState(ofPlan[1], status, 1),
      today: total(day, today.slice(0, 10)),
      this_month: total(month, today.slice(0, 7)),
    };
  }

  #decision(outcome: ScriptOutcome): QuotaDecision {
    const { allowed, limits, reply } = outcome;
    const [now, ...rest] = reply as number[];
    const [reached, ...status] = allowed ? [undefined, ...rest] : rest;
    const states = limits.map((limit, at) => limitState(limit, status as number[], at));
    if (allowed) return { allowed, status: rateLimitStatus(true, states) };
    if (reached && reached > limits.length) return { allowed, error: tooManyInputRounds(outcome, reached, now ?? 0) };
    const state = reached ? states[reached - 1] : undefined;
    return { allowed, error: this.#refusal(outcome, state, rateLimitStatus(false, states), now ?? 0) };
  }

  #tooManyKeys(limit: Limit, reply: readonly ScriptReply[]): TollgateError {
    const [now = 0, ...status] = reply as number[];
    const state = limitState(limit, status, 0);
    const fields = { rate_limit_status: rateLimitStatus(false, [state]), resets_at: state.resets_at };
    const text = `Rate limit exceeded: ${limit.max} new idempotency keys an hour (${limit.name}).`;
    const retryAfterMs = Math.max(BUSY_RETRY_MS, Number(status[1] ?? 0) - now);
    this.#deps.metrics.quotaDecisions.inc({ result: 'RATE_LIMITED' });
    return new TollgateError('RATE_LIMITED', { text, retryAfterMs, fields });
  }

  /** A plan's wall and a limit that passes are two things: "try again later" would be a lie for the first. */
  #refusal(outcome: ScriptOutcome, state: LimitState | undefined, status: RateLimitStatus, now: number): TollgateError {
    const { tool, caller } = outcome;
    const fields = { tool_name: tool.name, rate_limit_status: status };
    if (!state) {
      const text = 'Rate limit exceeded: too many tool calls at once; wait for one of them to end.';
      return new TollgateError('RATE_LIMITED', { text, retryAfterMs: BUSY_RETRY_MS, fields });
    }
    const { name, limit, window, resets_at } = state;
    const retryAfterMs = resets_at === null ? BUSY_RETRY_MS : Math.max(0, Date.parse(resets_at) - now);
    if (window === 'hour') {
      const text = `Rate limit exceeded: ${tool.name} can be used again later (${name} is ${limit}).`;
      return new TollgateError('RATE_LIMITED', { text, retryAfterMs, fields: { ...fields, resets_at } });
    }
    const better = (plan: Plan) => {
      const same = this.limitsOf(tool, plan).find((other) => other.name === name);
      return !same || same.max > limit;
    };
    const upgrade_path = this.#deps.permissions.upgradePath(tool, caller, better);
    const plan = this.#deps.plans.effective(caller.plan).name;
    const text = `The plan ${plan} includes ${limit} a day of this (${name}), and all of them are used.`;
    return new TollgateError('QUOTA_EXCEEDED', { text, fields: { ...fields, resets_at, upgrade_path } });
  }
}

/** What a script said of a request, and the request. */
interface ScriptOutcome {
  readonly allowed: boolean;
  readonly reply: readonly ScriptReply[];
  readonly limits: readonly Limit[];
  readonly tool: Tool;
  readonly caller: Caller;
}

export interface LimitState {
  readonly name: string;
  readonly window: Window;
  readonly limit: number;
  readonly used: number;
  readonly remaining: number;
  readonly resets_at: string | null;
}

interface Total {
  readonly period: string;
  readonly calls: number;
  readonly units: number;
}

export interface UsageSummary {
  readonly plan: string;
  readonly tools: readonly {
    readonly tool: string;
    readonly permission: string;
    readonly units: number;
    readonly limits: readonly LimitState[];
  }[];
  readonly under_way: { readonly calls: number; readonly limit: number };
  readonly runs: {
    readonly in_flight: { readonly runs: number; readonly limit: number };
    readonly per_hour: LimitState;
  };
  readonly idempotency_keys: LimitState;
  /** Calendar day and month, UTC: what was executed, and charged. */
  readonly today: Total;
  readonly this_month: Total;
}

/** Runs of a user that were accepted within an hour. */
export function runsPerHour(plan: Plan): Limit {
  return { name: 'runs_per_hour', scope: 'runs', window: 'hour', max: plan.runsPerHour };
}

/** Tool calls of a user with an idempotency key that was new, begun within an hour. */
export function idempotencyKeysPerHour(plan: Plan): Limit {
  const max = plan.idempotencyKeysPerHour;
  return { name: 'idempotency_keys_per_hour', scope: 'idempotency_keys', window: 'hour', max };
}

/** As often as the uses that are allowed may ask, and once more for the answer that ends the last of them. */
function inputRoundLimits({ permission }: Pick<Tool, 'permission'>, limits: readonly Limit[]): Limit[] {
  const name = `${permission}_per_hour`;
  const hourly: Limit = { name, scope: `permission:${permission}`, window: 'hour', max: INPUT_USES_PER_HOUR };
  const all = limits.some(({ window }) => window === 'hour') ? limits : [...limits, hourly];
  return all.map((limit) => ({ ...limit, name: `questions_${limit.name}`, max: limit.max * MAX_INPUT_ROUNDS + 1 }));
}

/** @param reached the number of the limit, in a reply that has a count and a time of each */
function tooManyInputRounds({ tool, reply }: ScriptOutcome, reached: number, now: number): TollgateError {
  const leavesAt = Number(reply[2 * reached + 1] ?? 0);
  const text = `Rate limit exceeded: ${tool.name} has asked too often without an answer that ended the call.`;
  const retryAfterMs = Math.max(BUSY_RETRY_MS, leavesAt - now);
  return new TollgateError('RATE_LIMITED', { text, retryAfterMs, fields: { tool_name: tool.name } });
}

/** @param member whose place is given back; "" for none */
function commitArgument(
  member: string,
  limits: readonly ReturnType<typeof scriptLimit>[],
  { units, completedAt }: Consumption,
): string {
  return JSON.stringify({ member, limits, day: completedAt.slice(0, 10), month: completedAt.slice(0, 7), units });
}

export function scriptLimit({ name, scope, window, max }: Limit) {
  return { field: name, scope, max, ...WINDOWS[window] };
}

export function limitState({ name, window, max }: Limit, status: readonly number[], at: number): LimitState {
  const used = status[2 * at] ?? 0;
  const leavesAt = status[2 * at + 1] ?? 0;
  const resets_at = leavesAt === 0 ? null : new Date(leavesAt).toISOString();
  return { name, window, limit: max, used, remaining: Math.max(0, max - used), resets_at };
}

function rateLimitStatus(allowed: boolean, states: readonly LimitState[]): RateLimitStatus {
  const [tightest] = states.toSorted((a, b) => a.remaining - b.remaining);
  return {
    allowed,
    limits: Object.fromEntries(states.map(({ name, limit }) => [name, limit])),
    current_usage: Object.fromEntries(states.map(({ name, used }) => [name, used])),
    limit: tightest?.limit ?? null,
    used: tightest?.used ?? null,
    remaining: tightest?.remaining ?? null,
    resets_at: tightest?.resets_at ?? null,
  };
}

/** @param packed `<period> <calls> <units>`, of this period or an earlier one */
function total(packed: string, period: string): Total {
  const [storedPeriod, calls = '0', units = '0'] = packed.split(' ');
  return storedPeriod === period
    ? { period, calls: Number(calls), units: Number(units) }
    : { period, calls: 0, units: 0 };
}
