/**
 * What a composition root has opened, closed in reverse order. Each resource is registered on the line after the one
 * that creates it, so that a start that fails half-way also closes what it had opened.
 */
export class Closers {
  readonly #stack: { name: string; close: () => unknown }[] = [];
  #closing: Promise<void> | undefined;

  add(name: string, close: () => unknown): void {
    this.#stack.push({ name, close });
  }

  /** Runs every closer, newest first, whatever the others do. Idempotent. @throws AggregateError naming what failed. */
  close(): Promise<void> {
    this.#closing ??= this.#run();
    return this.#closing;
  }

  async #run(): Promise<void> {
    const failures: Error[] = [];
    for (const { name, close } of this.#stack.reverse()) {
      try {
        await close();
      } catch (error) {
        failures.push(new Error(`closing ${name}`, { cause: error }));
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, failures.map((failure) => failure.message).join('; '));
  }
}
