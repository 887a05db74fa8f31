/** Bound that detects a leak: a composition root adds listeners only once. */
const MAX_LISTENERS = 32;

/**
 * Set of event listeners. Each one receives all events in order. An error of a listener is reported; it affects neither
 * the other listeners nor the emitter.
 */
export class Listeners<Event> {
  readonly #failed: (error: unknown) => void;
  readonly #listeners = new Set<(event: Event) => void>();

  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  /** @returns a function that removes the listener @throws RangeError beyond 32 listeners */
  add(listener: (event: Event) => void): () => void {
    if (this.#listeners.size >= MAX_LISTENERS) throw new RangeError(`more than ${MAX_LISTENERS} listeners`);
    // A separate function per call, so that a listener that is added twice is called twice and removed individually.
    const own = (event: Event) => listener(event);
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }

  emit(event: Event): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(event);
      } catch (error) {
        this.#failed(error);
      }
    }
  }
}
