import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { join } from 'node:path';
import { PROJECT_ROOT } from './lib/processes.ts';
import { jestArguments } from './lib/test-arguments.ts';
import { runScript } from './lib/user-error.ts';

/** Runs jest on all tests, or on the files that the arguments name. `--project unit` selects a project of jest.config.mjs. */
await runScript(async () => {
  const jest = join(PROJECT_ROOT, 'node_modules/jest/bin/jest.js');
  // Jest runs ES modules in V8's module API, which Node hides behind a flag and a warning.
  const nodeFlags = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
  const child = spawn(process.execPath, [...nodeFlags, jest, ...jestArguments(process.argv.slice(2))], {
    cwd: PROJECT_ROOT,
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
});
