import { describe, expect, it } from '@jest/globals';
import { TollgateError } from '../../src/protocol/errors.ts';
import { retryDuringOutage } from '../../src/redis/errors.ts';
import { ManualClock } from '../support/manual-clock.ts';

const TIMEOUT_MS = 60_000;

/** Work that fails with an outage of Redis each time, and counts its attempts. */
function failing() {
  const work = { tries: 0 };
  return Object.assign(work, {
    run: async () => {
      work.tries += 1;
      throw new TollgateError('OVERLOADED');
    },
  });
}

/** Lets pending promises continue up to the next timer. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('what is done again while Redis is away', () => {
  it('is given up when its time is over', async () => {
    const clock = new ManualClock();
    const work = failing();
    const ended = retryDuringOutage(clock, TIMEOUT_MS, work.run).catch((error: TollgateError) => error.code);
    for (let passed = 0; passed <= TIMEOUT_MS; passed += 10_000) {
      await settled();
      clock.advance(10_000);
    }
    expect(await ended).toBe('OVERLOADED');
    expect(work.tries).toBeGreaterThan(3);
  });

  it('is not done by a process that was stopped beyond that time', async () => {
    const clock = new ManualClock();
    const work = failing();
    const ended = retryDuringOutage(clock, TIMEOUT_MS, work.run).catch((error: TollgateError) => error.code);
    await settled();
    clock.advance(3_600_000);
    expect(await ended).toBe('OVERLOADED');
    expect(work.tries).toBe(1);
  });
});
