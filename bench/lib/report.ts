import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { Command } from 'commander';
import { table } from '../../scripts/lib/table.ts';

export interface BenchOptions {
  /** A smoke run: it takes seconds, and its numbers mean nothing. */
  readonly quick: boolean;
  /** Names of the measurements that are made; default: all. */
  readonly only?: readonly string[] | undefined;
}

export interface ReportTable {
  readonly title: string;
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** The result of a benchmark: tables for people, data for programs. */
export interface Report {
  readonly name: string;
  /** A description of the measurement, needed to read the numbers. */
  readonly about: string;
  readonly tables: readonly ReportTable[];
  readonly data: unknown;
}

export type Benchmark = (options: BenchOptions) => Promise<Report>;

export function printReport({ name, about, tables }: Report): void {
  const sections = tables.map(({ title, header, rows }) => `${title}\n${table(header, rows, header.slice(1))}`);
  process.stdout.write(`\n== ${name}\n${about}\n\n${sections.join('\n\n')}\n`);
}

/** Runs benchmarks one after the other, as a program with `--quick` and `--json`. */
export async function runAsProgram(benchmarks: readonly Benchmark[]): Promise<void> {
  const command = new Command(`npm run ${process.env.npm_lifecycle_event ?? 'bench'} --`)
    .option('--quick', 'a smoke run; its numbers mean nothing', false)
    .option('--json <file>', 'write the data to this file')
    .option('--only <names>', 'the measurements, separated by commas (bench:growth)')
    .parse();
  const { quick, json, only } = command.opts<{ quick: boolean; json?: string; only?: string }>();
  const reports: Report[] = [];
  process.stdout.write(`${machine()}${quick ? '; a smoke run, not a measurement' : ''}\n`);
  for (const benchmark of benchmarks) {
    const report = await benchmark({ quick, only: only?.split(',') });
    printReport(report);
    reports.push(report);
    // Written after each benchmark, so that a later failure does not lose earlier numbers.
    if (json)
      writeFileSync(json, JSON.stringify({ at: new Date().toISOString(), machine: machine(), reports }, null, 2));
  }
}

export function machine(): string {
  const [cpu] = cpus();
  const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  return `${cpus().length} cores (${cpu?.model}), Linux ${kernel}, Node ${process.version}, everything over loopback`;
}

/** Progress goes to standard error, so that the tables can be redirected. */
export function progress(text: string): void {
  process.stderr.write(`  ${text}\n`);
}
