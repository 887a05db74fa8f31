/**
 * Two or more values of one key. Never changed, so that a loop over them is safe while values are added and removed.
 */
class Several<Value> {
  readonly list: readonly Value[];

  constructor(list: readonly Value[]) {
    this.list = list;
  }
}

/**
 * Values by key, in order of insertion. Most keys have one value, which is stored without a collection: a `Set` would
 * take 200 bytes per key.
 */
export class MultiMap<Key, Value extends object> {
  readonly #values = new Map<Key, Value | Several<Value>>();

  /** Adds a value that the key does not have yet. */
  add(key: Key, value: Value): void {
    const before = this.get(key);
    this.#values.set(key, before.length === 0 ? value : new Several([...before, value]));
  }

  delete(key: Key, value: Value): void {
    const rest = this.get(key).filter((one) => one !== value);
    const [first] = rest;
    if (first === undefined) this.#values.delete(key);
    else this.#values.set(key, rest.length === 1 ? first : new Several(rest));
  }

  /** A snapshot. */
  get(key: Key): readonly Value[] {
    const found = this.#values.get(key);
    if (found === undefined) return [];
    return found instanceof Several ? found.list : [found];
  }

  keys(): Iterable<Key> {
    return this.#values.keys();
  }
}
