import type { Permissions, ToolCaller } from '../catalogue/permissions.ts';
import { allowanceOf, type Plan, type Plans } from '../catalogue/plans.ts';
import type { Tool, ToolCatalogue } from '../catalogue/tool-catalogue.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { integer, literal, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';

const reserveCall = LuaScript.load('reserveCall-2', tuple([literal('reserved', 'refused'), integer], integer));
const readQuota = LuaScript.load('readQuota-3', tuple([integer, integer, integer, text, text], integer));

/**
 * Windows slide by buckets. A use counts until its whole bucket is older than the window: for at least the window and
 * at most one bucket longer. Coarse buckets keep each limit in one short Redis field.
 */
const WINDOWS = {
  hour: { windowMs: 3_600_000, bucketMs: 300_000 },
  day: { windowMs: 24 * 3_600_000, bucketMs: 3_600_000 },
} as const;
type Window = keyof typeof WINDOWS;

/**
 * Maximum input rounds of one tool call. An input request is not charged although the tool has executed, so each limit
 * on uses allows this many input requests per use.
 */
export const MAX_INPUT_ROUNDS = 8;
/** Uses per hour that bound the input requests of a tool without an hourly limit. */
const INPUT_USES_PER_HOUR = 60;
/** Retry delay when too many calls or runs are in flight: about the duration of the calls ahead. */
export const BUSY_RETRY_MS = 1_000;

/** Maximum number of uses per window in one plan. */
export interface Limit {
  /** Public name, for example `analytics_per_hour`. */
  readonly name: string;
  /** What the limit counts: one tool, all tools of a permission together, runs, or idempotency keys. */
  readonly scope: `tool:${string}` | `permission:${string}` | 'runs' | 'idempotency_keys';
  readonly window: Window;
  readonly max: number;
}

/** Use of the limits of a tool, including the call that this status accompanies. */
export interface RateLimitStatus {
  readonly allowed: boolean;
  readonly limits: Readonly<Record<string, number>>;
  readonly current_usage: Readonly<Record<string, number>>;
  /** The limit with the least remaining uses; null when there is no limit. */
  readonly limit: number | null;
  readonly used: number | null;
  readonly remaining: number | null;
  /** Time at which the oldest counted use leaves the window, ISO 8601; null when nothing is counted. */
  readonly resets_at: string | null;
}

export type QuotaDecision =
  | { readonly allowed: true; readonly status: RateLimitStatus }
  | { readonly allowed: false; readonly error: TollgateError };

/** A tool call that needs a reservation. */
export interface QuotaRequest {
  readonly callId: string;
  readonly tool: Tool;
  readonly caller: ToolCaller;
  /** Whether the tool may send an input request; then the limits on input requests apply as well. */
  readonly mayRequestInput?: boolean;
}

/** What an execution adds to the totals at its end. */
export interface Consumption {
  readonly units: number;
  /** ISO 8601, UTC; determines the day and month of the totals. */
  readonly completedAt: string;
}

/**
 * The reply of a script that reserves or refuses: the time of Redis in ms; for a refused call the reached limit, from
 * 1, or 0 for too many calls in flight; then per limit its uses and the time at which the oldest of them ends, 0 for
 * none.
 */
export type QuotaReply = readonly [now: number, ...rest: number[]];

/** A reservation, as arguments for the Lua scripts. */
export interface Reservation {
  readonly member: string;
  /** For `reserve` of include/quotas.lua. */
  readonly request: string;
  /** Argument of `commitUse` in include/quotas.lua. */
  commit(consumption: Consumption): string;
  /** Replaces the commit when the execution ended with an input request: counts an input request and no use. */
  readonly inputRequired: string;
  /** The limit on new idempotency keys, for the script `beginCall`, and the error for a key above the limit. */
  readonly newKeys: { readonly limit: string; refusal(reply: QuotaReply): TollgateError };
  /** Decodes the reply of the script. */
  decision(allowed: boolean, reply: QuotaReply): QuotaDecision;
}

/** Returns a commit without limits and reservation, for example for a model step: it only adds to the totals. */
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
 * Enforces per-plan quotas and the per-user concurrency limit for tool calls: reserve → commit or release.
 *
 * A reservation counts against its limits while the call runs. The commit happens in the script that appends
 * `tool_completed` and the usage record, so no call is charged without its event. A reservation that is neither
 * committed nor released expires after `reservationMs`, so a crashed process cannot leak quota. The state of a user is
 * in two keys, a hash and a sorted set; Redis supplies the time.
 */
export class Quotas {
  readonly #deps: QuotasDeps;
  readonly #reservationMs: number;

  /** @param options.reservationMs lifetime of a reservation; longer than any call may take */
  constructor(deps: QuotasDeps, options: { readonly reservationMs: number }) {
    this.#deps = deps;
    this.#reservationMs = options.reservationMs;
  }

  /** The limits of a tool in a plan: those of its permission × the plan's multiplier, and the plan's allowance. */
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

  /** Prepares the reservation of a call. Sends nothing to Redis. */
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

  /** Reserves in one round trip. A repetition for the same call extends the existing reservation. */
  async reserve(userId: string, reservation: Reservation): Promise<QuotaDecision> {
    const { quota, reservations } = this.#deps.keys.user(userId);
    const reply = await reserveCall.run(this.#deps.redis, [quota, reservations], [reservation.request]);
    const [outcome, ...rest] = reply;
    return reservation.decision(outcome === 'reserved', rest);
  }

  /** Releases an unused reservation. Without the release it expires. */
  async release(userId: string, { member }: Reservation): Promise<void> {
    await this.#deps.redis.zrem(this.#deps.keys.user(userId).reservations, member);
  }

  /** Returns used and remaining quota with reset times, in one round trip. @throws RedisUnavailable */
  async summary(userId: string, caller: ToolCaller): Promise<UsageSummary> {
    const { redis, keys, plans, permissions } = this.#deps;
    const plan = plans.effective(caller.plan);
    const tools = permissions.toolsOf(caller);
    const limits = [...new Map(tools.flatMap((tool) => this.limitsOf(tool, plan)).map((l) => [l.name, l])).values()];
    const ofPlan = [runsPerHour(plan), idempotencyKeysPerHour(plan)] as const;
    const { quota, reservations, runsInFlight } = keys.user(userId);
    const outcome = JSON.stringify([...ofPlan, ...limits].map(scriptLimit));
    const reply = await readQuota.run(redis, [quota, reservations, runsInFlight], [outcome]);
    const [now, inFlight, runs, day, month, ...status] = reply;
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
    const [now, ...rest] = reply;
    const statesOf = (status: readonly number[]) => limits.map((limit, at) => limitState(limit, status, at));
    if (allowed) return { allowed, status: rateLimitStatus(true, statesOf(rest)) };
    const [reached = 0, ...status] = rest;
    if (reached > limits.length) return { allowed, error: tooManyInputRounds(outcome, reached, now) };
    const states = statesOf(status);
    const state = reached === 0 ? undefined : states[reached - 1];
    return { allowed, error: this.#refusal(outcome, state, rateLimitStatus(false, states), now) };
  }

  #tooManyKeys(limit: Limit, [now, ...status]: QuotaReply): TollgateError {
    const state = limitState(limit, status, 0);
    const fields = { rate_limit_status: rateLimitStatus(false, [state]), resets_at: state.resets_at };
    const text = `Rate limit exceeded: ${limit.max} new idempotency keys per hour (${limit.name}).`;
    const retryAfterMs = Math.max(BUSY_RETRY_MS, (status[1] ?? 0) - now);
    this.#deps.metrics.quotaDecisions.inc({ result: 'RATE_LIMITED' });
    return new TollgateError('RATE_LIMITED', { text, retryAfterMs, fields });
  }

  /**
   * Returns RATE_LIMITED for hourly limits and concurrency, which a later retry can pass, and QUOTA_EXCEEDED with an
   * upgrade path for daily quotas, where "try again later" would be wrong advice.
   */
  #refusal(outcome: ScriptOutcome, state: LimitState | undefined, status: RateLimitStatus, now: number): TollgateError {
    const { tool, caller } = outcome;
    const fields = { tool_name: tool.name, rate_limit_status: status };
    if (!state) {
      const text = 'Rate limit exceeded: too many tool calls are in flight. Wait until one of them ends.';
      return new TollgateError('RATE_LIMITED', { text, retryAfterMs: BUSY_RETRY_MS, fields });
    }
    const { name, limit, window, resets_at } = state;
    const retryAfterMs = resets_at === null ? BUSY_RETRY_MS : Math.max(0, Date.parse(resets_at) - now);
    if (window === 'hour') {
      const text = `Rate limit exceeded: ${name} is ${limit}. Use ${tool.name} again later.`;
      return new TollgateError('RATE_LIMITED', { text, retryAfterMs, fields: { ...fields, resets_at } });
    }
    const better = (plan: Plan) => {
      const same = this.limitsOf(tool, plan).find((other) => other.name === name);
      return !same || same.max > limit;
    };
    const upgrade_path = this.#deps.permissions.upgradePath(tool, caller, better);
    const plan = this.#deps.plans.effective(caller.plan).name;
    const text = `The plan ${plan} includes ${limit} uses per day (${name}), and all of them are used.`;
    return new TollgateError('QUOTA_EXCEEDED', { text, fields: { ...fields, resets_at, upgrade_path } });
  }
}

/** The reply of a script together with its request. */
interface ScriptOutcome {
  readonly allowed: boolean;
  readonly reply: QuotaReply;
  readonly limits: readonly Limit[];
  readonly tool: Tool;
  readonly caller: ToolCaller;
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
  /** Executed and charged calls of the calendar day and month, UTC. */
  readonly today: Total;
  readonly this_month: Total;
}

/** The limit on runs of a user that were accepted within an hour. */
export function runsPerHour(plan: Plan): Limit {
  return { name: 'runs_per_hour', scope: 'runs', window: 'hour', max: plan.runsPerHour };
}

/** The limit on tool calls of a user with a new idempotency key within an hour. */
export function idempotencyKeysPerHour(plan: Plan): Limit {
  const max = plan.idempotencyKeysPerHour;
  return { name: 'idempotency_keys_per_hour', scope: 'idempotency_keys', window: 'hour', max };
}

/** Allows `MAX_INPUT_ROUNDS` input requests per allowed use, and one more for the answer that ends the last call. */
function inputRoundLimits({ permission }: Pick<Tool, 'permission'>, limits: readonly Limit[]): Limit[] {
  const name = `${permission}_per_hour`;
  const hourly: Limit = { name, scope: `permission:${permission}`, window: 'hour', max: INPUT_USES_PER_HOUR };
  const all = limits.some(({ window }) => window === 'hour') ? limits : [...limits, hourly];
  return all.map((limit) => ({ ...limit, name: `questions_${limit.name}`, max: limit.max * MAX_INPUT_ROUNDS + 1 }));
}

/** @param reached number of the exceeded limit, from 1; the reply contains a count and a time per limit */
function tooManyInputRounds({ tool, reply }: ScriptOutcome, reached: number, now: number): TollgateError {
  const leavesAt = reply[2 * reached + 1] ?? 0;
  const text = `Rate limit exceeded: ${tool.name} sent too many input requests without completing a call.`;
  const retryAfterMs = Math.max(BUSY_RETRY_MS, leavesAt - now);
  return new TollgateError('RATE_LIMITED', { text, retryAfterMs, fields: { tool_name: tool.name } });
}

/** @param member the reservation to release with the commit; "" for none */
function commitArgument(
  member: string,
  limits: readonly ReturnType<typeof scriptLimit>[],
  { units, completedAt }: Consumption,
): string {
  return JSON.stringify({ member, limits, day: completedAt.slice(0, 10), month: completedAt.slice(0, 7), units });
}

/** Returns a limit as include/quotas.lua reads it. */
export function scriptLimit({ name, scope, window, max }: Limit) {
  const { windowMs, bucketMs } = WINDOWS[window];
  return [name, scope, max, windowMs, bucketMs] as const;
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

/** @param packed `<period> <calls> <units>` of the current or an earlier period */
function total(packed: string, period: string): Total {
  const [storedPeriod, calls = '0', units = '0'] = packed.split(' ');
  return storedPeriod === period
    ? { period, calls: Number(calls), units: Number(units) }
    : { period, calls: 0, units: 0 };
}
