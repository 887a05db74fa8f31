import { describe, expect, it } from '@jest/globals';
import type { Clock } from '../../src/lib/clock.ts';
import { BEGINNING } from '../../src/usage/ledger/ledger.ts';
import { LedgerTail } from '../../src/usage/ledger/ledger-tail.ts';

/** A clock whose timers fire when the test says so. */
function handClock() {
  const timers = new Set<{ task: () => void; once: boolean }>();
  const add = (task: () => void, once: boolean) => {
    const timer = { task, once };
    timers.add(timer);
    return () => timers.delete(timer);
  };
  const clock: Clock = {
    now: () => 0,
    after: (_delay, task) => add(task, true),
    every: (_period, task) => add(task, false),
  };
  const fire = async (once: boolean) => {
    for (const timer of [...timers]) if (timer.once === once) timer.task();
    await new Promise(setImmediate);
  };
  return { clock, timers, tick: () => fire(false), timeOut: () => fire(true) };
}

function tailOf(maxWaiting = 10) {
  const hand = handClock();
  let sequence = 5;
  let asked = 0;
  const ledger = {
    head: async () => {
      asked += 1;
      return { sequence, hash: '', trimmed: BEGINNING };
    },
  };
  const tail = new LedgerTail({ ledger, clock: hand.clock }, { maxWaiting });
  const grow = (to: number) => {
    sequence = to;
  };
  return { ...hand, tail, grow, asked: () => asked };
}

const state = async (promise: Promise<void>) => {
  await new Promise(setImmediate);
  return Promise.race([promise.then(() => 'woken'), Promise.resolve('waiting')]);
};

describe('readers that wait for the ledger', () => {
  it('are woken by one question for all of them, and only those for whom there is something', async () => {
    const { tail, tick, grow, asked, timers } = tailOf();
    const never = new AbortController().signal;
    const near = [tail.beyond(5, 20_000, never), tail.beyond(5, 20_000, never)];
    const far = tail.beyond(9, 20_000, never);
    await tick();
    expect([await state(near[0] as Promise<void>), asked()]).toEqual(['waiting', 1]);
    grow(6);
    await tick();
    await Promise.all(near);
    expect([await state(far), asked()]).toEqual(['waiting', 2]);
    grow(10);
    await tick();
    await far;
    // Without waiting readers there is no poll.
    expect(timers.size).toBe(0);
  });

  it('go when their time is up or their client has gone, and leave no timer behind', async () => {
    const { tail, timeOut, timers } = tailOf();
    const client = new AbortController();
    const patient = tail.beyond(5, 20_000, new AbortController().signal);
    const left = tail.beyond(5, 20_000, client.signal);
    client.abort();
    await left;
    expect(await state(patient)).toBe('waiting');
    await timeOut();
    await patient;
    await tail.beyond(5, 20_000, client.signal);
    expect(timers.size).toBe(0);
  });

  it('are bounded in number', async () => {
    const { tail, timeOut } = tailOf(2);
    const never = new AbortController().signal;
    const waiting = [tail.beyond(5, 1, never), tail.beyond(5, 1, never)];
    expect(tail.full).toBe(true);
    await timeOut();
    await Promise.all(waiting);
    expect(tail.full).toBe(false);
  });
});
