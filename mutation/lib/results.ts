import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Mutant } from './mutants.ts';

/**
 * `invalid`: Redis cannot compile the script. `untested`: no test of the module executes the script.
 * `unclear`: a test failed in a way that the load of the machine explains too.
 */
export type Outcome = 'killed' | 'timeout' | 'survived' | 'invalid' | 'untested' | 'unclear';

export interface Result extends Mutant {
  readonly module: string;
  readonly outcome: Outcome;
  /** The test file that failed, and its failure. */
  readonly by?: string | undefined;
  readonly failure?: string | undefined;
}

/** The results of all runs in a JSON file, so that an interrupted run continues where it ended. */
export class Results {
  readonly #file: string;
  readonly #byId: Map<string, Result>;

  constructor(file: string) {
    this.#file = file;
    const stored: Result[] = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : [];
    this.#byId = new Map(stored.map((result) => [result.id, result]));
  }

  get(id: string): Result | undefined {
    return this.#byId.get(id);
  }

  add(result: Result): void {
    this.#byId.set(result.id, result);
    mkdirSync(dirname(this.#file), { recursive: true });
    writeFileSync(`${this.#file}.new`, JSON.stringify([...this.#byId.values()], null, 1));
    renameSync(`${this.#file}.new`, this.#file);
  }
}

/** The rows of one module in docs/mutation-testing.md: mutants run of those that exist, and the share that was killed. */
export function scoreRow(module: string, existing: number, results: readonly Result[]): string {
  const count = (...outcomes: Outcome[]) => results.filter(({ outcome }) => outcomes.includes(outcome)).length;
  const [killed, survived, untested] = [count('killed', 'timeout'), count('survived'), count('untested')];
  const unclear = count('unclear');
  const valid = killed + survived + untested;
  const score = valid === 0 ? '–' : `${Math.round((100 * killed) / valid)} %`;
  return `| ${module} | ${existing} | ${valid + unclear} | ${killed} | ${survived} | ${untested} | ${unclear} | ${score} |`;
}

export function survivorLine({ file, line, operator, original, replacement, outcome }: Result): string {
  const short = (text: string) => (text.length > 70 ? `${text.slice(0, 70)}…` : text).replaceAll(/\s+/g, ' ');
  return `${outcome}  ${file}:${line}  ${operator}: ${short(original)} → ${short(replacement) || '(removed)'}`;
}
