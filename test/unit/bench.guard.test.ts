import { describe, expect, it } from '@jest/globals';
import { compareCosts, describeDifference } from '../../bench/guard/compare.ts';

describe('The comparison of costs', () => {
  it('reports a counter above its committed figure with operation, counter and both figures', () => {
    const { worse } = compareCosts({ turn: { 'worker: appendEvents': 6 } }, { turn: { 'worker: appendEvents': 7 } });
    expect(worse.map(describeDifference)).toEqual(['turn: worker: appendEvents is 7, committed 6 (exact)']);
  });

  it('reports a command that has no committed figure', () => {
    const { worse } = compareCosts({ turn: {} }, { turn: { 'gateway: hget': 1 }, other: { 'gateway: get': 1 } });
    expect(worse.map(({ operation, counter }) => [operation, counter])).toEqual([
      ['turn', 'gateway: hget'],
      ['other', 'gateway: get'],
    ]);
  });

  it('accepts a lower counter, and lists it as a gain', () => {
    const { worse, better } = compareCosts({ turn: { 'in scripts: xadd': 14 } }, { turn: { 'in scripts: xadd': 8 } });
    expect(worse).toEqual([]);
    expect(better).toMatchObject([{ counter: 'in scripts: xadd', committed: 14, measured: 8 }]);
  });

  it('applies the stated tolerance to counters that vary, and reports what exceeds it', () => {
    const committed = { message: { 'bytes allocated': 10_000, 'gateway bytes to Redis': 1_000 } };
    const within = { message: { 'bytes allocated': 11_400, 'gateway bytes to Redis': 1_040 } };
    const above = { message: { 'bytes allocated': 12_100, 'gateway bytes to Redis': 1_050 } };
    expect(compareCosts(committed, within)).toEqual({ worse: [], better: [] });
    expect(compareCosts(committed, above).worse.map(describeDifference)).toEqual([
      'message: bytes allocated is 12100, committed 10000 (tolerance 15 % + 0)',
      'message: gateway bytes to Redis is 1050, committed 1000 (tolerance 3 % + 16)',
    ]);
  });
});
