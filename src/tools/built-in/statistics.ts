/** One twelfth of a year; the base of monthly projections. */
export const HOURS_A_MONTH = 730;

/** Nearest-rank percentile; null for an empty list. @param rank 0 to 1 */
export function percentile(values: readonly number[], rank: number): number | null {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(rank * sorted.length) - 1)] ?? null;
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

export function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
