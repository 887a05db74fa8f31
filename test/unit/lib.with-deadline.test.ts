import { describe, expect, it } from '@jest/globals';
import { settledWithin } from '../../src/lib/with-deadline.ts';
import { ManualClock } from '../support/manual-clock.ts';

const NEVER = new Promise<never>(() => undefined);

describe('waiting for the end of work', () => {
  it('ends when all of it has settled, failures included', async () => {
    const clock = new ManualClock(0);
    await settledWithin(clock, 1_000, [Promise.resolve(), Promise.reject(new Error('failed'))]);
    await settledWithin(clock, 1_000, []);
    expect(clock.now()).toBe(0);
  });

  it('ends after the time limit, and not before', async () => {
    const clock = new ManualClock();
    let ended = false;
    const waiting = settledWithin(clock, 1_000, [NEVER]).then(() => {
      ended = true;
    });
    clock.advance(999);
    await Promise.resolve();
    expect(ended).toBe(false);
    clock.advance(1);
    await waiting;
    expect(ended).toBe(true);
  });
});
