import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { BOUND_MICROS_PER_KB, CpuMeter, type Surface } from '../support/cpu/meter.ts';
import { FEW_TEXTS } from '../support/cpu/shapes.ts';

let sink = 0;

/** A fixed amount of work per step. A clock cannot end the loop: thread CPU time advances in ticks, wall time under load. */
function spin(steps: number): void {
  for (let step = 0; step < steps; step++) sink = (Math.imul(sink, 31) + step) | 0;
}

/** Steps that this machine makes per microsecond when nothing interrupts it: the best of several trials. */
const STEPS_PER_MICRO = Math.max(
  ...Array.from({ length: 10 }, () => {
    const startedAt = performance.now();
    spin(1_000_000);
    return 1_000_000 / ((performance.now() - startedAt) * 1_000);
  }),
);

/** Occupies this thread in proportion to the input, and not at all for other shapes. */
function surface(microsPerKb: number): Surface {
  return {
    family: 'a loop',
    name: 'a loop',
    sizes: [2_000, 14_000],
    shapes: FEW_TEXTS,
    send: async (input) => {
      const micros = 300 + (input.startsWith('x=') ? (microsPerKb * input.length) / 1_000 : 0);
      spin(micros * STEPS_PER_MICRO);
      // The scheduler accounts the time of a thread when it yields the core, or at a tick, which may be 10 ms later.
      await delay(1);
    },
  };
}

describe('the meter of CPU per kilobyte', () => {
  it.each([true, false])(
    'sees what an input costs above the fixed cost, and where (thorough: %s)',
    async (thorough) => {
      const cells = await new CpuMeter([process.pid]).measure(surface(200), { thorough });
      const expensive = cells.filter(({ microsPerKb }) => microsPerKb >= BOUND_MICROS_PER_KB);
      expect(expensive.map(({ shape }) => shape)).toEqual(['repeated "="']);
    },
  );

  it('finds nothing where the cost does not grow with the input', async () => {
    const cells = await new CpuMeter([process.pid]).measure(surface(0), { thorough: true });
    expect(cells.filter(({ microsPerKb }) => microsPerKb >= BOUND_MICROS_PER_KB)).toEqual([]);
    expect(cells).toHaveLength(FEW_TEXTS.length);
  });
});
