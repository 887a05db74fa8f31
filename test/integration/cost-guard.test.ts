import { describe, expect, it } from '@jest/globals';
import { compareCosts, describeDifference } from '../../bench/guard/compare.ts';
import { committedCosts, measureCosts } from '../../bench/guard.ts';

describe('The cost of an operation', () => {
  it('stays at its committed figures: Redis commands and bytes, objects, allocations', async () => {
    const { worse } = compareCosts(committedCosts(), await measureCosts());
    // A higher cost that is worth it is committed with `npm run bench:guard -- --update`.
    expect(worse.map(describeDifference)).toEqual([]);
  }, 180_000);
});
