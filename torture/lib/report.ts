import { readFileSync, writeFileSync } from 'node:fs';
import { escapeHtml } from '../../load/lib/chart.ts';
import type { machine } from '../../load/lib/results.ts';
import { PROMISES } from './promises.ts';
import { type FaultSummary, type RoundResult, summaries } from './results.ts';

export interface ReportContext {
  readonly startedAt: Date;
  readonly machine: ReturnType<typeof machine>;
}

const STYLE = `
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
  body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
  table { border-collapse: collapse; margin: 1rem 0 }
  td, th { padding: .15rem .9rem .15rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #8884 }
  td { font-variant-numeric: tabular-nums }
  .bad { color: #c00; font-weight: bold } .good { color: #080 }
  svg { width: 100%; height: auto; margin: .5rem 0 } svg text { font-size: 11px; fill: currentColor }
  rect { fill: #c60; opacity: .6 }`;
const MAX_LISTED = 200;
const ROW = 16;
const LABEL = 150;
const WIDTH = 1_000;
const BEGIN = '<!-- torture: begin -->';
const END = '<!-- torture: end -->';

/** Returns the report as one file without external resources. */
export function htmlReport(rounds: readonly RoundResult[], context: ReportContext): string {
  const count = rounds.reduce((sum, { violations }) => sum + violations.length, 0);
  const title = `Tollgate torture: ${count === 0 ? 'every promise kept' : `${count} violations`}`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title><style>${STYLE}</style></head><body>
<h1 class="${count === 0 ? 'good' : 'bad'}">${title}</h1>
<p>${escapeHtml(subtitle(rounds, context))}</p>
<h2>Promises</h2>
${htmlTable(['promise', 'violations'], promiseRows(rounds))}
<h2>Faults</h2>
${htmlTable(
  COLUMNS,
  summaries(rounds)
    .filter(({ count }) => count > 0)
    .map(cells),
)}
${rounds.map(roundSection).join('\n')}
</body></html>
`;
}

const COLUMNS = ['fault', 'promise', 'times', 'violations', 'recovery p50', 'recovery p99', 'seeds'];

function cells({ what, promise, count, violations, recoveryP50, recoveryP99, seeds }: FaultSummary): string[] {
  const shown = seeds.length > 6 ? `${seeds.slice(0, 6).join(', ')}, …` : seeds.join(', ') || '–';
  return [what, promise, String(count), String(violations), seconds(recoveryP50), seconds(recoveryP99), shown];
}

function seconds(ms: number | undefined): string {
  return ms === undefined ? '–' : `${(ms / 1_000).toFixed(1)} s`;
}

function subtitle(rounds: readonly RoundResult[], { startedAt, machine }: ReportContext): string {
  const total = (pick: (round: RoundResult) => number) => rounds.reduce((sum, round) => sum + pick(round), 0);
  return [
    `${startedAt.toISOString()}, ${machine.cpus} × ${machine.model}, Node ${machine.node}.`,
    `${rounds.length} rounds, ${total(({ seconds }) => seconds)} s: ${total(({ faults }) => faults.length)} faults,`,
    `${total(({ operations }) => sumOf(operations))} operations, ${total(({ events }) => events)} events received,`,
    `${total(({ records }) => records)} ledger records.`,
    'Recovery is the time from the healing to the end of the first run that began after it.',
  ].join(' ');
}

function sumOf(operations: RoundResult['operations']): number {
  return Object.values(operations).reduce((sum, { ok, failed, unknown }) => sum + ok + failed + unknown, 0);
}

function promiseRows(rounds: readonly RoundResult[]): string[][] {
  const all = rounds.flatMap(({ violations }) => violations);
  return Object.entries(PROMISES).map(([name, text]) => {
    return [text, String(all.filter(({ promise }) => promise === name).length)];
  });
}

function roundSection({ seed, violations, faults, operations, seconds: length }: RoundResult): string {
  const listed = violations.slice(0, MAX_LISTED).map(({ promise, what, at }) => [promise, seconds(at), what]);
  const counts = Object.entries(operations).map(([name, { ok, failed, unknown }]) => {
    return [name, String(ok), String(failed), String(unknown)];
  });
  return `<h2>Seed ${seed}</h2>
${timeline(faults, length)}
${htmlTable(['operation', 'ok', 'failed', 'unknown'], counts)}
${htmlTable(['promise', 'at', 'violation'], listed)}
${violations.length > MAX_LISTED ? `<p>${violations.length - MAX_LISTED} more violations.</p>` : ''}`;
}

/** One line per fault over the seconds of the round. */
function timeline(faults: RoundResult['faults'], length: number): string {
  const x = (ms: number) => LABEL + (ms / (length * 1_000 || 1)) * (WIDTH - LABEL);
  const bars = faults.map(({ kind, target, at, healedAt }, index) => {
    const y = index * ROW;
    const name = escapeHtml(target === kind ? kind : `${kind} ${target}`);
    const [left, width] = [x(at), Math.max(2, x(healedAt) - x(at))].map((value) => value.toFixed(1));
    const bar = `<rect x="${left}" y="${y + 3}" width="${width}" height="10"/>`;
    return `<text x="0" y="${y + 12}">${name}</text>${bar}`;
  });
  const box = `0 0 ${WIDTH} ${faults.length * ROW}`;
  return `<svg viewBox="${box}" role="img" aria-label="faults over time">${bars.join('')}</svg>`;
}

function htmlTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const row = (values: readonly string[], tag: string) => {
    return `<tr>${values.map((value) => `<${tag}>${escapeHtml(value)}</${tag}>`).join('')}</tr>`;
  };
  return `<table>${row(header, 'th')}${rows.map((values) => row(values, 'td')).join('')}</table>`;
}

/** Returns the rows of docs/reliability.md with a sentence about their origin. */
export function markdownRows(rounds: readonly RoundResult[], context: ReportContext): string {
  const rows = summaries(rounds).map((summary) => `| ${cells(summary).join(' | ')} |`);
  const header = [`| ${COLUMNS.join(' | ')} |`, `| ${COLUMNS.map(() => '---').join(' | ')} |`];
  return [subtitle(rounds, context), '', ...header, ...rows].join('\n');
}

/** Replaces the rows in the page between its two markers. */
export function updatePage(file: string, markdown: string): void {
  const page = readFileSync(file, 'utf8');
  const [before, rest] = page.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) throw new Error(`${file} has no markers for the rows`);
  writeFileSync(file, `${before}${BEGIN}\n\n${markdown}\n\n${END}${after}`);
}
