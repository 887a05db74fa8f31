import { describe, expect, it } from '@jest/globals';
import type { UsageRecord } from '../../src/protocol/usage.ts';
import { percentile } from '../../src/tools/built-in/statistics.ts';
import { analyzeWorkload } from '../../src/tools/built-in/workload-tools.ts';
import { type Execution, usageRecord } from '../../src/usage/records.ts';

const NOW = Date.parse('2026-03-04T12:00:00Z');
const HOUR = 3_600_000;

function record({
  ageMs = 0,
  durationMs = 10,
  ...changes
}: Partial<Execution> & { ageMs?: number; durationMs?: number } = {}): UsageRecord {
  const completedAt = NOW - ageMs;
  return usageRecord({
    callId: 'call_1',
    user_id: 'user_1',
    plan: 'pro',
    tool: 'analyze_workload',
    permission: 'analytics',
    status: 'success',
    units: 5,
    run_id: 'run_1',
    thread_id: 'thread_1',
    request_id: 'req_1',
    idempotency_key: null,
    transport: 'websocket',
    acceptedAt: completedAt - durationMs,
    startedAt: completedAt - durationMs,
    completedAt,
    ...changes,
  });
}

describe('the analysis of a workload', () => {
  it('says nothing but zeros of no calls', () => {
    expect(analyzeWorkload([], 24, NOW)).toEqual({
      period_hours: 24,
      calls: 0,
      errors: 0,
      error_rate: 0,
      units: 0,
      calls_per_hour: 0,
      projected_month_units: 0,
      p50_ms: null,
      p95_ms: null,
      by_tool: [],
      busiest_hour: null,
      trend: 'too_few_calls',
    });
  });

  it('counts calls, failures, units and durations, and puts the dearest tool first', () => {
    const records = [
      ...[10, 20, 30].map((durationMs) => record({ durationMs })),
      record({ tool: 'system_health', units: 2, durationMs: 100 }),
      record({ tool: 'system_health', units: 2, durationMs: 200, status: 'error' }),
    ];
    expect(analyzeWorkload(records, 10, NOW)).toMatchObject({
      calls: 5,
      errors: 1,
      error_rate: 0.2,
      units: 17,
      calls_per_hour: 0.5,
      projected_month_units: Math.round((17 / 10) * 730),
      p50_ms: 30,
      p95_ms: 200,
      by_tool: [
        { tool: 'analyze_workload', calls: 3, errors: 0, units: 15, p50_ms: 20, p95_ms: 30 },
        { tool: 'system_health', calls: 2, errors: 1, units: 2, p50_ms: 100, p95_ms: 200 },
      ],
    });
  });

  it('names the hour with the most calls', () => {
    const records = [0, 1.1, 1.2, 5].map((hours) => record({ ageMs: hours * HOUR }));
    expect(analyzeWorkload(records, 24, NOW).busiest_hour).toEqual({ hour: '2026-03-04T10', calls: 2 });
  });

  it.each([
    ['rising', 9, 3],
    ['falling', 3, 9],
    ['steady', 6, 6],
    ['too_few_calls', 9, 0],
  ] as const)('calls a load %s with %i calls in the later half and %i in the earlier', (trend, later, earlier) => {
    const records = [
      ...Array.from({ length: later }, () => record({ ageMs: HOUR })),
      ...Array.from({ length: earlier }, () => record({ ageMs: 23 * HOUR })),
    ];
    expect(analyzeWorkload(records, 24, NOW).trend).toBe(trend);
  });
});

describe('a percentile', () => {
  it('is a value that was measured: nearest rank', () => {
    const values = [5, 1, 4, 2, 3];
    expect([0, 0.2, 0.5, 0.95, 1].map((rank) => percentile(values, rank))).toEqual([1, 1, 3, 5, 5]);
    expect(percentile([7], 0.5)).toBe(7);
    expect(percentile([], 0.5)).toBeNull();
    expect(values).toEqual([5, 1, 4, 2, 3]);
  });
});

describe('a usage record', () => {
  it('costs units only when the tool succeeded', () => {
    expect(record().units).toBe(5);
    expect(record({ status: 'error' }).units).toBe(0);
    expect(record({ status: 'cancelled' }).units).toBe(0);
  });

  it('has the same id for the same call of the same run, and another for any other', () => {
    expect(record({ startedAt: 1, completedAt: 2 }).id).toBe(record().id);
    const others = [record({ callId: 'call_2' }), record({ run_id: 'run_2' }), record({ user_id: 'user_2' })];
    expect(new Set([record(), ...others].map(({ id }) => id)).size).toBe(4);
  });

  it('belongs to the hour of its completion, in UTC, and never took less than no time', () => {
    const end = Date.parse('2026-12-31T23:59:59.999Z');
    expect(record({ startedAt: end - 5, completedAt: end })).toMatchObject({
      period: '2026-12-31T23',
      started_at: '2026-12-31T23:59:59.994Z',
      completed_at: '2026-12-31T23:59:59.999Z',
      duration_ms: 5,
    });
    expect(record({ startedAt: end + 5, completedAt: end }).duration_ms).toBe(0);
  });
});
