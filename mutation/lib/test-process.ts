import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { ExecutedCode } from './executed-code.ts';

export interface TestRequest {
  /** Test files, relative to the project. */
  readonly tests: readonly string[];
  readonly mutant?: { readonly file: string; readonly source: string } | undefined;
  /** Whether the result says which code was executed. */
  readonly isMeasured?: boolean;
}

/** Empty if all tests pass. */
export interface TestResult {
  readonly failed?: string;
  readonly failure?: string;
  readonly timedOut?: boolean;
  readonly executed?: ExecutedCode;
}

/** A process that ran this many requests is replaced: Node never frees the modules of earlier requests. */
const REQUESTS_PER_PROCESS = 60;

/** Runs tests with mutants in one child process. A mutant that never ends, or that ends its process, costs the process. */
export class TestProcess {
  readonly #env: NodeJS.ProcessEnv;
  #child: ChildProcess | undefined;
  #requests = 0;

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  async run(request: TestRequest, timeoutMs: number): Promise<TestResult> {
    if (this.#requests >= REQUESTS_PER_PROCESS) await this.close();
    const child = this.#start();
    this.#requests += 1;
    const result = Promise.withResolvers<TestResult>();
    const onMessage = (message: unknown) => result.resolve(message as TestResult);
    const onExit = (code: number | null) => result.resolve({ failed: 'process', failure: `exit code ${code}` });
    const timer = setTimeout(() => result.resolve({ failed: 'timeout', timedOut: true }), timeoutMs);
    child.once('message', onMessage).once('exit', onExit).send(request);
    const outcome = await result.promise;
    clearTimeout(timer);
    child.off('message', onMessage).off('exit', onExit);
    // Timers and connections of a failed test may outlive it and disturb the next mutant.
    if (outcome.timedOut || outcome.failed === 'process') await this.close();
    return outcome;
  }

  async close(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    this.#requests = 0;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  #start(): ChildProcess {
    this.#child ??= fork(join(PROJECT_ROOT, 'mutation/worker.ts'), {
      env: this.#env,
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    return this.#child;
  }
}
