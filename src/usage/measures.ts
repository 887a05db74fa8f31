import type { Refusal, UsageRecord } from '../protocol/usage.ts';

/** The measures of a tally, in the order in which they are stored. All are integers. */
const MEASURES = [
  'executions',
  'succeeded',
  'failed',
  'cancelled',
  'units',
  'duration_ms',
  'corrections',
  'refusals',
] as const;

export type Measures = Readonly<Record<(typeof MEASURES)[number], number>>;

export const NOTHING: Measures = {
  executions: 0,
  succeeded: 0,
  failed: 0,
  cancelled: 0,
  units: 0,
  duration_ms: 0,
  corrections: 0,
  refusals: 0,
};

const REFUSED: Measures = { ...NOTHING, refusals: 1 };

/**
 * Returns the measures of a record or refusal. A correction is not an execution: it adds its units and counts as one
 * correction.
 */
export function measuresOf(entry: UsageRecord | Refusal): Measures {
  if (!('id' in entry)) return REFUSED;
  const { status, units, duration_ms } = entry;
  if (entry.corrects !== undefined) return { ...NOTHING, units, corrections: 1 };
  return {
    executions: 1,
    succeeded: Number(status === 'success'),
    failed: Number(status === 'error'),
    cancelled: Number(status === 'cancelled'),
    units,
    duration_ms,
    corrections: 0,
    refusals: 0,
  };
}

export function sum(one: Measures, other: Measures): Measures {
  return {
    executions: one.executions + other.executions,
    succeeded: one.succeeded + other.succeeded,
    failed: one.failed + other.failed,
    cancelled: one.cancelled + other.cancelled,
    units: one.units + other.units,
    duration_ms: one.duration_ms + other.duration_ms,
    corrections: one.corrections + other.corrections,
    refusals: one.refusals + other.refusals,
  };
}

/** Serializes measures as Redis stores them and Lua adds them up: integers, separated by spaces. */
export function packed(measures: Measures): string {
  return MEASURES.map((name) => measures[name]).join(' ');
}

export function unpacked(text: string): Measures {
  const numbers = text.split(' ').map(Number);
  return Object.fromEntries(MEASURES.map((name, at) => [name, numbers[at] ?? 0])) as Measures;
}

/** Returns the name of the tally row that an entry counts towards. */
export function rowOf({ user_id, tool, plan }: UsageRecord | Refusal): string {
  return JSON.stringify([user_id, tool, plan]);
}

/** Sums of measures per row. */
export class Sums {
  readonly rows = new Map<string, Measures>();

  add(row: string, measures: Measures): void {
    this.rows.set(row, sum(this.rows.get(row) ?? NOTHING, measures));
  }
}

/** Returns the row with `pseudonym` as its user; undefined for a row of another user. */
export function rowUnder(row: string, userId: string, pseudonym: string): string | undefined {
  const [user, ...rest] = JSON.parse(row) as string[];
  return user === userId ? JSON.stringify([pseudonym, ...rest]) : undefined;
}

/**
 * Returns the rows with each user whose erasure is in progress under the pseudonym of that erasure.
 * @param pseudonyms by user id
 */
export function underPseudonyms(
  rows: ReadonlyMap<string, Measures>,
  pseudonyms: ReadonlyMap<string, string> = new Map(),
): ReadonlyMap<string, Measures> {
  if (pseudonyms.size === 0) return rows;
  const sums = new Sums();
  for (const [row, measures] of rows) {
    const [user = ''] = JSON.parse(row) as string[];
    sums.add(rowUnder(row, user, pseudonyms.get(user) ?? user) ?? row, measures);
  }
  return sums.rows;
}
