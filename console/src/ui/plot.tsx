import 'uplot/dist/uPlot.min.css';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { isDark } from '../lib/theme.ts';
import type { ChartProps } from './chart-props.ts';

const HEIGHT = 168;
const AXIS_WIDTH = 54;
/** Whole steps between ticks: 1, 2, 5, 10, …; the formats round, so that smaller ones would have equal labels. */
const STEPS = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

/** Draws a chart with uPlot. This file is fetched with the first chart. */
export function Plot({ at, lines, format, bars = false }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const dark = isDark();
  const names = lines.map(({ name }) => name).join('|');

  // Drawn anew for other lines or colours; new values alone are only set.
  useEffect(() => {
    const target = place.current;
    if (!target) return;
    const created = new uPlot(options(target, { lines, format, bars }), dataOf(at, lines), target);
    plot.current = created;
    const observer = new ResizeObserver(() => created.setSize({ width: target.clientWidth, height: HEIGHT }));
    observer.observe(target);
    return () => {
      observer.disconnect();
      created.destroy();
    };
  }, [names, dark]);

  useEffect(() => plot.current?.setData(dataOf(at, lines)), [at, lines]);
  return <div class="chart" ref={place} aria-hidden="true" />;
}

function dataOf(at: ChartProps['at'], lines: ChartProps['lines']): uPlot.AlignedData {
  const seconds = at.map((time) => new Date(time).getTime() / 1_000);
  return [seconds, ...lines.map(({ values }) => [...values])];
}

function options(target: HTMLElement, { lines, format, bars }: Omit<ChartProps, 'at'>): uPlot.Options {
  const style = getComputedStyle(target);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: color('--muted'),
    font: `11px ${style.fontFamily}`,
    grid: { stroke: color('--line'), width: 1 },
    ticks: { show: false },
  };
  return {
    width: target.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    // The last label of the horizontal axis is as wide as this on the right.
    padding: [10, 18, 0, 0],
    cursor: { sync: { key: 'tollgate' }, y: false, points: { size: 6 } },
    plugins: [tooltip({ lines, format, bars })],
    scales: {
      ...(bars && { x: { range: withMargin } }),
      y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.15 : 1] },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 20,
        gap: 6,
        space: 70,
        values: (_plot, ticks, _axis, _space, step) => ticks.map((at) => timeLabel(at, step, bars)),
      },
      { ...axis, size: AXIS_WIDTH, incrs: STEPS, values: (_plot, ticks) => ticks.map((value) => format(value)) },
    ],
    series: [
      {},
      ...lines.map(({ name }, index) => ({
        label: name,
        stroke: color(`--series-${(index % 5) + 1}`),
        width: 1.5,
        ...(bars && { paths: columns(), fill: color(`--series-${(index % 5) + 1}`), width: 0 }),
        points: {
          show: !bars,
          size: 4,
          filter: (plot: uPlot, series: number) => isolated(plot.data[series] ?? []),
        },
        ...(lines.length === 1 && !bars && { fill: `color-mix(in srgb, ${color('--series-1')} 14%, transparent)` }),
      })),
    ],
  };
}

const DAY_SECONDS = 86_400;
const HOURS: Intl.DateTimeFormatOptions = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };
const DAYS: Intl.DateTimeFormatOptions = { month: 'short', day: 'numeric' };

/** @param step seconds between two labels; 0 for a single one, with day and time */
function timeLabel(seconds: number, step: number, isUtc: boolean | undefined): string {
  const parts = step >= DAY_SECONDS ? DAYS : step === 0 ? { ...DAYS, ...HOURS } : HOURS;
  return new Intl.DateTimeFormat(undefined, { ...parts, timeZone: isUtc ? 'UTC' : undefined }).format(seconds * 1_000);
}

function columns(): uPlot.Series.PathBuilder {
  return uPlot.paths.bars?.({ size: [0.6, 40] }) ?? (() => null);
}

/** Half a step on both sides, so that the outer columns are whole. */
function withMargin(plot: uPlot, min: number, max: number): uPlot.Range.MinMax {
  const half = (max - min) / (2 * Math.max(1, plot.data[0].length - 1));
  return [min - half, max + half];
}

/** Positions of values without a neighbour: no line reaches them, so they are drawn as points. */
function isolated(values: ArrayLike<number | null | undefined>): number[] {
  const isMissing = (value: number | null | undefined) => value === null || value === undefined;
  return Array.from(values).flatMap((value, index) => {
    return !isMissing(value) && isMissing(values[index - 1]) && isMissing(values[index + 1]) ? [index] : [];
  });
}

/** Shows the values at the cursor. Its place is set with the CSSOM, which the content security policy allows. */
function tooltip({ lines, format, bars }: Omit<ChartProps, 'at'>): uPlot.Plugin {
  const box = document.createElement('div');
  box.className = 'chart-tooltip';
  return {
    hooks: {
      init: (plot) => {
        plot.over.append(box);
      },
      setCursor: (plot) => {
        const { idx, left = -1 } = plot.cursor;
        box.hidden = typeof idx !== 'number' || left < 0;
        if (typeof idx !== 'number') return;
        const rows = lines.map(({ name }, index) => {
          const value = plot.data[index + 1]?.[idx];
          return `${name}  ${typeof value === 'number' ? format(value) : '–'}`;
        });
        const time = plot.data[0][idx];
        box.textContent = [time === undefined ? '' : timeLabel(time, 0, bars), ...rows].join('\n');
        const isRight = left > plot.over.clientWidth / 2;
        box.style.left = isRight ? '' : `${left + 12}px`;
        box.style.right = isRight ? `${plot.over.clientWidth - left + 12}px` : '';
      },
    },
  };
}
