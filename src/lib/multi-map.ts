/**
 * Values by key, in order of insertion. Most keys have one value, which needs no collection of its own: a `Set` would
 * take 200 bytes per key.
 */
export class MultiMap<Key, Value> {
  /** The lists are never changed, so that a loop over one of them is safe while values are added and removed. */
  readonly #lists = new Map<Key, readonly Value[]>();

  /** Adds a value that the key does not have yet. */
  add(key: Key, value: Value): void {
    const list = this.#lists.get(key);
    this.#lists.set(key, list ? [...list, value] : [value]);
  }

  delete(key: Key, value: Value): void {
    const rest = this.#lists.get(key)?.filter((one) => one !== value);
    if (rest && rest.length > 0) this.#lists.set(key, rest);
    else this.#lists.delete(key);
  }

  /** A snapshot. */
  get(key: Key): readonly Value[] {
    return this.#lists.get(key) ?? [];
  }

  keys(): Iterable<Key> {
    return this.#lists.keys();
  }
}
