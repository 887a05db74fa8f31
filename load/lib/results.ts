import { cpus } from 'node:os';
import { table } from '../../scripts/lib/table.ts';
import { type Histograms, percentileMs, TIMINGS, type Timing } from './measures.ts';
import type { Mix } from './mix.ts';
import type { RunResult, Second } from './run.ts';
import type { Figures, ThresholdResult } from './thresholds.ts';

/** Configuration and outcome of a run: written as JSON, and rendered as the HTML report. */
export interface Results {
  readonly started_at: string;
  readonly url: string;
  readonly users: number;
  readonly turns_per_second: number;
  readonly duration_seconds: number;
  readonly threads: number;
  readonly mix: Mix;
  readonly machine: { readonly cpus: number; readonly model: string; readonly node: string };
  readonly passed: boolean;
  readonly thresholds: readonly ThresholdResult[];
  readonly figures: Figures;
  readonly errors: Readonly<Record<string, number>>;
  readonly ramp_seconds: number;
  /**
   * CPU use of the load generator. If it is near the number of threads, the run measured the generator instead of the
   * deployment.
   */
  readonly client: { readonly cores: number; readonly loop_delay_p99_ms: number };
  readonly seconds: readonly Second[];
  /** Points of the percentile plots: share in percent, and ms. */
  readonly distributions: Readonly<Record<Timing, readonly (readonly [number, number])[]>>;
}

const MICROSECONDS = 1_000;
/**
 * If the event loop delay of the generator exceeds this, the figures are at least that much worse than the deployment
 * is.
 */
const BUSY_LOOP_MS = 50;

export function machine(): Results['machine'] {
  const all = cpus();
  return { cpus: all.length, model: all[0]?.model ?? 'unknown', node: process.version };
}

/** Returns the points of each histogram's own iterator, which become denser towards 100 %. */
export function distributionsOf(histograms: Histograms): Results['distributions'] {
  const points = (timing: Timing) =>
    histograms[timing].count === 0
      ? []
      : [...histograms[timing].percentiles].map(([share, value]) => [share, value / MICROSECONDS] as const);
  return Object.fromEntries(TIMINGS.map((timing) => [timing, points(timing)])) as unknown as Results['distributions'];
}

export function progressLine(second: Second, users: number, durationSeconds: number): string {
  const { at, connected, inFlight, turnsDue, turnsCompleted, turnsFailed, firstEventP99, runP99 } = second;
  return [
    `${at.toFixed(0)} s of about ${durationSeconds.toFixed(0)}`,
    `${connected}/${users} connected`,
    `turns ${turnsDue} due, ${turnsCompleted} done, ${turnsFailed} failed, ${inFlight} in flight`,
    `first event p99 ${milliseconds(firstEventP99)}, run p99 ${milliseconds(runP99)}`,
  ].join(' · ');
}

export function milliseconds(ms: number): string {
  if (Number.isNaN(ms)) return '–';
  return ms < 10 ? `${ms.toFixed(1)} ms` : ms < 10_000 ? `${ms.toFixed(0)} ms` : `${(ms / 1_000).toFixed(1)} s`;
}

/** Formats a figure: shares in percent, times in ms. */
export function figureText(figure: string, value: number): string {
  if (Number.isNaN(value)) return 'not measured';
  if (figure.endsWith('_success')) return `${(value * 100).toFixed(2)} %`;
  return figure.endsWith('_ms') ? milliseconds(value) : String(value);
}

/** Returns header and rows of the percentile table. */
export function percentileRows(histograms: Histograms): { header: string[]; rows: string[][] } {
  const shares = [50, 90, 95, 99, 99.9, 100];
  const header = ['from the due time, ms', 'count', ...shares.map((share) => (share === 100 ? 'max' : `p${share}`))];
  const rows = TIMINGS.filter((timing) => histograms[timing].count > 0).map((timing) => {
    const times = shares.map((share) => percentileMs(histograms[timing], share).toFixed(1));
    return [timing, String(histograms[timing].count), ...times];
  });
  return { header, rows };
}

export function summaryLine({ passed, level, value }: ThresholdResult): string {
  if (Number.isNaN(value) && passed) return '–';
  if (passed) return 'ok';
  return level === 'required' ? 'FAILED' : 'warning';
}

/** Returns the summary that is printed at the end. */
export function summary(results: Results, histograms: RunResult['histograms']): string {
  const { header, rows } = percentileRows(histograms);
  const evaluated = results.thresholds.map((result) => {
    const { figure, operator, limit, value, level } = result;
    return [summaryLine(result), figure, figureText(figure, value), `${operator} ${figureText(figure, limit)}`, level];
  });
  const errors = Object.entries(results.errors).map(([kind, count]) => [kind, String(count)]);
  const { cores, loop_delay_p99_ms: delay } = results.client;
  return [
    table(header, rows, header.slice(1)),
    table(['', 'figure', 'measured', 'threshold', 'level'], evaluated),
    ...(errors.length > 0 ? [table(['errors', 'count'], errors, ['count'])] : []),
    `The load generator used ${cores.toFixed(2)} cores; its event loop was ${milliseconds(delay)} late (p99).${
      delay > BUSY_LOOP_MS ? ' That is in these figures: give it more --threads, or a machine of its own.' : ''
    }`,
  ].join('\n\n');
}
