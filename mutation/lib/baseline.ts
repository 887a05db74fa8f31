import { ScriptMonitor } from '../../bench/lib/script-monitor.ts';
import { loadScripts, scriptName } from '../../src/redis/scripts.ts';
import type { TestRunner } from './test-runner.ts';

export interface CoveringTest {
  readonly file: string;
  readonly ms: number;
  /** Names of the scripts that the tests of the file execute. */
  readonly scripts: ReadonlySet<string>;
}

const TEST_FILE_TIMEOUT_MS = 180_000;

/**
 * Runs each test file without a mutant, and reads from Redis which scripts it executes.
 * @param report called with the failure of a file, which is then left out: it would kill every mutant
 */
export async function runBaseline(
  tests: readonly string[],
  runner: TestRunner,
  report: (text: string) => void,
): Promise<CoveringTest[]> {
  // A script that Redis has is reported by its digest; the first call of another one, by its text.
  await loadScripts(runner.redis);
  const monitor = await ScriptMonitor.start(runner.redisPort);
  try {
    const covering: CoveringTest[] = [];
    for (const file of tests) {
      const start = performance.now();
      const { failure } = await runner.run(file, undefined, TEST_FILE_TIMEOUT_MS);
      const scripts = new Set((await monitor.take()).keys());
      if (failure === undefined) covering.push({ file, ms: performance.now() - start, scripts });
      else report(`left out, fails without a mutant: ${file}: ${failure}`);
    }
    return covering.sort((a, b) => a.ms - b.ms);
  } finally {
    monitor.close();
  }
}

/** Returns the tests that execute one of the scripts; all for a file that is no script. */
export function testsOf(scripts: readonly string[], tests: readonly CoveringTest[]): CoveringTest[] {
  const names = scripts.map((path) => scriptName(path.split('/').at(-1) ?? ''));
  return names.length === 0 ? [...tests] : tests.filter((test) => names.some((name) => test.scripts.has(name)));
}
