import { writeFileSync } from 'node:fs';
import { BOUND_MICROS_PER_KB, type Cell, type CpuMeter, type Surface } from './meter.ts';

/** `npm run attacks:cpu` measures everything precisely and prints a table; a normal test run is coarse. */
export const THOROUGH = process.env.ATTACKS_CPU === 'all';

/** Measures and, with `THOROUGH`, prints one row per family. @returns the cells above the bound */
export async function expensiveCells(meter: CpuMeter, surfaces: readonly Surface[]): Promise<string[]> {
  const cells: Cell[] = [];
  for (const surface of surfaces) {
    cells.push(...(await meter.measure(surface, { thorough: THOROUGH })));
    if (THOROUGH) process.stderr.write(`${surface.name}\n`);
  }
  if (THOROUGH) process.stdout.write(`${table(cells)}\n`);
  if (process.env.ATTACKS_CPU_CELLS) writeFileSync(process.env.ATTACKS_CPU_CELLS, JSON.stringify(cells, null, 1));
  const expensive = cells.filter(({ microsPerKb }) => microsPerKb >= BOUND_MICROS_PER_KB);
  return expensive.map((cell) => `${cell.surface}, ${cell.shape}: ${cell.microsPerKb.toFixed(1)} µs per kB`);
}

function table(cells: readonly Cell[]): string {
  const rows = [...Map.groupBy(cells, ({ family }) => family)].map(([family, of]) => {
    const sorted = of.toSorted((a, b) => b.microsPerKb - a.microsPerKb);
    const [worst] = sorted;
    const median = sorted[Math.floor(sorted.length / 2)]?.microsPerKb ?? 0;
    return `| ${family} | ${of.length} | ${median.toFixed(1)} | ${worst?.microsPerKb.toFixed(1)} | ${worst?.shape} |`;
  });
  return ['| surface | cells | median | worst | shape of the worst |', '|---|---|---|---|---|', ...rows].join('\n');
}
