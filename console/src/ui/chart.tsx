import { NONE } from '../lib/format.ts';
import { lazy } from '../lib/lazy.tsx';
import type { ChartProps } from './chart-props.ts';
import { Panel } from './page.tsx';
import { Empty } from './state.tsx';

const Plot = lazy(async () => (await import('./plot.tsx')).Plot);

/** A chart with its legend, which has the latest values as text. */
export function Chart({ title, at, lines, format, bars }: ChartProps & { readonly title: string }) {
  const known = lines.filter(({ values }) => values.some((value) => value !== null));
  return (
    <Panel title={title} actions={<Legend lines={known} format={format} />}>
      {known.length === 0 ? (
        <div class="chart empty">
          <Empty title="Nothing was measured in this period">A figure appears when its minute is over.</Empty>
        </div>
      ) : (
        <Plot at={at} lines={known} format={format} bars={bars} />
      )}
    </Panel>
  );
}

function Legend({ lines, format }: Pick<ChartProps, 'lines' | 'format'>) {
  return (
    <div class="legend">
      {lines.map(({ name, values }, index) => {
        const last = values.findLast((value) => value !== null);
        return (
          <span key={name} data-series={(index % 5) + 1}>
            <i />
            <bdi>{name}</bdi> {typeof last === 'number' ? format(last) : NONE}
          </span>
        );
      })}
    </div>
  );
}
