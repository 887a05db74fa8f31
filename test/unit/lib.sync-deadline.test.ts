import { describe, expect, it } from '@jest/globals';
import { SyncDeadline } from '../../src/lib/sync-deadline.ts';
import { cpuMs } from '../support/stopwatch.ts';

const deadline = new SyncDeadline();
const LATE = { code: 'ERR_SCRIPT_EXECUTION_TIMEOUT' };

function thrownBy(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}

describe('work under a deadline', () => {
  it('gives its value, undefined too, and throws its errors', () => {
    expect(deadline.run(1_000, () => 7)).toBe(7);
    expect(deadline.run(1_000, () => undefined)).toBeUndefined();
    const error = new Error('its own');
    expect(
      thrownBy(() =>
        deadline.run(1_000, () => {
          throw error;
        }),
      ),
    ).toBe(error);
  });

  it.each([
    [
      'a loop',
      () => {
        for (;;);
      },
    ],
    ['a pattern that backtracks', () => /^(a+)+$/.test(`${'a'.repeat(60)}b`)],
  ])('is stopped when it takes too long (%s), and the next one runs', (_what, work) => {
    const before = cpuMs();
    expect(thrownBy(() => deadline.run(20, work))).toMatchObject(LATE);
    expect(cpuMs() - before).toBeLessThan(2_000);
    expect(deadline.run(1_000, () => 'next')).toBe('next');
  });
});
