import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeLeaks, findLeaks, RECORDS_VARIABLE } from './lib/leaks.ts';
import { PROJECT_ROOT } from './lib/processes.ts';
import { jestArguments } from './lib/test-arguments.ts';
import { runScript } from './lib/user-error.ts';

/**
 * Runs jest on all tests, or on the files that the arguments name. `--project unit` selects a project of jest.config.mjs.
 * Afterwards it searches the logs of all started processes for the secrets of the run; one of them fails the run.
 */
await runScript(async () => {
  const jest = join(PROJECT_ROOT, 'node_modules/jest/bin/jest.js');
  // Jest runs ES modules in V8's module API, which Node hides behind a flag and a warning.
  const nodeFlags = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
  const records = mkdtempSync(join(tmpdir(), 'tollgate-test-'));
  const child = spawn(process.execPath, [...nodeFlags, jest, ...jestArguments(process.argv.slice(2))], {
    cwd: PROJECT_ROOT,
    stdio: 'inherit',
    env: { ...process.env, [RECORDS_VARIABLE]: records },
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exit, signal) => resolve(exit ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
  const leaks = describeLeaks(findLeaks(records));
  rmSync(records, { recursive: true });
  // The last line of the standard output is the count of tests.
  if (leaks !== undefined) process.stderr.write(leaks);
  return leaks === undefined ? code : code || 1;
});
