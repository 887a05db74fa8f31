import { describe, expect, it } from '@jest/globals';
import { Breaker, BreakerOpenError, type BreakerState } from '../../src/lib/breaker.ts';
import { RetryBudget } from '../../src/lib/retry-budget.ts';
import { ManualClock } from '../support/manual-clock.ts';

class Fault extends Error {}

function breaker() {
  const clock = new ManualClock();
  const states: BreakerState[] = [];
  const subject = new Breaker(
    { clock },
    {
      isFault: (error) => error instanceof Fault,
      saysNothing: (error) => error instanceof DOMException,
      onChange: (state) => states.push(state),
    },
  );
  let calls = 0;
  const run = (how: 'fine' | 'fault' | 'refused' | 'given up') =>
    subject
      .run(async () => {
        calls += 1;
        if (how === 'fault') throw new Fault('down');
        if (how === 'given up') throw new DOMException('', 'AbortError');
        if (how === 'refused') throw new Error('refused');
        return how;
      })
      .catch((error: Error) => error.constructor.name);
  const repeat = async (times: number, how: 'fine' | 'fault' | 'refused') => {
    for (let i = 0; i < times; i++) await run(how);
  };
  return { clock, states, subject, run, repeat, calls: () => calls };
}

describe('a breaker', () => {
  it('is not closed by a probe that its caller gives up, and rests again', async () => {
    const { clock, subject, run, repeat, calls } = breaker();
    await repeat(5, 'fault');
    clock.advance(5_000);
    expect(await run('given up')).toBe('DOMException');
    expect(subject.state).toBe('open');
    expect(await run('fine')).toBe('BreakerOpenError');
    expect(calls()).toBe(6);
    clock.advance(5_000);
    expect(await run('fine')).toBe('fine');
    expect(subject.state).toBe('closed');
  });

  it('rests for no longer because the clock was set back', async () => {
    const { clock, subject, run, repeat } = breaker();
    await repeat(5, 'fault');
    expect(subject.state).toBe('open');
    clock.set(-3_600_000);
    expect(await run('fine')).toBe('fine');
    expect(subject.state).toBe('closed');
  });

  it('B40 B63 opens with the fifth failure, and then makes no call', async () => {
    const { subject, run, repeat, calls } = breaker();
    await repeat(4, 'fault');
    expect(subject.state).toBe('closed');
    await run('fault');
    expect(subject.state).toBe('open');
    expect(await run('fine')).toBe('BreakerOpenError');
    expect(calls()).toBe(5);
  });

  it('B185 opens within five failures however many calls went well before', async () => {
    const { subject, repeat } = breaker();
    await repeat(1_000, 'fine');
    await repeat(4, 'fault');
    expect(subject.state).toBe('closed');
    await repeat(1, 'fault');
    expect(subject.state).toBe('open');
  });

  it('B98 is not opened by three failures that successes follow', async () => {
    const { subject, repeat } = breaker();
    await repeat(3, 'fault');
    await repeat(20, 'fine');
    await repeat(3, 'fault');
    await repeat(20, 'fine');
    expect(subject.state).toBe('closed');
  });

  it('counts no error that is not the service’s fault', async () => {
    const { subject, repeat } = breaker();
    await repeat(100, 'refused');
    expect(subject.state).toBe('closed');
  });

  it('lets one call through after its rest, and closes when that one goes well', async () => {
    const { clock, states, subject, run, repeat, calls } = breaker();
    await repeat(5, 'fault');
    clock.advance(4_999);
    expect(await run('fine')).toBe('BreakerOpenError');
    clock.advance(1);
    const { promise, resolve: finish } = Promise.withResolvers<void>();
    const probe = subject.run(() => promise);
    expect(subject.state).toBe('half_open');
    expect(await run('fine')).toBe('BreakerOpenError');
    expect(calls()).toBe(5);
    finish();
    await probe;
    expect(await run('fine')).toBe('fine');
    expect(states).toEqual(['open', 'half_open', 'closed']);
  });

  it('stays open through an outage of ten minutes at the price of one call each rest', async () => {
    const { clock, subject, run, repeat, calls } = breaker();
    await repeat(5, 'fault');
    for (let second = 0; second < 600; second++) {
      clock.advance(1_000);
      await run('fault');
    }
    expect(calls()).toBe(5 + 120);
    expect(subject.state).toBe('open');
    clock.advance(5_000);
    await run('fine');
    expect(subject.state).toBe('closed');
  });

  it('says when the next call can be made', async () => {
    const { clock, subject, repeat } = breaker();
    await repeat(5, 'fault');
    clock.advance(2_000);
    const error = await subject.run(async () => 'never').catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BreakerOpenError);
    expect(error).toMatchObject({ retryAfterMs: 3_000 });
  });
});

describe('a retry budget', () => {
  it('allows one repetition in five calls when it is used up', () => {
    const clock = new ManualClock();
    const budget = new RetryBudget({ clock });
    while (budget.consume());
    let repeated = 0;
    for (let call = 0; call < 1_000; call++) {
      budget.called();
      if (budget.consume()) repeated += 1;
    }
    expect(repeated).toBeGreaterThan(190);
    expect(repeated).toBeLessThanOrEqual(200);
  });

  it('allows two a second to those who hardly call, and never more than ten at once', () => {
    const clock = new ManualClock();
    const budget = new RetryBudget({ clock });
    const burst = () => {
      let taken = 0;
      while (budget.consume()) taken += 1;
      return taken;
    };
    expect(burst()).toBe(10);
    clock.advance(1_000);
    expect(burst()).toBe(2);
    clock.advance(3_600_000);
    expect(burst()).toBe(10);
  });
});
