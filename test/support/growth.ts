const ROUNDS = 9;
/** CPU of one measurement. `process.cpuUsage` counts in microseconds, and other threads of the process disturb it. */
const LEAST_MS = 4;
const MOST_REPEATS = 4_096;

/**
 * How many times as much CPU an input of twice the size costs: about 2 where the cost is linear, about 4 where it is
 * quadratic. The median of several pairs of measurements.
 * @param size of the smaller input; with a quadratic cost it has to be large enough to outweigh the fixed cost
 */
export function growthOf<T>(make: (size: number) => T, size: number, run: (input: T) => unknown): number {
  const [small, large] = [make(size), make(2 * size)];
  const repeats = repeatsFor(() => run(small));
  const ratios = Array.from(
    { length: ROUNDS },
    () => cpuMs(() => run(large), repeats) / cpuMs(() => run(small), repeats),
  );
  return median(ratios);
}

/** Enough to be measured; the first runs are those that V8 compiles. */
function repeatsFor(run: () => unknown): number {
  let repeats = 1;
  while (repeats < MOST_REPEATS && cpuMs(run, repeats) < LEAST_MS) repeats *= 2;
  return repeats;
}

function cpuMs(run: () => unknown, repeats: number): number {
  const before = process.cpuUsage();
  for (let at = 0; at < repeats; at++) run();
  const { user, system } = process.cpuUsage(before);
  return Math.max(1, user + system) / 1_000;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
