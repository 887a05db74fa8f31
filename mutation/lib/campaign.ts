import type { Redis } from 'ioredis';
import { type CoveringTest, runBaseline, testsOf } from './baseline.ts';
import { withChange } from './change.ts';
import { type CoreModule, scriptsWith } from './modules.ts';
import { type Mutant, mutantsOf, readSource, sampleOf } from './mutants.ts';
import type { Result, Results } from './results.ts';
import type { MutatedFile, TestResult } from './test-process.ts';
import { TestRunner } from './test-runner.ts';

export interface CampaignOptions {
  /** Mutants per module; undefined for all. */
  readonly sample: number | undefined;
  readonly seed: string;
  readonly processes: number;
  /** No module starts after this time, and no mutant. */
  readonly until: number;
  /** Also runs mutants again that were not killed. */
  readonly again: boolean;
  readonly print: (line: string) => void;
}

const REPEATED = /survived|untested|unclear/;
/** A mutant that makes a test wait for ever costs this time, and four times that of the test file. */
const MIN_TIMEOUT_MS = 15_000;
/** Runs of a test file without the mutant, until it passes. */
const ATTEMPTS = 3;

/** Returns the mutants of a module that its sample contains, and the number that exist. */
export async function selectMutants({ files }: CoreModule, { sample, seed }: CampaignOptions) {
  const mutants = (await Promise.all(files.map(mutantsOf))).flat();
  return { existing: mutants.length, selected: sample === undefined ? mutants : sampleOf(mutants, sample, seed) };
}

/** Runs the mutants of a module that have no result yet. */
export async function runModule(module: CoreModule, results: Results, options: CampaignOptions): Promise<void> {
  const isOpen = ({ id }: Mutant) =>
    !results.get(id) || (options.again && REPEATED.test(results.get(id)?.outcome ?? ''));
  const queue = (await selectMutants(module, options)).selected.filter(isOpen);
  if (queue.length === 0) return;
  const runners = await Promise.all(Array.from({ length: options.processes }, () => TestRunner.start()));
  try {
    const [first] = runners;
    if (!first) return;
    const tests = await runBaseline(module.tests, first, options.print);
    const run = new ModuleRun(module, tests, results, options);
    await Promise.all(runners.map((runner) => run.runQueue(queue, runner)));
  } finally {
    await Promise.all(runners.map((runner) => runner.close()));
  }
}

type Ended = Pick<Result, 'outcome' | 'by' | 'failure'>;

class ModuleRun {
  readonly #module: CoreModule;
  readonly #tests: readonly CoveringTest[];
  readonly #results: Results;
  readonly #options: CampaignOptions;
  /** Files that the tests execute: they fail when the file throws. */
  readonly #executed = new Map<string, Promise<boolean>>();
  /** Test files that killed a mutant of a file: they run first with its next mutant. */
  readonly #killers = new Map<string, Set<string>>();

  constructor(module: CoreModule, tests: readonly CoveringTest[], results: Results, options: CampaignOptions) {
    this.#module = module;
    this.#tests = tests;
    this.#results = results;
    this.#options = options;
  }

  async runQueue(queue: Mutant[], runner: TestRunner): Promise<void> {
    for (let mutant = queue.shift(); mutant && Date.now() < this.#options.until; mutant = queue.shift()) {
      const result = await this.#runMutant(mutant, runner);
      this.#results.add({ ...mutant, module: this.#module.name, ...result });
      this.#options.print(`${result.outcome} ${mutant.file}:${mutant.line} ${mutant.operator} (${queue.length} left)`);
    }
  }

  async #runMutant(mutant: Mutant, runner: TestRunner): Promise<Ended> {
    const { file } = mutant;
    const scripts = file.endsWith('.lua') ? scriptsWith(file, readSource) : [];
    if (scripts.length > 0 && !(await compiles(mutant, scripts, runner.redis))) return { outcome: 'invalid' };
    const covering = this.#inOrder(file, testsOf(mutant, scripts, this.#tests));
    const isTested = covering.length > 0 && (await this.#executes(file, covering, runner));
    if (!isTested) return { outcome: 'untested' };
    const mutated = { file, source: withChange(readSource(file), mutant) };
    let unclear: Ended | undefined;
    for (const test of covering) {
      const result = await runWithMutant(test, mutated, runner);
      const ended = { by: test.file, failure: result.failure?.slice(0, 300) };
      if (result.unclear) unclear ??= { outcome: 'unclear', ...ended };
      else if (result.failure !== undefined) {
        this.#killersOf(file).add(test.file);
        return { outcome: result.timedOut ? 'timeout' : 'killed', ...ended };
      }
    }
    return unclear ?? { outcome: 'survived' };
  }

  #inOrder(file: string, tests: readonly CoveringTest[]): CoveringTest[] {
    const killers = this.#killersOf(file);
    const rank = (test: CoveringTest) => test.ms * (killers.has(test.file) ? 0.2 : 1);
    return tests.toSorted((a, b) => rank(a) - rank(b));
  }

  #killersOf(file: string): Set<string> {
    const killers = this.#killers.get(file) ?? new Set<string>();
    this.#killers.set(file, killers);
    return killers;
  }

  /** Whether a test fails when the file throws. Without this check a mutant that is not loaded would be a survivor. */
  #executes(file: string, covering: readonly CoveringTest[], runner: TestRunner): Promise<boolean> {
    const known = this.#executed.get(file);
    if (known) return known;
    const executed = failsFor(covering, { file, source: throwing(file) }, runner);
    this.#executed.set(file, executed);
    return executed;
  }
}

async function failsFor(tests: readonly CoveringTest[], mutated: MutatedFile, runner: TestRunner): Promise<boolean> {
  for (const test of tests) {
    if ((await runner.run({ test: test.file, mutant: mutated }, timeoutOf(test))).failure !== undefined) return true;
  }
  return false;
}

/**
 * Runs a test file with a mutant. A loaded machine fails tests too: a failure that its load explains counts if the file
 * then passes without the mutant and fails again with it. It is unclear if the file fails without the mutant each time.
 */
async function runWithMutant(
  test: CoveringTest,
  mutated: MutatedFile,
  runner: TestRunner,
): Promise<TestResult & { readonly unclear?: true }> {
  const run = (mutant?: MutatedFile) => runner.run({ test: test.file, mutant }, timeoutOf(test));
  const result = await run(mutated);
  if (!isSuspect(result)) return result;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    if ((await run()).failure === undefined) return run(mutated);
  }
  return { ...result, unclear: true };
}

function timeoutOf(test: CoveringTest): number {
  return MIN_TIMEOUT_MS + 4 * test.ms;
}

function throwing(file: string): string {
  return `${file.endsWith('.lua') ? "error('mutant')" : "throw new Error('mutant');"}\n${readSource(file)}`;
}

/** Whether the failure may come from the load of the machine: a time that has passed, or a lost connection. */
function isSuspect({ failure = '', timedOut }: TestResult): boolean {
  return (
    timedOut === true ||
    /no end after|did not come true within|no answer within|Redis is not usable|timed out|Connection is closed/i.test(
      failure,
    )
  );
}

/** Whether Redis compiles the first script that contains the mutant. */
async function compiles(mutant: Mutant, [script = mutant.file]: readonly string[], client: Redis): Promise<boolean> {
  const read = (file: string) => (file === mutant.file ? withChange(readSource(file), mutant) : readSource(file));
  const include = (_line: string, name: string) => read(`src/redis/lua/include/${name}.lua`);
  try {
    await client.script('LOAD', read(script).replaceAll(/^--@include (\w+)$/gm, include));
    return true;
  } catch {
    return false;
  }
}
