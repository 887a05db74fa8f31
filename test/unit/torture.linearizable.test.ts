import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { linearize, type Model, type TimedOperation } from '../../torture/lib/linearizable.ts';

type Input = { readonly write: number } | 'read';
type Operation = TimedOperation<Input, number | null>;

const REGISTER: Model<number, Input, number | null> = {
  initial: 0,
  step: (state, input, output) => {
    if (input !== 'read') return input.write;
    return output === undefined || output === state ? state : undefined;
  },
  isRead: (input) => input === 'read',
};
const write = (invoked: number, returned: number, value: number): Operation => {
  return { invoked, returned, input: { write: value }, output: null };
};
const lost = (invoked: number, value: number): Operation => {
  return { invoked, returned: Number.POSITIVE_INFINITY, input: { write: value }, output: undefined };
};
const read = (invoked: number, returned: number, value: number): Operation => {
  return { invoked, returned, input: 'read', output: value };
};

/** Tries every order; for few operations only. */
function byAllOrders(history: readonly Operation[]): boolean {
  const explains = (left: readonly Operation[], state: number): boolean => {
    if (left.every(({ output }) => output === undefined)) return true;
    const deadline = Math.min(...left.map(({ returned }) => returned));
    return left.some((operation) => {
      if (operation.invoked > deadline) return false;
      const next = REGISTER.step(state, operation.input, operation.output);
      return (
        next !== undefined &&
        explains(
          left.filter((other) => other !== operation),
          next,
        )
      );
    });
  };
  return explains(history, REGISTER.initial);
}

describe('the linearizability checker of npm run torture', () => {
  it.each<readonly [string, readonly Operation[]]>([
    ['without operations', []],
    ['of operations one after the other', [write(0, 1, 5), read(2, 3, 5), write(4, 5, 6), read(6, 7, 6)]],
    ['that reads the old value during a write', [write(0, 9, 5), read(1, 2, 0), read(3, 4, 5)]],
    ['whose lost write took effect', [lost(0, 5), read(1, 2, 5)]],
    ['whose lost write took effect late', [lost(0, 5), read(1, 2, 0), read(3, 4, 5)]],
    ['whose lost write took no effect', [lost(0, 5), read(1, 2, 0), read(3, 4, 0)]],
    ['of writes that overlap, read in the order that fits', [write(0, 9, 1), write(0, 9, 2), read(10, 11, 1)]],
  ])('accepts a history %s', (_what, history) => {
    expect(linearize(history, REGISTER)).toEqual({ outcome: 'linearizable' });
  });

  const stale = read(2, 3, 0);
  const back = read(5, 6, 0);
  const early = read(0, 1, 5);
  const undone = read(5, 6, 5);
  it.each<readonly [string, readonly Operation[], Operation]>([
    ['a read of an old value', [write(0, 1, 5), stale], stale],
    ['a value that goes back', [write(0, 9, 5), read(1, 4, 5), back], back],
    ['a value before its write', [early, write(2, 3, 5)], early],
    ['a lost write that takes effect twice', [lost(0, 5), read(1, 2, 5), write(3, 4, 6), undone], undone],
  ])('refuses %s, and names the operation', (_what, history, stuckAt) => {
    expect(linearize(history, REGISTER)).toEqual({ outcome: 'impossible', stuckAt });
  });

  it('decides as a search of all orders does', () => {
    const time = fc.integer({ min: 0, max: 12 });
    const value = fc.integer({ min: 0, max: 2 });
    const operation = fc
      .tuple(fc.constantFrom(write, read, lost), time, time, value)
      .map(([make, at, length, what]) => {
        return make === lost ? lost(at, what) : (make as typeof read)(at, at + length, what);
      });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 7 }), (history) => {
        expect(linearize(history, REGISTER).outcome === 'linearizable').toBe(byAllOrders(history));
      }),
      { numRuns: 2_000 },
    );
  });

  it('decides a counter of 600 operations, of which 150 have an unknown outcome', () => {
    const limit = 500;
    const counter: Model<number, 'add', 'added' | 'full'> = {
      initial: 0,
      step: (used, _input, output) => {
        if (output === 'full') return used === limit ? used : undefined;
        return used < limit ? used + 1 : undefined;
      },
      isRead: (_input, output) => output === 'full',
    };
    const history = Array.from({ length: 600 }, (_, at): TimedOperation<'add', 'added' | 'full'> => {
      const isLost = at % 4 === 3;
      const returned = isLost ? Number.POSITIVE_INFINITY : 10 * at + 25;
      return { invoked: 10 * at, returned, input: 'add', output: isLost ? undefined : 'added' };
    });
    const full = { invoked: 7_000, returned: 7_001, input: 'add', output: 'full' } as const;
    expect(linearize([...history, full], counter)).toEqual({ outcome: 'linearizable' });
    expect(linearize([...history.slice(0, 400), { ...full, invoked: 4_100 }], counter)).toMatchObject({
      outcome: 'impossible',
      stuckAt: { output: 'full' },
    });
  });

  it('ends a search at its bound, and says so', () => {
    const history = Array.from({ length: 12 }, (_, at) => write(0, 99, at));
    const verdict = linearize([...history, read(100, 101, 77)], REGISTER, 1_000);
    expect(verdict).toMatchObject({ outcome: 'undecided' });
  });
});
