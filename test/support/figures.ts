import { percentile } from '../../bench/lib/statistics.ts';

/** Prints the durations of the rounds of a chaos test. */
export function reportMs(what: string, values: readonly number[]): void {
  const [p50, p99] = [percentile(values, 0.5), percentile(values, 0.99)].map((value) => value.toFixed(0));
  process.stdout.write(`${what}: ${values.length} rounds, p50 ${p50} ms, p99 ${p99} ms\n`);
}
