import { describe, expect, it } from '@jest/globals';
import { Keys } from '../../src/redis/keys.ts';
import { RunAdmission } from '../../src/runs/run-admission.ts';
import { ManualClock } from '../support/manual-clock.ts';

const TIMEOUT_MS = 45_000;

function admission() {
  const clock = new ManualClock();
  const admitted = new RunAdmission({ subscriber: undefined as never, keys: new Keys('t'), clock });
  /** Reports a queue of ten slots and runs of 2 s: each waiting run adds 0.2 s. */
  const report = (load: object) =>
    admitted.onReport(JSON.stringify({ waiting: 0, slots: 10, mean_ms: 2_000, ...load }));
  return { clock, admitted, report };
}

describe('the admission of runs', () => {
  it('accepts every run without a report, with an empty queue, and after a report that is three seconds old', () => {
    const { clock, admitted, report } = admission();
    expect(admitted.refusal(TIMEOUT_MS)).toBeUndefined();
    report({ waiting: 10_000 });
    expect(admitted.refusal(TIMEOUT_MS)).toBeDefined();
    report({ waiting: 0 });
    for (let at = 0; at < 10_000; at += 1) admitted.added();
    expect(admitted.refusal(TIMEOUT_MS)).toBeUndefined();
    report({ waiting: 10_000 });
    clock.advance(3_001);
    expect(admitted.refusal(TIMEOUT_MS)).toBeUndefined();
  });

  it('refuses a run whose wait and two mean durations exceed four fifths of its limit', () => {
    const { admitted, report } = admission();
    // 36 s - 2 × 2 s = 32 s of wait.
    report({ waiting: 160 });
    expect(admitted.refusal(TIMEOUT_MS)).toBeUndefined();
    report({ waiting: 161 });
    expect(admitted.refusal(TIMEOUT_MS)?.code).toBe('OVERLOADED');
    expect(admitted.refusal(2 * TIMEOUT_MS)).toBeUndefined();
  });

  it('counts the runs that it accepted since the report, and the time that has passed', () => {
    const { clock, admitted, report } = admission();
    report({ waiting: 160 });
    for (let at = 0; at < 10; at += 1) admitted.added();
    expect(admitted.refusal(TIMEOUT_MS)).toBeDefined();
    clock.advance(2_000);
    expect(admitted.refusal(TIMEOUT_MS)).toBeUndefined();
  });

  it('names the time until the wait is short enough, between one second and 90 seconds', () => {
    const { admitted, report } = admission();
    const retryAfterMs = (waiting: number) => {
      report({ waiting });
      return admitted.refusal(TIMEOUT_MS)?.retryAfterMs ?? 0;
    };
    expect(retryAfterMs(161)).toBeGreaterThanOrEqual(1_000);
    // 52 s of wait: 20 s too many, and up to half of that in addition.
    expect(retryAfterMs(260)).toBeGreaterThanOrEqual(20_000);
    expect(retryAfterMs(260)).toBeLessThanOrEqual(30_000);
    expect(retryAfterMs(1_000_000)).toBeGreaterThanOrEqual(60_000);
    expect(retryAfterMs(1_000_000)).toBeLessThanOrEqual(90_000);
  });

  it('leaves half of the time for the wait when runs of other agents take longer than the limit', () => {
    const { admitted, report } = admission();
    report({ waiting: 2, slots: 100, mean_ms: 600_000 });
    expect(admitted.refusal(TIMEOUT_MS)).toBeUndefined();
    report({ waiting: 4, slots: 100, mean_ms: 600_000 });
    expect(admitted.refusal(TIMEOUT_MS)).toBeDefined();
  });

  it.each(['', 'null', '{}', '{"waiting":-1,"slots":0,"mean_ms":1}', '{"waiting":"9","slots":1,"mean_ms":1}'])(
    'ignores the report %j',
    (text) => {
      const { admitted } = admission();
      admitted.onReport(text);
      expect(admitted.refusal(TIMEOUT_MS)).toBeUndefined();
    },
  );
});
