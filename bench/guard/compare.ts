import type { Counters } from './operations.ts';

export type Costs = Readonly<Record<string, Counters>>;

/** How far a counter may exceed its committed figure: a share of it, and an absolute number. */
interface Tolerance {
  readonly share: number;
  readonly plus: number;
}

const EXACT: Tolerance = { share: 0, plus: 0 };
/** The first rule whose pattern matches the counter applies; a counter without a rule is exact. */
const TOLERANCES: readonly (readonly [RegExp, Tolerance])[] = [
  // Bytes vary with the length of numbers and times.
  [/bytes (?:to|from) Redis$/, { share: 0.03, plus: 16 }],
  // Estimated from samples; optimised code allocates less than code that is not hot yet.
  [/^bytes allocated$/, { share: 0.15, plus: 0 }],
  [/^heap bytes held$/, { share: 0.15, plus: 1_024 }],
  // Pools of Node and buffers that grow in steps belong to no single connection.
  [/ held$/, { share: 0.02, plus: 0.5 }],
  // A window of seconds contains one more or one less of what runs every few seconds.
  [/^(?:commands sent|scripts run|stream entries added)$/, { share: 0.3, plus: 24 }],
];

export interface Difference {
  readonly operation: string;
  readonly counter: string;
  readonly committed: number;
  readonly measured: number;
}

export interface Comparison {
  /** Counters above their committed figure, or without one. */
  readonly worse: readonly Difference[];
  /** Counters below their committed figure by more than the tolerance. They pass; `--update` makes the gain permanent. */
  readonly better: readonly Difference[];
}

/** Compares measured costs with committed ones. An operation that was not measured counts as 0. */
export function compareCosts(committed: Costs, measured: Costs): Comparison {
  const differences = [...new Set([...Object.keys(committed), ...Object.keys(measured)])].flatMap((operation) => {
    const [before, now] = [committed[operation] ?? {}, measured[operation] ?? {}];
    return [...new Set([...Object.keys(before), ...Object.keys(now)])].map((counter): Difference => {
      return { operation, counter, committed: before[counter] ?? 0, measured: now[counter] ?? 0 };
    });
  });
  return {
    worse: differences.filter((one) => one.measured > one.committed + allowanceOf(one)),
    better: differences.filter((one) => one.measured < one.committed - allowanceOf(one)),
  };
}

function allowanceOf({ counter, committed }: Difference): number {
  const { share, plus } = toleranceOf(counter);
  return committed * share + plus;
}

function toleranceOf(counter: string): Tolerance {
  return TOLERANCES.find(([pattern]) => pattern.test(counter))?.[1] ?? EXACT;
}

/** Returns a line such as `turn, one tool call: worker: appendEvents is 7, committed 6 (exact)`. */
export function describeDifference({ operation, counter, committed, measured }: Difference): string {
  const { share, plus } = toleranceOf(counter);
  const tolerance = share + plus === 0 ? 'exact' : `tolerance ${Math.round(share * 100)} % + ${plus}`;
  return `${operation}: ${counter} is ${measured}, committed ${committed} (${tolerance})`;
}
