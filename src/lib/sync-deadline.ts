import { createContext, Script } from 'node:vm';

/**
 * Runs code that never waits, for so long and no longer: for what somebody else's data can make slow (a regular expression
 * that backtracks, a schema that refers to itself). It costs about 0.1 ms a run, for the thread that watches.
 */
export class SyncDeadline {
  readonly #realm = createContext({ work: undefined });
  readonly #script = new Script('work()');

  /** @throws Error ERR_SCRIPT_EXECUTION_TIMEOUT after `timeoutMs`; else whatever `work` throws */
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
    if (!result) throw new Error('the work has given nothing');
    return result.value;
  }
}
