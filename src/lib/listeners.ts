/** More would be a leak: listeners are wired once, by a composition root. */
const MAX_LISTENERS = 32;

/**
 * Who wants to hear of something. Each hears everything in the order it was told; one that throws is reported and
 * disturbs neither the others nor whoever told it.
 */
export class Listeners<Event> {
  readonly #failed: (error: unknown) => void;
  readonly #listeners = new Set<(event: Event) => void>();

  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  /** @returns removes it again @throws RangeError beyond 32 */
  add(listener: (event: Event) => void): () => void {
    if (this.#listeners.size >= MAX_LISTENERS) throw new RangeError(`more than ${MAX_LISTENERS} listeners`);
    // A function of its own: the same one added twice hears twice, and is removed once at a time.
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
