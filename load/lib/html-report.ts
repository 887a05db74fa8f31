import { chart, escapeHtml, type Series, timeTicks } from './chart.ts';
import type { Timing } from './measures.ts';
import { figureText, type Results, summaryLine } from './results.ts';
import type { Second } from './run.ts';

const STYLE = `
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
  body { max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
  table { border-collapse: collapse; margin: 1rem 0 }
  td, th { padding: .15rem .8rem .15rem 0; text-align: left; border-bottom: 1px solid #8884 }
  td { font-variant-numeric: tabular-nums }
  .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: 1rem }
  figure { margin: 0 } svg { width: 100%; height: auto }
  svg text { font-size: 11px; fill: currentColor; opacity: .75 }
  .grid { stroke: #8884; fill: none } .line { fill: none; stroke-width: 1.6 }
  figcaption span::before { content: ''; display: inline-block; width: 1em; height: .25em; margin: 0 .3em .2em .6em; background: var(--of) }
  .FAILED { color: #c00; font-weight: bold } .warning { color: #b60 }`;

/** Ticks of a percentile plot: each further "nine" has the same width. */
const NINES = [0, 50, 90, 99, 99.9, 99.99];
const PLOTTED: readonly (readonly [Timing, string])[] = [
  ['first_event', 'first event'],
  ['run', 'whole run'],
  ['connect', 'connect to welcome'],
  ['resume', 'cut to resumed'],
];

/** Returns the report as one file without external resources. */
export function htmlReport(results: Results): string {
  const title = `Load on ${new URL(results.url).host}`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(title)}</title><style>${STYLE}</style></head><body>
<h1>${escapeHtml(title)}: ${results.passed ? 'passed' : 'failed'}</h1>
<p>${escapeHtml(subtitle(results))}</p>
${htmlTable(['', 'figure', 'measured', 'threshold', 'level'], thresholdRows(results))}
<div class="charts">
${overTime(results.seconds).join('\n')}
${PLOTTED.map(([timing, name]) => percentilePlot(name, results.distributions[timing])).join('\n')}
</div>
${htmlTable(['figure', 'value'], figureRows(results))}
${htmlTable(['error', 'count'], errorRows(results))}
<details><summary>Mix</summary><pre>${escapeHtml(JSON.stringify(results.mix, null, 2))}</pre></details>
</body></html>
`;
}

function subtitle({
  started_at,
  users,
  turns_per_second,
  duration_seconds,
  machine,
  client,
  threads,
}: Results): string {
  return [
    `${started_at}: ${users} users, ${turns_per_second} turns per second for ${duration_seconds} s.`,
    `Load generator: ${threads} threads on ${machine.cpus} × ${machine.model}, Node ${machine.node};`,
    `it used ${client.cores.toFixed(2)} cores, with an event loop delay of ${client.loop_delay_p99_ms.toFixed(1)} ms (p99).`,
    'Latencies of turns count from the scheduled time.',
  ].join(' ');
}

function thresholdRows({ thresholds }: Results): string[][] {
  return thresholds.map((result) => {
    const { figure, value, operator, limit, level } = result;
    const limitText = `${operator} ${figureText(figure, limit)}`;
    return [summaryLine(result), figure, figureText(figure, value), limitText, level];
  });
}

function figureRows({ figures }: Results): string[][] {
  const measured = Object.entries(figures).filter(([, value]) => !Number.isNaN(value));
  return measured.map(([figure, value]) => [figure, figureText(figure, value)]);
}

function errorRows({ errors }: Results): string[][] {
  return Object.entries(errors).map(([kind, count]) => [kind, String(count)]);
}

function overTime(seconds: readonly Second[]): string[] {
  const line = (name: string, pick: (second: Second) => number): Series => {
    return { name, points: seconds.map((second) => [second.at, pick(second)] as const) };
  };
  const perSecond = (name: string, pick: (second: Second) => number): Series => {
    const points = seconds.slice(1).flatMap((second, at) => {
      const before = seconds[at];
      return before ? [[second.at, (pick(second) - pick(before)) / (second.at - before.at)] as const] : [];
    });
    return { name, points };
  };
  const xTicks = timeTicks(seconds.at(-1)?.at ?? 0);
  return [
    chart({ title: 'Users', unit: '', xTicks, series: [line('connected', (second) => second.connected)] }),
    chart({
      title: 'Turns',
      unit: 'a second',
      xTicks,
      series: [
        perSecond('due', (second) => second.turnsDue),
        perSecond('completed', (second) => second.turnsCompleted),
        perSecond('failed', (second) => second.turnsFailed),
      ],
    }),
    chart({ title: 'Turns in flight', unit: '', xTicks, series: [line('in flight', (second) => second.inFlight)] }),
    chart({
      title: 'First event',
      unit: 'ms',
      xTicks,
      series: [line('p50', (second) => second.firstEventP50), line('p99', (second) => second.firstEventP99)],
    }),
    chart({
      title: 'Whole run',
      unit: 'ms',
      xTicks,
      series: [line('p50', (second) => second.runP50), line('p99', (second) => second.runP99)],
    }),
  ];
}

/** Latency over percentile, with the axis stretched towards 100 % as in the plots of HdrHistogram. */
function percentilePlot(name: string, points: readonly (readonly [number, number])[]): string {
  const toX = (share: number) => -Math.log10(1 - Math.min(share, 99.999) / 100);
  const top = points.reduce((far, [share]) => (share < 100 ? Math.max(far, share) : far), 99);
  const series = [
    { name, points: points.filter(([share]) => share < 100).map(([share, ms]) => [toX(share), ms] as const) },
  ];
  const xTicks = NINES.filter((share) => share <= top).map((share) => [toX(share), `${share} %`] as const);
  return chart({ title: `Percentiles, ${name}`, unit: 'ms', xTicks, series });
}

function htmlTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const cells = (row: readonly string[], tag: 'td' | 'th') =>
    row.map((cell) => `<${tag} class="${escapeHtml(cell)}">${escapeHtml(cell)}</${tag}>`).join('');
  return `<table><tr>${cells(header, 'th')}</tr>${rows.map((row) => `<tr>${cells(row, 'td')}</tr>`).join('')}</table>`;
}
