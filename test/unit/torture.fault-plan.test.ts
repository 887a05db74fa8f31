import { describe, expect, it } from '@jest/globals';
import { MAX_AT_ONCE, type PlannedFault, planFaults } from '../../torture/lib/fault-plan.ts';

const KINDS = [
  { kind: 'gateway-kill', targets: ['gateway-1', 'gateway-2', 'gateway-3'], maxMs: 5_000 },
  { kind: 'gateway-pause', targets: ['gateway-1', 'gateway-2', 'gateway-3'], maxMs: 60_000 },
  { kind: 'redis-restart', targets: ['redis'], maxMs: 4_000 },
  { kind: 'redis-cut', targets: ['redis'], maxMs: 4_000 },
];
const OPTIONS = { durationMs: 60_000, kinds: KINDS, perSecond: 0.4 };
const SEEDS = Array.from({ length: 50 }, (_, seed) => seed);

const inProgress = (plan: readonly PlannedFault[], at: number) => {
  return plan.filter((fault) => fault.at <= at && at < fault.at + fault.forMs).length;
};

describe('the plan of faults', () => {
  it('is the same for the same seed, and another one for another', () => {
    expect(planFaults({ ...OPTIONS, seed: 7 })).toEqual(planFaults({ ...OPTIONS, seed: 7 }));
    expect(planFaults({ ...OPTIONS, seed: 7 })).not.toEqual(planFaults({ ...OPTIONS, seed: 8 }));
  });

  it.each([3_000, 60_000])('ends all faults within %i ms, with one at a time per target', (durationMs) => {
    for (const seed of SEEDS) {
      const plan = planFaults({ ...OPTIONS, durationMs, seed });
      expect(plan.length).toBeGreaterThan(0);
      for (const { at, forMs } of plan) {
        expect(at).toBeGreaterThanOrEqual(0);
        expect(at + forMs).toBeLessThanOrEqual(durationMs);
        expect(inProgress(plan, at)).toBeLessThanOrEqual(MAX_AT_ONCE);
      }
      for (const one of plan) {
        const others = plan.filter((fault) => fault !== one && fault.target === one.target);
        expect(others.filter(({ at }) => at >= one.at && at < one.at + one.forMs)).toEqual([]);
      }
    }
  });

  it('lets faults of different targets overlap', () => {
    const plans = SEEDS.map((seed) => planFaults({ ...OPTIONS, seed }));
    expect(plans.filter((plan) => plan.some(({ at }) => inProgress(plan, at) > 1)).length).toBeGreaterThan(25);
  });
});
