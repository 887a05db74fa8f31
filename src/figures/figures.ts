/**
 * Figures of a process over a period: what the console shows of the metrics, under short names with dots.
 *
 * - counters: increase in the period; those of several processes and periods are added
 * - gauges: value at the end of the period
 *
 * The buckets of a histogram are counters, `<name>.le.<upper bound in seconds>`, each without those below it.
 */
export interface Figures {
  readonly counters: Readonly<Record<string, number>>;
  readonly gauges: Readonly<Record<string, number>>;
}

export const NO_FIGURES: Figures = { counters: {}, gauges: {} };

/** Gauges that are added over processes; of all others, the largest value is that of the cluster. */
const ADDED_GAUGES = /^(connections(\.|$)|runs_executing$|memory\.)/;
const BUCKET = '.le.';

/** Joins the figures of several processes for the same period. */
export function acrossProcesses(all: readonly Figures[]): Figures {
  const gauges: Record<string, number> = {};
  for (const figures of all) {
    for (const [name, value] of Object.entries(figures.gauges)) {
      const before = gauges[name];
      gauges[name] = before === undefined ? value : ADDED_GAUGES.test(name) ? before + value : Math.max(before, value);
    }
  }
  return { counters: sum(all), gauges };
}

/** Joins the figures of one process for adjacent periods of the same length. A gauge becomes its mean. */
export function acrossPeriods(all: readonly Figures[]): Figures {
  const sums: Record<string, number> = {};
  const counts: Record<string, number> = {};
  for (const figures of all) {
    for (const [name, value] of Object.entries(figures.gauges)) {
      sums[name] = (sums[name] ?? 0) + value;
      counts[name] = (counts[name] ?? 0) + 1;
    }
  }
  const gauges = Object.entries(sums).map(([name, value]) => [name, rounded(value / (counts[name] ?? 1))] as const);
  return { counters: sum(all), gauges: Object.fromEntries(gauges) };
}

/** Returns the counters that increased between two readings, and the gauges of the later one. */
export function since(before: Figures, after: Figures): Figures {
  const counters: Record<string, number> = {};
  for (const [name, value] of Object.entries(after.counters)) {
    const increase = value - (before.counters[name] ?? 0);
    if (increase > 0) counters[name] = rounded(increase);
  }
  return { counters, gauges: after.gauges };
}

/**
 * Returns a percentile of a histogram in milliseconds: the upper bound of the bucket that contains it.
 * @param share 0.99 for the 99th percentile
 * @returns null if nothing was measured; above the last bound, that bound
 */
export function percentileMs({ counters }: Figures, histogram: string, share: number): number | null {
  const prefix = histogram + BUCKET;
  const buckets = Object.entries(counters).filter(([name]) => name.startsWith(prefix));
  const bounds = buckets.map(([name, count]) => ({ bound: Number(name.slice(prefix.length)), count }));
  bounds.sort((a, b) => a.bound - b.bound);
  const total = bounds.reduce((before, { count }) => before + count, 0);
  if (total === 0) return null;
  let seen = 0;
  let bound = 0;
  for (const bucket of bounds) {
    seen += bucket.count;
    if (Number.isFinite(bucket.bound)) bound = bucket.bound;
    if (seen >= total * share) break;
  }
  return rounded(bound * 1000);
}

/** Number of measurements of a histogram. */
export function measured({ counters }: Figures, histogram: string): number {
  const prefix = histogram + BUCKET;
  return Object.entries(counters).reduce((sum, [name, count]) => (name.startsWith(prefix) ? sum + count : sum), 0);
}

/** Returns the values whose names have a prefix, by the rest of their names. */
export function under(values: Readonly<Record<string, number>>, prefix: string): Record<string, number> {
  const found = Object.entries(values).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(found.map(([name, value]) => [name.slice(prefix.length), value]));
}

export function isBucket(name: string): boolean {
  return name.includes(BUCKET);
}

export function bucketName(histogram: string, bound: string): string {
  return histogram + BUCKET + bound;
}

function sum(all: readonly Figures[]): Record<string, number> {
  const counters: Record<string, number> = {};
  for (const figures of all) {
    for (const [name, value] of Object.entries(figures.counters)) counters[name] = (counters[name] ?? 0) + value;
  }
  return counters;
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}
