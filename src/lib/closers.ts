/**
 * Closes the resources of a composition root in reverse order. Each resource is registered directly after its creation,
 * so that a failed start also closes what it has opened.
 *
 * Not an `AsyncDisposableStack`: its errors do not name the resource, and a second caller of `disposeAsync` does not
 * wait for the first one.
 */
export class Closers {
  readonly #stack: { name: string; close: () => unknown }[] = [];
  #closing: Promise<void> | undefined;

  add(name: string, close: () => unknown): void {
    this.#stack.push({ name, close });
  }

  /**
   * Runs all closers, newest first, even if some fail. Idempotent.
   * @throws AggregateError that names the failed ones
   */
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
