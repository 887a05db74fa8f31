import type { Clock } from '../../lib/clock.ts';
import type { UsageRecord } from '../../protocol/usage.ts';
import type { RecentUsage } from '../../usage/reports/recent-usage.ts';
import type { ToolExecutor } from '../tool.ts';
import { HOURS_A_MONTH, percentile, round, sum } from './statistics.ts';

const HOUR_MS = 3_600_000;
/** One week, so that the monthly projection includes a weekend. */
const DEFAULT_HOURS = 168;
/** Minimum number of calls in each half of the period for a comparison. */
const CHANGE_MIN_CALLS = 10;
/** Ratio of the medians that counts as a change; a smaller one can be noise of a busy machine. */
const CHANGE_RATIO = 1.2;

/** Executors of `cost_analyzer` and `latency_analyzer`. Both read only the caller's own usage records. */
export function costTools(deps: {
  usage: RecentUsage;
  clock: Clock;
}): Record<'cost_analyzer' | 'latency_analyzer', ToolExecutor> {
  const recordsOf = async (userId: string, records: unknown) => {
    const hours = typeof records === 'number' ? records : DEFAULT_HOURS;
    const now = deps.clock.now();
    return { hours, now, records: await deps.usage.since(userId, new Date(now - hours * HOUR_MS)) };
  };
  return {
    async cost_analyzer(args, { userId }) {
      const { records, hours, now } = await recordsOf(userId, args.hours);
      return { ...analyzeCosts(records, hours, now) };
    },
    async latency_analyzer(args, { userId }) {
      const { records, hours, now } = await recordsOf(userId, args.hours);
      const filter = records.filter(({ tool }) => args.tool === undefined || tool === args.tool);
      return { ...analyzeLatencies(filter, hours, now) };
    },
  };
}

export interface CostAnalysis {
  readonly period_hours: number;
  /** Start of the oldest record; at most the latest thousand records are read. Null without records. */
  readonly since: string | null;
  readonly units: number;
  readonly calls: number;
  /** Sorted by units, highest first. */
  readonly by_tool: readonly {
    readonly tool: string;
    readonly units: number;
    readonly share: number;
    readonly charged_calls: number;
    readonly units_per_call: number;
  }[];
  /** UTC calendar days, oldest first. */
  readonly by_day: readonly { readonly day: string; readonly units: number; readonly calls: number }[];
  /** Calls that were executed but not charged, because they failed. */
  readonly failed_calls: number;
  /** Units per month, extrapolated from the time that the records cover. */
  readonly projected_month_units: number;
}

/** @param now milliseconds since the epoch: the end of the period */
export function analyzeCosts(records: readonly UsageRecord[], hours: number, now: number): CostAnalysis {
  const units = sum(records.map((record) => record.units));
  const since = records.map(({ started_at }) => started_at).toSorted()[0] ?? null;
  return {
    period_hours: hours,
    since,
    units,
    calls: records.length,
    by_tool: [...Map.groupBy(records, ({ tool }) => tool)]
      .map(([tool, calls]) => {
        const ofTool = sum(calls.map((record) => record.units));
        const charged = calls.filter(({ status }) => status === 'success').length;
        return {
          tool,
          units: ofTool,
          share: units === 0 ? 0 : round(ofTool / units, 4),
          charged_calls: charged,
          units_per_call: charged === 0 ? 0 : round(ofTool / charged, 2),
        };
      })
      .toSorted((a, b) => b.units - a.units || b.charged_calls - a.charged_calls),
    by_day: [...Map.groupBy(records, ({ completed_at }) => completed_at.slice(0, 10))]
      .map(([day, calls]) => ({ day, units: sum(calls.map((record) => record.units)), calls: calls.length }))
      .toSorted((a, b) => (a.day < b.day ? -1 : 1)),
    failed_calls: records.filter(({ status }) => status !== 'success').length,
    projected_month_units: Math.round((units / coveredHours(since, hours, now)) * HOURS_A_MONTH),
  };
}

/**
 * Hours that the records cover: from the oldest record to `now`, at most the period. At least 1, so that one recent
 * call does not inflate the monthly projection.
 */
function coveredHours(since: string | null, hours: number, now: number): number {
  if (since === null) return hours;
  return Math.min(hours, Math.max(1, (now - Date.parse(since)) / HOUR_MS));
}

interface Latency {
  readonly calls: number;
  readonly p50_ms: number | null;
  readonly p95_ms: number | null;
  readonly p99_ms: number | null;
  readonly max_ms: number | null;
  /** Compares the median of the later half of the period with that of the earlier half. */
  readonly change: 'slower' | 'faster' | 'steady' | 'too_few_calls';
}

export interface LatencyAnalysis extends Latency {
  readonly period_hours: number;
  /** Sorted by p95, slowest first. */
  readonly by_tool: readonly (Latency & { readonly tool: string })[];
}

/** @param now milliseconds since the epoch: the end of the period */
export function analyzeLatencies(records: readonly UsageRecord[], hours: number, now: number): LatencyAnalysis {
  const middle = new Date(now - (hours * HOUR_MS) / 2).toISOString();
  return {
    period_hours: hours,
    ...latency(records, middle),
    by_tool: [...Map.groupBy(records, ({ tool }) => tool)]
      .map(([tool, calls]) => ({ tool, ...latency(calls, middle) }))
      .toSorted((a, b) => (b.p95_ms ?? 0) - (a.p95_ms ?? 0)),
  };
}

function latency(records: readonly UsageRecord[], middle: string): Latency {
  const durations = records.map(({ duration_ms }) => duration_ms);
  const half = (later: boolean) => {
    return records.filter(({ completed_at }) => completed_at >= middle === later).map((record) => record.duration_ms);
  };
  return {
    calls: records.length,
    p50_ms: percentile(durations, 0.5),
    p95_ms: percentile(durations, 0.95),
    p99_ms: percentile(durations, 0.99),
    max_ms: percentile(durations, 1),
    change: changeBetween(half(false), half(true)),
  };
}

function changeBetween(earlier: readonly number[], later: readonly number[]): Latency['change'] {
  if (earlier.length < CHANGE_MIN_CALLS || later.length < CHANGE_MIN_CALLS) return 'too_few_calls';
  // Medians below 1 ms count as 1 ms: smaller differences are not significant.
  const [before, after] = [Math.max(1, percentile(earlier, 0.5) ?? 1), Math.max(1, percentile(later, 0.5) ?? 1)];
  if (after / before > CHANGE_RATIO) return 'slower';
  return before / after > CHANGE_RATIO ? 'faster' : 'steady';
}
