const ROUNDS = 9;
/**
 * Minimum CPU time of one measurement. `process.cpuUsage` counts microseconds, and other threads of the process disturb
 * it.
 */
const LEAST_MS = 4;
const MOST_REPEATS = 4_096;

/**
 * Returns the factor by which the CPU time grows when the input doubles: about 2 for a linear cost, about 4 for a
 * quadratic one. It is the median of several pairs of measurements.
 * @param size of the smaller input; it must be large enough for a quadratic cost to outweigh the fixed cost
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

/** Returns enough repetitions to be measurable; during the first runs V8 compiles. */
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
