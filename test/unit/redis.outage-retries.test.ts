import { describe, expect, it } from '@jest/globals';
import { publicError, TollgateError } from '../../src/protocol/errors.ts';
import { mapRedisErrors, RedisUnavailable, retryDuringOutage } from '../../src/redis/errors.ts';
import { ManualClock } from '../support/manual-clock.ts';

const TIMEOUT_MS = 60_000;

/** Work that fails with an outage of Redis each time, and counts its attempts. */
function failing(error: Error = new RedisUnavailable()) {
  const work = { tries: 0 };
  return Object.assign(work, {
    run: async () => {
      work.tries += 1;
      throw error;
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

  it('is not done again after the OVERLOADED of a full node', async () => {
    const work = failing(new TollgateError('OVERLOADED'));
    await expect(retryDuringOutage(new ManualClock(), TIMEOUT_MS, work.run)).rejects.toThrow(TollgateError);
    expect(work.tries).toBe(1);
  });
});

describe('an outage of Redis', () => {
  it.each([
    ['a lost connection', new Error('Connection is closed.')],
    ['a rejected write', Object.assign(new Error('OOM command not allowed'), { name: 'ReplyError' })],
  ])('has an error class of its own and the public code OVERLOADED: %s', async (_, cause) => {
    const error = await mapRedisErrors(Promise.reject(cause)).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RedisUnavailable);
    expect(publicError(error as RedisUnavailable)).toEqual(publicError(new TollgateError('OVERLOADED')));
    expect((error as RedisUnavailable).with({ request_id: 'r' })).toBeInstanceOf(RedisUnavailable);
  });

  it('is not what an error of a script counts as', async () => {
    const bug = Object.assign(new Error('ERR user_script:1: attempt to index a nil value'), { name: 'ReplyError' });
    await expect(mapRedisErrors(Promise.reject(bug))).rejects.toBe(bug);
  });
});
