import type { Clock } from '../../lib/clock.ts';
import type { UsageRecord } from '../../protocol/usage.ts';
import type { RecentUsage } from '../../usage/reports/recent-usage.ts';
import type { ToolExecutor } from '../tool.ts';
import { HOURS_A_MONTH, percentile, round, sum } from './statistics.ts';

const HOUR_MS = 3_600_000;
const DEFAULT_HOURS = 24;
/** Minimum number of calls in the period for a trend. */
const TREND_MIN_CALLS = 10;

export interface ToolUsage {
  readonly tool: string;
  readonly calls: number;
  readonly errors: number;
  readonly units: number;
  readonly p50_ms: number;
  readonly p95_ms: number;
}

export interface WorkloadAnalysis {
  readonly period_hours: number;
  readonly calls: number;
  readonly errors: number;
  readonly error_rate: number;
  readonly units: number;
  readonly calls_per_hour: number;
  /** Units per month at the rate of this period. */
  readonly projected_month_units: number;
  readonly p50_ms: number | null;
  readonly p95_ms: number | null;
  /** Sorted by units, highest first. */
  readonly by_tool: readonly ToolUsage[];
  readonly busiest_hour: { readonly hour: string; readonly calls: number } | null;
  readonly trend: 'rising' | 'falling' | 'steady' | 'too_few_calls';
  readonly [field: string]: unknown;
}

/** Executor of `analyze_workload`. Reads only the caller's own usage records. */
export function workloadTools(deps: { usage: RecentUsage; clock: Clock }): Record<'analyze_workload', ToolExecutor> {
  return {
    async analyze_workload(args, { userId }) {
      const hours = typeof args.hours === 'number' ? args.hours : DEFAULT_HOURS;
      const now = deps.clock.now();
      const records = await deps.usage.since(userId, new Date(now - hours * HOUR_MS));
      return analyzeWorkload(records, hours, now);
    },
  };
}

/** @param now milliseconds since the epoch: the end of the period */
export function analyzeWorkload(records: readonly UsageRecord[], hours: number, now: number): WorkloadAnalysis {
  const errors = records.filter(({ status }) => status === 'error').length;
  const units = sum(records.map((record) => record.units));
  const durations = records.map(({ duration_ms }) => duration_ms);
  return {
    period_hours: hours,
    calls: records.length,
    errors,
    error_rate: records.length === 0 ? 0 : round(errors / records.length, 4),
    units,
    calls_per_hour: round(records.length / hours, 2),
    projected_month_units: Math.round((units / hours) * HOURS_A_MONTH),
    p50_ms: percentile(durations, 0.5),
    p95_ms: percentile(durations, 0.95),
    by_tool: byTool(records),
    busiest_hour: busiestHour(records),
    trend: trend(records, hours, now),
  };
}

function byTool(records: readonly UsageRecord[]): ToolUsage[] {
  return [...Map.groupBy(records, ({ tool }) => tool)]
    .map(([tool, calls]) => {
      const durations = calls.map(({ duration_ms }) => duration_ms);
      return {
        tool,
        calls: calls.length,
        errors: calls.filter(({ status }) => status === 'error').length,
        units: sum(calls.map((record) => record.units)),
        p50_ms: percentile(durations, 0.5) ?? 0,
        p95_ms: percentile(durations, 0.95) ?? 0,
      };
    })
    .toSorted((a, b) => b.units - a.units || b.calls - a.calls);
}

function busiestHour(records: readonly UsageRecord[]): WorkloadAnalysis['busiest_hour'] {
  const [busiest] = [...Map.groupBy(records, ({ period }) => period)]
    .map(([hour, calls]) => ({ hour, calls: calls.length }))
    .toSorted((a, b) => b.calls - a.calls);
  return busiest ?? null;
}

function trend(records: readonly UsageRecord[], hours: number, now: number): WorkloadAnalysis['trend'] {
  if (records.length < TREND_MIN_CALLS) return 'too_few_calls';
  const middle = new Date(now - (hours * HOUR_MS) / 2).toISOString();
  const later = records.filter(({ completed_at }) => completed_at >= middle).length;
  const share = later / records.length;
  if (share > 0.6) return 'rising';
  return share < 0.4 ? 'falling' : 'steady';
}
