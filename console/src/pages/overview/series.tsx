import { request } from '../../api/http.ts';
import type { Series } from '../../api/types.ts';
import { count, duration, shortCount } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { Chart } from '../../ui/chart.tsx';
import { Loaded } from '../../ui/state.tsx';

export type Period = 'hour' | 'day' | 'month';

const HOUR_MS = 3_600_000;
const PERIODS = {
  hour: { step: 'minute', ms: HOUR_MS, refreshMs: 20_000 },
  day: { step: 'minute', ms: 24 * HOUR_MS, refreshMs: 60_000 },
  month: { step: 'hour', ms: 30 * 24 * HOUR_MS, refreshMs: 600_000 },
} as const;

interface ChartSpec {
  readonly title: string;
  readonly format: (value: number) => string;
  /** Name in the legend by name of the series. */
  readonly lines: Readonly<Record<string, string>>;
  /** Adds a line for each series with this prefix. */
  readonly prefix?: string;
}

const milliseconds = (value: number) => duration(value);
const CHARTS: readonly ChartSpec[] = [
  { title: 'Connections', format: count, lines: { connections: 'all' }, prefix: 'connections.plan.' },
  {
    title: 'Per minute',
    format: shortCount,
    lines: { messages: 'messages', events: 'events', runs: 'runs', tool_calls: 'tool calls' },
  },
  {
    title: 'First event of a run',
    format: milliseconds,
    lines: { 'first_event.p99_ms': 'p99', 'first_event.p50_ms': 'p50' },
  },
  {
    title: 'Refused and lost',
    format: shortCount,
    lines: { refusals: 'refusals', evictions: 'evictions', resumes: 'resumes', 'runs.failed': 'failed runs' },
  },
  {
    title: 'Redis and event loop, p99',
    format: milliseconds,
    lines: { 'redis.p99_ms': 'Redis', 'event_loop.p99_ms': 'event loop' },
  },
  {
    title: 'Behind',
    format: shortCount,
    lines: { 'queue.runs': 'runs waiting', 'ledger.lag_seconds': 'ledger lag, s' },
  },
];

export function SeriesCharts({ period }: { readonly period: Period }) {
  const { step, ms, refreshMs } = PERIODS[period];
  const series = useResource(
    period,
    (signal) => {
      const from = new Date(Date.now() - ms).toISOString();
      return request<Series>('/v1/admin/series', { query: { step, from }, signal });
    },
    { refreshMs },
  );
  return (
    <Loaded resource={series}>
      {(data) => (
        <div class="columns">
          {CHARTS.map((spec) => (
            <SeriesChart key={spec.title} spec={spec} data={data} perHour={step === 'hour'} />
          ))}
        </div>
      )}
    </Loaded>
  );
}

function SeriesChart({ spec, data, perHour }: { spec: ChartSpec; data: Series; perHour: boolean }) {
  const { prefix } = spec;
  const prefixed = prefix === undefined ? [] : Object.keys(data.series).filter((name) => name.startsWith(prefix));
  const names = [
    ...Object.entries(spec.lines),
    ...prefixed.toSorted().map((name) => [name, name.slice(prefix?.length)] as const),
  ];
  const lines = names.map(([name, title]) => ({ name: title, values: data.series[name] ?? [] }));
  const title = perHour ? spec.title.replace('Per minute', 'Per hour') : spec.title;
  return <Chart title={title} at={data.at} lines={lines} format={spec.format} />;
}
