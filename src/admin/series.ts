import { isBucket, measured, percentileMs } from '../figures/figures.ts';
import type { SeriesPoint } from '../figures/series-store.ts';

/** Histograms of which the series has percentiles. */
const HISTOGRAMS = ['first_event', 'run_duration', 'redis', 'invalidation'];
/** Series that a response has even if nothing was counted, so that a chart shows a line at zero. */
const ALWAYS = [
  'messages',
  'runs',
  'runs.failed',
  'events',
  'tool_calls',
  'usage_records',
  'refusals',
  'handshakes',
  'handshakes.failed',
  'evictions',
  'resumes',
  'replay_gaps',
  'refreshes',
  'refreshes.failed',
];

/**
 * Arranges points as one list per name. In a step with a report, a counter that is missing is 0, and so is a gauge of
 * connections; any other missing gauge is unknown.
 */
export function columns(points: readonly SeriesPoint[]): Record<string, (number | null)[]> {
  const counters = new Set(ALWAYS);
  const gauges = new Set<string>();
  for (const { figures } of points) {
    for (const name of Object.keys(figures?.counters ?? {})) if (!isBucket(name)) counters.add(name);
    for (const name of Object.keys(figures?.gauges ?? {})) gauges.add(name);
  }
  const column = (read: (point: Required<SeriesPoint>['figures'] & object) => number | null) =>
    points.map(({ figures }) => (figures ? read(figures) : null));
  const series: Record<string, (number | null)[]> = {};
  for (const name of [...counters].toSorted()) series[name] = column((figures) => figures.counters[name] ?? 0);
  for (const name of [...gauges].toSorted()) {
    const missing = name.startsWith('connections') ? 0 : null;
    series[name] = column((figures) => figures.gauges[name] ?? missing);
  }
  for (const name of HISTOGRAMS) {
    series[`${name}.p50_ms`] = column((figures) => percentileMs(figures, name, 0.5));
    series[`${name}.p99_ms`] = column((figures) => percentileMs(figures, name, 0.99));
    series[`${name}.count`] = column((figures) => measured(figures, name));
  }
  return series;
}
