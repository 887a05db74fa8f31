import { join } from 'node:path';
import { ScriptMonitor } from '../../bench/lib/script-monitor.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { scriptName } from '../../src/redis/scripts.ts';
import { type ExecutedCode, isExecuted } from './executed-code.ts';
import type { Mutant } from './mutants.ts';
import type { TestProcess } from './test-process.ts';

export interface CoveringTest {
  readonly file: string;
  readonly ms: number;
  /** Names of the scripts that the tests of the file execute. */
  readonly scripts: ReadonlySet<string>;
  /** TypeScript that the tests of the file execute. */
  readonly executed: ExecutedCode;
}

const TEST_FILE_TIMEOUT_MS = 180_000;

/**
 * Runs each test file without a mutant, and reads which TypeScript it executes, and from Redis which scripts.
 * @param report called with the failure of a file, which is then left out: it would kill every mutant
 */
export async function runBaseline(
  tests: readonly string[],
  process: TestProcess,
  redisPort: number,
  report: (text: string) => void,
): Promise<CoveringTest[]> {
  const monitor = await ScriptMonitor.start(redisPort);
  try {
    const covering: CoveringTest[] = [];
    for (const file of tests) {
      const start = performance.now();
      const request = { tests: [file], isMeasured: true };
      const { failed, failure, executed = {} } = await process.run(request, TEST_FILE_TIMEOUT_MS);
      const scripts = new Set((await monitor.take()).keys());
      if (failed === undefined) covering.push({ file, ms: performance.now() - start, scripts, executed });
      else report(`left out, fails without a mutant: ${file}: ${failure ?? 'timeout'}`);
    }
    return covering.sort((a, b) => a.ms - b.ms);
  } finally {
    monitor.close();
  }
}

/** Returns the tests that execute the code of a mutant: one of the scripts that contain it, or its position. */
export function testsOf(mutant: Mutant, scripts: readonly string[], tests: readonly CoveringTest[]): CoveringTest[] {
  const path = join(PROJECT_ROOT, mutant.file);
  if (scripts.length === 0) return tests.filter(({ executed }) => isExecuted(executed, path, mutant.start));
  const names = scripts.map((script) => scriptName(script.split('/').at(-1) ?? ''));
  return tests.filter((test) => names.some((name) => test.scripts.has(name)));
}
