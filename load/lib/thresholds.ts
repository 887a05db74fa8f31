import { UserError } from '../../scripts/lib/user-error.ts';
import { COUNTERS, percentileMs, TIMINGS } from './measures.ts';
import type { RunResult } from './run.ts';

const OPERATORS = ['>=', '<=', '>', '<'] as const;
type Operator = (typeof OPERATORS)[number];

export interface Threshold {
  readonly figure: string;
  readonly operator: Operator;
  readonly limit: number;
  /** A `required` threshold that fails makes the exit code 1; a `wanted` one is only reported. */
  readonly level: 'required' | 'wanted';
}

export interface ThresholdResult extends Threshold {
  /** NaN if the mix has nothing of the kind. */
  readonly value: number;
  readonly passed: boolean;
}

const required = (figure: string, operator: Operator, limit: number): Threshold => {
  return { figure, operator, limit, level: 'required' };
};
const wanted = (figure: string, operator: Operator, limit: number): Threshold => {
  return { figure, operator, limit, level: 'wanted' };
};

/**
 * Thresholds: the required ones of any deployment, then the wanted ones of this project. Shares are 0 to 1, times in
 * ms.
 */
export const THRESHOLDS: readonly Threshold[] = [
  required('connection_success', '>', 0.99),
  required('authentication_success', '>=', 0.9),
  required('run_success', '>=', 0.85),
  required('first_event_p95_ms', '<', 100),
  required('run_max_ms', '<', 45_000),
  required('events_lost', '<=', 0),
  required('events_repeated', '<=', 0),
  wanted('connection_success', '>=', 1),
  wanted('authentication_success', '>=', 1),
  wanted('run_success', '>=', 0.999),
  wanted('turn_success', '>=', 0.999),
  wanted('first_event_p99_ms', '<', 100),
  wanted('run_p99_ms', '<', 1_000),
  wanted('connections_lost', '<=', 0),
  wanted('resume_failures', '<=', 0),
];

const SHARES = { p50: 50, p90: 90, p95: 95, p99: 99, p999: 99.9, max: 100 } as const;

const SUCCESSES = ['connection_success', 'authentication_success', 'run_success', 'turn_success'] as const;
const FIGURE_NAMES = new Set<string>([
  ...SUCCESSES,
  ...COUNTERS,
  ...TIMINGS.flatMap((timing) => Object.keys(SHARES).map((share) => `${timing}_${share}_ms`)),
]);

/** All figures that a threshold can name. */
export type Figures = Readonly<Record<string, number>>;

export function figuresOf({ counts, histograms }: RunResult): Figures {
  const times = TIMINGS.flatMap((timing) =>
    Object.entries(SHARES).map(([name, share]) => [`${timing}_${name}_ms`, percentileMs(histograms[timing], share)]),
  );
  const successes: Record<(typeof SUCCESSES)[number], number> = {
    connection_success: counts.connections_opened / counts.connections_attempted,
    authentication_success: counts.connections_authenticated / counts.connections_opened,
    run_success: counts.runs_completed / counts.runs_requested,
    turn_success: counts.turns_completed / counts.turns_due,
  };
  return {
    ...successes,
    ...counts,
    ...(Object.fromEntries(times) as Figures),
  };
}

/**
 * Parses a condition such as `first_event_p99_ms<50` into a required threshold.
 * @throws UserError that names the part it cannot parse
 */
export function parseThreshold(text: string): Threshold {
  const [, figure = '', sign = '', number = ''] = /^(\w+)(>=|<=|>|<)([\d.]+)$/.exec(text) ?? [];
  const operator = OPERATORS.find((valid) => valid === sign);
  const limit = Number(number);
  if (operator === undefined || !Number.isFinite(limit)) {
    throw new UserError(`--threshold must have the form "first_event_p99_ms<50", not "${text}".`);
  }
  if (!FIGURE_NAMES.has(figure)) {
    throw new UserError(`--threshold: unknown figure "${figure}". Known figures: ${[...FIGURE_NAMES].join(', ')}.`);
  }
  return required(figure, operator, limit);
}

/**
 * Compares the figures with the built-in thresholds and the given ones. A given threshold replaces the required
 * built-in one of the same figure. A figure without a measurement fails a given threshold, but no built-in one, because
 * the mix may not contain it.
 */
export function evaluate(figures: Figures, chosen: readonly Threshold[]): ThresholdResult[] {
  const isReplaced = ({ figure, level }: Threshold) =>
    level === 'required' && chosen.some((threshold) => threshold.figure === figure);
  const ours = THRESHOLDS.filter((threshold) => !isReplaced(threshold));
  const evaluated = (threshold: Threshold, isGiven: boolean): ThresholdResult => {
    const value = figures[threshold.figure] ?? Number.NaN;
    return { ...threshold, value, passed: Number.isNaN(value) ? !isGiven : compare(value, threshold) };
  };
  return [
    ...chosen.map((threshold) => evaluated(threshold, true)),
    ...ours.map((threshold) => evaluated(threshold, false)),
  ].toSorted((a, b) => a.level.localeCompare(b.level));
}

function compare(value: number, { operator, limit }: Threshold): boolean {
  switch (operator) {
    case '>':
      return value > limit;
    case '>=':
      return value >= limit;
    case '<':
      return value < limit;
    case '<=':
      return value <= limit;
  }
}
