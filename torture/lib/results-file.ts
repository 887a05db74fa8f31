import { readFileSync, writeFileSync } from 'node:fs';
import type { ReportContext } from './report.ts';
import type { RoundResult } from './results.ts';

/** The result of one round with its origin, so that a campaign can be run in parts. */
export interface SavedResult {
  readonly startedAt: string;
  readonly machine: ReportContext['machine'];
  readonly result: RoundResult;
}

/** Writes a result beside its history: `seed-7.jsonl` gets `seed-7.json`. */
export function saveResult(historyFile: string, result: RoundResult, { startedAt, machine }: ReportContext): void {
  const saved: SavedResult = { startedAt: startedAt.toISOString(), machine, result };
  writeFileSync(historyFile.replace(/\.jsonl$/, '.json'), `${JSON.stringify(saved)}\n`);
}

/** Reads saved results. @throws Error for a file that is none */
export function readResults(files: readonly string[]): SavedResult[] {
  return files.map((file) => {
    const saved = JSON.parse(readFileSync(file, 'utf8')) as Partial<SavedResult>;
    if (saved.result === undefined || saved.machine === undefined || saved.startedAt === undefined) {
      throw new Error(`${file} is not the result of a round`);
    }
    return { startedAt: saved.startedAt, machine: saved.machine, result: saved.result };
  });
}

/** Returns the rounds of several invocations in the order of their seeds, and the begin of the first one. */
export function merged(saved: readonly SavedResult[]): { rounds: RoundResult[]; context: ReportContext } {
  const [first] = saved.toSorted((a, b) => a.startedAt.localeCompare(b.startedAt));
  if (!first) throw new Error('there is no result to merge');
  const other = saved.find(({ machine }) => machine.model !== first.machine.model);
  if (other) throw new Error(`the results are of two machines: ${first.machine.model} and ${other.machine.model}`);
  // One seed may have several rounds, for example on other kinds of Redis.
  const twice = saved.find(({ startedAt }, index) => saved.findIndex((one) => one.startedAt === startedAt) < index);
  if (twice) throw new Error(`the round of seed ${twice.result.seed} at ${twice.startedAt} is given twice`);
  const rounds = saved.map(({ result }) => result).toSorted((a, b) => a.seed - b.seed);
  return { rounds, context: { startedAt: new Date(first.startedAt), machine: first.machine } };
}
