import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { ExecutedCode } from './executed-code.ts';

export interface MutatedFile {
  readonly file: string;
  readonly source: string;
}

export interface TestRequest {
  /** A test file, relative to the project. */
  readonly test: string;
  readonly mutant?: MutatedFile | undefined;
  /** Whether the result says which code was executed. */
  readonly isMeasured?: boolean;
}

/** Empty if all tests of the file pass. */
export interface TestResult {
  readonly failure?: string;
  readonly timedOut?: boolean;
  readonly executed?: ExecutedCode;
}

/** A process that ran this many requests is replaced: Node never frees the modules of earlier requests. */
const REQUESTS_PER_PROCESS = 100;

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
    const onExit = (code: number | null) => result.resolve({ failure: `the process ends with exit code ${code}` });
    const onTimeout = () => result.resolve({ failure: `no end after ${timeoutMs} ms`, timedOut: true });
    const timer = setTimeout(onTimeout, timeoutMs);
    child.once('message', onMessage).once('exit', onExit).send(request);
    const outcome = await result.promise;
    clearTimeout(timer);
    child.off('message', onMessage).off('exit', onExit);
    // Timers and connections of a failed test may outlive it and disturb the next mutant.
    if (outcome.timedOut || !child.connected) await this.close();
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
