import { describe, expect, it } from '@jest/globals';
import type { UsageRecord } from '../../src/protocol/usage.ts';
import { analyzeCosts, analyzeLatencies } from '../../src/tools/built-in/cost-tools.ts';
import { boundedResult, MAX_RESULT_BYTES } from '../../src/tools/built-in/result.ts';
import { type Execution, usageRecord } from '../../src/usage/records.ts';

const NOW = Date.parse('2026-03-04T12:00:00Z');
const HOUR = 3_600_000;

function record(changes: Partial<Execution> & { ageMs?: number; durationMs?: number } = {}): UsageRecord {
  const { ageMs = 0, durationMs = 10, ...rest } = changes;
  const completedAt = NOW - ageMs;
  return usageRecord({
    ...{ callId: 'call_1', user_id: 'user_1', plan: 'pro', tool: 'analyze_workload', permission: 'analytics' },
    ...{ status: 'success', units: 5, run_id: null, thread_id: 'thread_1', request_id: null, idempotency_key: null },
    ...{ transport: 'websocket', acceptedAt: completedAt, startedAt: completedAt - durationMs, completedAt },
    ...rest,
  });
}

describe('the analysis of costs', () => {
  it('puts the dearest tool first, charges nothing for failures, and adds up by calendar day', () => {
    const records = [
      record(),
      record({ ageMs: 13 * HOUR }),
      record({ tool: 'create_thread', units: 1 }),
      record({ tool: 'create_thread', units: 1, status: 'error' }),
    ];
    expect(analyzeCosts(records, 168, NOW)).toMatchObject({
      units: 11,
      calls: 4,
      failed_calls: 1,
      by_tool: [
        { tool: 'analyze_workload', units: 10, share: 0.9091, charged_calls: 2, units_per_call: 5 },
        { tool: 'create_thread', units: 1, share: 0.0909, charged_calls: 1, units_per_call: 1 },
      ],
      by_day: [
        { day: '2026-03-03', units: 5, calls: 1 },
        { day: '2026-03-04', units: 6, calls: 3 },
      ],
    });
  });

  it('projects a month from the time that the records cover, which is never less than an hour', () => {
    const month = (ageMs: number) => analyzeCosts([record({ ageMs, durationMs: 0 })], 168, NOW).projected_month_units;
    expect(month(10 * HOUR)).toBe(365);
    expect(month(0)).toBe(5 * 730);
    expect(analyzeCosts([], 168, NOW)).toMatchObject({ projected_month_units: 0, since: null, by_tool: [] });
  });
});

describe('the analysis of durations', () => {
  const calls = (durations: readonly number[], ageMs: number) =>
    durations.map((durationMs) => record({ durationMs, ageMs }));
  const ten = (ms: number) => Array.from({ length: 10 }, () => ms);

  it.each([
    ['slower', 10, 13],
    ['faster', 13, 10],
    ['steady', 10, 11],
    // Below a millisecond all durations count as equal.
    ['steady', 0, 1],
  ])('calls a tool %s whose median went from %i to %i ms', (change, before, after) => {
    const records = [...calls(ten(before), 20 * HOUR), ...calls(ten(after), HOUR)];
    expect(analyzeLatencies(records, 24, NOW)).toMatchObject({ change, by_tool: [{ change }] });
  });

  it('says nothing of a change of few calls, and has the slowest tool first', () => {
    const records = [...calls([1, 2, 3, 4, 100], HOUR), record({ tool: 'slow', durationMs: 500 })];
    const analysis = analyzeLatencies(records, 24, NOW);
    expect(analysis).toMatchObject({
      calls: 6,
      p50_ms: 3,
      p95_ms: 500,
      p99_ms: 500,
      max_ms: 500,
      change: 'too_few_calls',
    });
    expect(analysis.by_tool.map(({ tool, p50_ms }) => [tool, p50_ms])).toEqual([
      ['slow', 500],
      ['analyze_workload', 3],
    ]);
  });
});

describe('a result', () => {
  it.each([
    ['plain', 'x'],
    ['full of quotes', '"'],
    ['full of control characters', '\u0001'],
    ['of many bytes a character', '😀'],
  ])('%s is itself up to 64 KiB, and within them with a mark above', (_what, character) => {
    const small = { text: character.repeat(1_000) };
    expect(boundedResult(small)).toBe(small);
    const cut = boundedResult({ text: character.repeat(70_000) });
    expect(cut).toMatchObject({
      truncated: true,
      bytes: expect.any(Number),
      preview: expect.stringMatching(/^\{"text":"/),
    });
    const json = JSON.stringify(cut);
    expect(Buffer.byteLength(json)).toBeLessThanOrEqual(MAX_RESULT_BYTES);
    expect(Buffer.from(json).toString()).toBe(json);
  });
});
