import { createContext, Script } from 'node:vm';

/**
 * Runs synchronous code with a deadline, where untrusted data can make it slow (a backtracking regular expression, a
 * self-referencing schema). The watchdog thread costs about 0.1 ms per run.
 */
export class SyncDeadline {
  readonly #realm = createContext({ work: undefined });
  readonly #script = new Script('work()');

  /** @throws Error ERR_SCRIPT_EXECUTION_TIMEOUT after `timeoutMs`; otherwise the error of `work` */
  run<T>(timeoutMs: number, work: () => T): T {
    let result: { readonly value: T } | undefined;
    this.#realm.work = () => {
      result = { value: work() };
    };
    try {
      this.#script.runInContext(this.#realm, { timeout: timeoutMs });
    } finally {
      this.#realm.work = undefined;
    }
    if (!result) throw new Error('the script did not call the work');
    return result.value;
  }
}
