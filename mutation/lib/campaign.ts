import { Redis } from 'ioredis';
import { type RedisServer, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { type CoveringTest, runBaseline, testsOf } from './baseline.ts';
import { withChange } from './change.ts';
import { type CoreModule, scriptsWith } from './modules.ts';
import { type Mutant, mutantsOf, readSource, sampleOf } from './mutants.ts';
import type { Outcome, Results } from './results.ts';
import { TestProcess, type TestResult } from './test-process.ts';

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
/** A mutant that makes a test wait for ever costs this time, and four times that of the tests. */
const MIN_TIMEOUT_MS = 20_000;

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
  const redis = await startRedisServer();
  try {
    await new ModuleRun(module, results, redis, options).run(queue);
  } finally {
    await redis.stop();
  }
}

class ModuleRun {
  readonly #module: CoreModule;
  readonly #results: Results;
  readonly #redis: RedisServer;
  readonly #options: CampaignOptions;
  /** Files that the tests execute: they fail when the file throws. */
  readonly #executed = new Map<string, Promise<boolean>>();
  /** Test files that killed a mutant of a file: they run first with its next mutant. */
  readonly #killers = new Map<string, Set<string>>();

  constructor(module: CoreModule, results: Results, redis: RedisServer, options: CampaignOptions) {
    this.#module = module;
    this.#results = results;
    this.#redis = redis;
    this.#options = options;
  }

  async run(queue: Mutant[]): Promise<void> {
    const env = { ...process.env, TEST_REDIS_URL: this.#redis.url };
    const processes = Array.from({ length: this.#options.processes }, () => new TestProcess(env));
    const client = new Redis(this.#redis.url);
    try {
      const [first] = processes;
      if (!first) return;
      const tests = await runBaseline(this.#module.tests, first, this.#redis.port, this.#options.print);
      await Promise.all(processes.map((process) => this.#runQueue(queue, process, tests, client)));
    } finally {
      client.disconnect();
      await Promise.all(processes.map((process) => process.close()));
    }
  }

  async #runQueue(queue: Mutant[], process: TestProcess, tests: readonly CoveringTest[], client: Redis) {
    for (let mutant = queue.shift(); mutant && Date.now() < this.#options.until; mutant = queue.shift()) {
      const result = await this.#runMutant(mutant, process, tests, client);
      this.#results.add({ ...mutant, module: this.#module.name, ...result });
      this.#options.print(`${result.outcome} ${mutant.file}:${mutant.line} ${mutant.operator} (${queue.length} left)`);
    }
  }

  async #runMutant(mutant: Mutant, process: TestProcess, tests: readonly CoveringTest[], client: Redis) {
    const { file } = mutant;
    const source = withChange(readSource(file), mutant);
    const scripts = file.endsWith('.lua') ? scriptsWith(file, readSource) : [];
    if (scripts.length > 0 && !(await compiles(mutant, scripts, client))) return { outcome: 'invalid' as const };
    const killers = this.#killers.get(file) ?? new Set<string>();
    this.#killers.set(file, killers);
    const rank = (test: CoveringTest) => test.ms * (killers.has(test.file) ? 0.2 : 1);
    const covering = testsOf(mutant, scripts, tests).sort((a, b) => rank(a) - rank(b));
    const isTested = covering.length > 0 && (await this.#executes(file, covering, process));
    if (!isTested) return { outcome: 'untested' as const };
    const timeoutMs = MIN_TIMEOUT_MS + 4 * covering.reduce((sum, { ms }) => sum + ms, 0);
    const request = { tests: covering.map((test) => test.file), mutant: { file, source } };
    const result = await process.run(request, timeoutMs);
    if (isSuspect(result)) {
      // A loaded machine fails tests too. The failure counts if it is repeated after a run without the mutant that passes.
      const without = await process.run({ tests: request.tests }, timeoutMs);
      const again = without.failed === undefined ? await process.run(request, timeoutMs) : {};
      if (again.failed === undefined) return { outcome: 'unclear' as const, failure: result.failure?.slice(0, 300) };
    }
    if (result.failed?.startsWith('test/')) killers.add(result.failed);
    return { outcome: outcomeOf(result), by: result.failed, failure: result.failure?.slice(0, 300) };
  }

  /** Whether the tests fail when the file throws. Without this check a mutant that is not loaded would be a survivor. */
  #executes(file: string, covering: readonly CoveringTest[], process: TestProcess): Promise<boolean> {
    const known = this.#executed.get(file);
    if (known) return known;
    const request = { tests: covering.map((test) => test.file), mutant: { file, source: throwing(file) } };
    const executed = process.run(request, 10 * MIN_TIMEOUT_MS).then(({ failed }) => failed !== undefined);
    this.#executed.set(file, executed);
    return executed;
  }
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

function outcomeOf({ failed, timedOut }: TestResult): Outcome {
  if (timedOut) return 'timeout';
  return failed === undefined ? 'survived' : 'killed';
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
