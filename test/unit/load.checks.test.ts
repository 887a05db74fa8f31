import { describe, expect, it } from '@jest/globals';
import { Arrivals } from '../../load/lib/arrivals.ts';
import { type Iteration, progressOf } from '../../load/lib/iteration.ts';
import { WeightedPicker } from '../../load/lib/mix.ts';
import { StreamCheck } from '../../load/lib/stream-check.ts';
import { evaluate, type Figures, parseThreshold } from '../../load/lib/thresholds.ts';
import { until } from '../support/until.ts';

describe('the check of a stream', () => {
  const NOTHING = { lost: 0, repeated: 0 };
  function begun(): StreamCheck {
    const check = new StreamCheck();
    check.start('e1', 10);
    return check;
  }

  it('accepts events in order, and keeps the resume position', () => {
    const check = begun();
    expect([check.event(11), check.event(12)]).toEqual([NOTHING, NOTHING]);
    expect(check.position).toEqual({ after: 12, epoch: 'e1' });
  });

  it('counts a hole once, as many as are missing', () => {
    const check = begun();
    expect(check.event(14)).toEqual({ lost: 3, repeated: 0 });
    expect(check.event(15)).toEqual(NOTHING);
  });

  it('counts what comes again', () => {
    const check = begun();
    check.event(11);
    expect([check.event(11), check.event(3)]).toEqual([
      { lost: 0, repeated: 1 },
      { lost: 0, repeated: 1 },
    ]);
    expect(check.event(12)).toEqual(NOTHING);
  });

  it('counts what a resume said it had sent and had not', () => {
    const check = begun();
    check.event(11);
    expect(check.resumed(11)).toEqual(NOTHING);
    expect(check.resumed(13)).toEqual({ lost: 2, repeated: 0 });
    expect(check.event(14)).toEqual(NOTHING);
  });

  it('continues with the next event where the server could not replay', () => {
    const check = begun();
    check.resumeFailed('e2');
    expect(check.event(500)).toEqual(NOTHING);
    expect(check.event(502)).toEqual({ lost: 1, repeated: 0 });
    expect(check.position).toEqual({ after: 502, epoch: 'e2' });
  });
});

describe('the dealer of shares', () => {
  it('is never further than one from each share, in any order of magnitude', () => {
    const shares = { a: 0.7, b: 0.2, c: 0.1, none: 0 };
    const picker = new WeightedPicker(shares);
    const dealt = { a: 0, b: 0, c: 0, none: 0 };
    for (let count = 1; count <= 1_000; count++) {
      dealt[picker.pick()] += 1;
      for (const name of ['a', 'b', 'c', 'none'] as const) {
        expect(Math.abs(dealt[name] - count * shares[name])).toBeLessThanOrEqual(1);
      }
    }
  });
});

describe('thresholds', () => {
  const figures: Figures = { connection_success: 0.995, run_success: 1, first_event_p95_ms: Number.NaN };
  const resultOf = (figure: string, ...given: string[]) =>
    evaluate(figures, given.map(parseThreshold)).filter((result) => result.figure === figure);

  it('let a share of connections above 99 % pass, and tell that ours is stricter', () => {
    expect(resultOf('connection_success')).toEqual([
      expect.objectContaining({ level: 'required', passed: true }),
      expect.objectContaining({ level: 'wanted', passed: false }),
    ]);
  });

  it('can be replaced', () => {
    const [first, second] = resultOf('connection_success', 'connection_success>0.999');
    expect(first).toMatchObject({ level: 'required', limit: 0.999, passed: false });
    expect(second).toMatchObject({ level: 'wanted' });
  });

  it('do not fail for what the mix does not have, unless it was asked for', () => {
    expect(resultOf('first_event_p95_ms')).toEqual([expect.objectContaining({ passed: true })]);
    expect(resultOf('first_event_p95_ms', 'first_event_p95_ms<50')[0]).toMatchObject({ passed: false });
  });
});

describe('a turn', () => {
  const iteration = (kind: Iteration['kind']): Iteration => ({
    kind,
    dueAt: 0,
    requestId: 'r',
    message: { type: kind, fields: {} },
  });

  it('ends with what ends its own request, and with nothing of another', () => {
    const request = iteration('agent_request');
    expect(progressOf(request, 'agent_completed', { request_id: 'other', seq: 4 })).toBeUndefined();
    expect(progressOf(request, 'agent_started', { request_id: 'r', seq: 5 })).toBe('first_event');
    expect(progressOf(request, 'agent_completed', { request_id: 'r', seq: 6 })).toBe('completed');
    expect(progressOf(request, 'agent_failed', { request_id: 'r', seq: 6 })).toEqual({ failed: 'agent_failed' });
  });

  it('fails with a refusal, and outlives an error that ends its connection', () => {
    expect(progressOf(iteration('ping'), 'error', { code: 'RATE_LIMITED' })).toEqual({ failed: 'RATE_LIMITED' });
    expect(progressOf(iteration('ping'), 'error', { code: 'SERVER_DRAINING' })).toBeUndefined();
  });
});

describe('the open loop', () => {
  it('asks for turns at its rate, each with the time it was due, also when it could not run for a while', async () => {
    const due: number[] = [];
    const arrivals = new Arrivals(1_000, (dueAt) => due.push(dueAt));
    const startedAt = performance.now();
    arrivals.start();
    // Blocks this thread for 300 ms. Iterations that came due meanwhile must start, with their original due time.
    while (performance.now() < startedAt + 300) Math.sqrt(2);
    const heldUntil = performance.now();
    await until(() => due.length > 0, { label: 'the turns that came due' });
    arrivals.stop();
    const meanwhile = due.filter((dueAt) => dueAt < heldUntil).length;
    // Expected: 300. A Poisson process exceeds five standard deviations (17 each) once in a million.
    expect(meanwhile).toBeGreaterThan(210);
    expect(due).toEqual(due.toSorted((a, b) => a - b));
  });
});
