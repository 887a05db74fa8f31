import { describe, expect, it } from '@jest/globals';
import { describeAim, ratioOf } from '../../bench/price/table.ts';

const rounds = {
  raw: [{ cost: 2 }, { cost: 9 }, { cost: 4 }],
  p4r: [{ cost: 1 }, { cost: 3 }, { cost: 4 }],
  'today raw': [{ cost: 8 }, { cost: 8 }, { cost: 8 }],
};

describe('The aims of the price benchmark', () => {
  it('compare the median of the ratios of paired rounds, not the ratio of medians', () => {
    expect(ratioOf(rounds, 'cost', 'raw', { factor: 2, of: 'p4r' })).toEqual({ ratio: 2, isReached: true });
    expect(ratioOf(rounds, 'cost', 'raw', { factor: 1.9, of: 'p4r' })).toEqual({ ratio: 2, isReached: false });
  });

  it('compare with the same transport of the earlier commit, with a fixed figure, and from below', () => {
    expect(describeAim(rounds, 'cost', 'raw', { factor: 0.5, of: 'today' })).toBe('0.50 × today (≤ 0.5: reached)');
    expect(describeAim(rounds, 'cost', 'raw', { factor: 3, of: 'fixed' })).toBe('4.00 (≤ 3: missed)');
    const atLeast = { factor: 2.5, of: 'p4r', atLeast: true } as const;
    expect(describeAim(rounds, 'cost', 'raw', atLeast)).toBe('2.00 × p4r (≥ 2.5: missed)');
  });

  it('are open while one side was not measured', () => {
    expect(describeAim(rounds, 'cost', 'socket.io', { factor: 1, of: 'p1k' })).toBe('–');
  });
});
