import { median } from '../lib/statistics.ts';
import type { Figures } from './measures.ts';
import type { TargetName } from './targets.ts';

/** A target of issue 14: at most (or at least) `factor` times the figure of another system, or a fixed figure. */
interface Aim {
  readonly factor: number;
  /** `fixed` compares with the factor itself, `today` with the same transport of the earlier commit. */
  readonly of: 'p1k' | 'p4r' | 'today' | 'fixed';
  readonly atLeast?: true;
}

interface Row {
  readonly figure: string;
  readonly digits: number;
  readonly raw: Aim;
  readonly socketIo: Aim;
}

const both = (aim: Aim) => ({ raw: aim, socketIo: aim });

/** The rows of the table, with what they aim for. */
export const ROWS: readonly Row[] = [
  { figure: 'connect, server ms', digits: 3, raw: { factor: 1.5, of: 'p4r' }, socketIo: { factor: 1.3, of: 'p1k' } },
  {
    figure: 'memory per connection, KiB',
    digits: 1,
    raw: { factor: 1.6, of: 'p4r' },
    socketIo: { factor: 1.15, of: 'p1k' },
  },
  {
    figure: 'message saturated, server µs',
    digits: 1,
    raw: { factor: 1, of: 'p4r' },
    socketIo: { factor: 1.3, of: 'p1k' },
  },
  { figure: 'message at 2,000/s, Redis µs', digits: 1, ...both({ factor: 0.3, of: 'p4r' }) },
  {
    figure: 'delivery saturated, server µs',
    digits: 1,
    raw: { factor: 1.3, of: 'p4r' },
    socketIo: { factor: 1, of: 'p1k' },
  },
  { figure: 'delivery saturated, Redis µs', digits: 1, ...both({ factor: 0.4, of: 'today' }) },
  {
    figure: 'deliveries per second',
    digits: 0,
    raw: { factor: 0.8, of: 'p4r', atLeast: true },
    socketIo: { factor: 0.7, of: 'p1k', atLeast: true },
  },
  {
    figure: 'delivery over eight nodes, µs',
    digits: 0,
    raw: { factor: 0.45, of: 'p1k' },
    socketIo: { factor: 0.55, of: 'p1k' },
  },
  {
    figure: 'storm, ms until all are back',
    digits: 0,
    raw: { factor: 1.2, of: 'p4r' },
    socketIo: { factor: 1.3, of: 'p1k' },
  },
  { figure: 'turn, gateway µs', digits: 0, raw: { factor: 1.1, of: 'p4r' }, socketIo: { factor: 1.2, of: 'p1k' } },
  { figure: 'turn, worker µs', digits: 0, ...both({ factor: 0.3, of: 'today' }) },
  { figure: 'turn, Redis µs', digits: 0, ...both({ factor: 0.25, of: 'today' }) },
  { figure: 'first event p50, ms', digits: 1, ...both({ factor: 1, of: 'fixed' }) },
  { figure: 'first event p99, ms', digits: 1, ...both({ factor: 5, of: 'fixed' }) },
];

export type Rounds = Readonly<Partial<Record<TargetName, readonly Figures[]>>>;

/**
 * Returns the ratio of a target to its aim's reference as the median of the ratios of paired rounds, and whether it
 * reaches the aim; undefined if either was not measured.
 */
export function ratioOf(
  rounds: Rounds,
  figure: string,
  transport: 'raw' | 'socket.io',
  aim: Aim,
): { readonly ratio: number; readonly isReached: boolean } | undefined {
  const own = valuesOf(rounds, transport, figure);
  const reference = aim.of === 'today' ? (`today ${transport}` as const) : aim.of;
  const others = reference === 'fixed' ? own.map(() => 1) : valuesOf(rounds, reference, figure);
  if (own.length === 0 || others.length !== own.length) return undefined;
  const ratio = median(own.map((value, round) => value / (others[round] ?? Number.NaN)));
  return { ratio, isReached: aim.atLeast ? ratio >= aim.factor : ratio <= aim.factor };
}

export function valuesOf(rounds: Rounds, target: TargetName, figure: string): number[] {
  return (rounds[target] ?? []).flatMap((figures) => figures[figure] ?? []);
}

/** Formats one aim: `1.83 × p4r (≤ 1.5: missed)`. */
export function describeAim(rounds: Rounds, figure: string, transport: 'raw' | 'socket.io', aim: Aim): string {
  const found = ratioOf(rounds, figure, transport, aim);
  if (!found) return '–';
  const sign = aim.atLeast ? '≥' : '≤';
  const of = aim.of === 'fixed' ? '' : ` × ${aim.of}`;
  return `${found.ratio.toFixed(2)}${of} (${sign} ${aim.factor}: ${found.isReached ? 'reached' : 'missed'})`;
}
