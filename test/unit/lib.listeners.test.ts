import { describe, expect, it } from '@jest/globals';
import { Listeners } from '../../src/lib/listeners.ts';

describe('listeners', () => {
  it('B67 B74 each hear everything in order until they are removed', () => {
    const listeners = new Listeners<number>(() => undefined);
    const received: Record<string, number[]> = { one: [], two: [] };
    const remove = listeners.add((event) => received.one?.push(event));
    listeners.add((event) => received.two?.push(event));
    listeners.emit(1);
    listeners.emit(2);
    remove();
    listeners.emit(3);
    expect(received).toEqual({ one: [1, 2], two: [1, 2, 3] });
  });

  it('do not suffer from one that throws', () => {
    const failures: unknown[] = [];
    const listeners = new Listeners<number>((error) => failures.push(error));
    const received: number[] = [];
    const failure = new Error('of one listener');
    listeners.add(() => {
      throw failure;
    });
    listeners.add((event) => received.push(event));
    listeners.emit(1);
    expect(received).toEqual([1]);
    expect(failures).toEqual([failure]);
  });

  it('are added a bounded number of times', () => {
    const listeners = new Listeners<number>(() => undefined);
    const fill = () => {
      for (let i = 0; i < 100; i++) listeners.add(() => undefined);
    };
    expect(fill).toThrow(RangeError);
  });
});
