import { describe, expect, it } from '@jest/globals';
import { expectedWaitSeconds } from '../../workers/queue-watch.ts';
import { RunDurations } from '../../workers/run-durations.ts';
import { ManualClock } from '../support/manual-clock.ts';

describe('the expected wait in the run queue', () => {
  const queue = { waiting: 30, active: 10, concurrency: 10, meanMs: 8_000 };

  it('is the waiting runs times their mean duration, over the slots of all workers', () => {
    expect(expectedWaitSeconds(queue)).toBe(24);
    expect(expectedWaitSeconds({ ...queue, active: 40 })).toBe(6);
  });

  it('is 0 when no run waits, also before the first run', () => {
    expect(expectedWaitSeconds({ ...queue, waiting: 0 })).toBe(0);
    expect(expectedWaitSeconds({ ...queue, waiting: 0, meanMs: undefined })).toBe(0);
  });

  it('is unknown to a worker that has executed no run while others wait', () => {
    expect(expectedWaitSeconds({ ...queue, meanMs: undefined })).toBeUndefined();
  });

  it('counts the slots of this worker when none is occupied, and is an hour at most', () => {
    expect(expectedWaitSeconds({ ...queue, active: 0 })).toBe(24);
    expect(expectedWaitSeconds({ ...queue, waiting: 10_000_000 })).toBe(3_600);
  });
});

describe('the mean duration of runs', () => {
  function started(longestMs = 45_000) {
    const clock = new ManualClock();
    const durations = new RunDurations({ clock }, { longestMs });
    /** Begins a run, and returns what ends it. */
    const begin = () => {
      let end = () => {};
      const measured = durations.measure(
        () =>
          new Promise<void>((resolve) => {
            end = resolve;
          }),
      );
      return async () => {
        end();
        await measured;
      };
    };
    const run = async (ms: number) => {
      const end = begin();
      clock.advance(ms);
      await end();
    };
    return { clock, durations, begin, run };
  }

  it('is unknown before the first run, and then covers the latest hundred', async () => {
    const { durations, run } = started();
    expect(durations.meanMs).toBeUndefined();
    await run(40_000);
    for (let at = 0; at < 100; at += 1) await run(at % 2 === 0 ? 1_000 : 3_000);
    expect(durations.meanMs).toBe(2_000);
  });

  it('rises while runs hang, before the first of them has ended', async () => {
    const { clock, durations, begin, run } = started();
    await run(1_000);
    const ends = [begin(), begin(), begin()];
    clock.advance(500);
    expect(durations.meanMs).toBe(1_000);
    clock.advance(8_500);
    expect(durations.meanMs).toBe(7_000);
    await Promise.all(ends.map((end) => end()));
    expect(durations.meanMs).toBe(7_000);
  });

  it('counts a failed run, and no run as longer than the run timeout', async () => {
    const { durations, run } = started();
    const failed = durations.measure(() => Promise.reject(new Error('failed')));
    await expect(failed).rejects.toThrow('failed');
    expect(durations.meanMs).toBe(0);
    await run(86_400_000);
    expect(durations.meanMs).toBe(22_500);
  });
});
