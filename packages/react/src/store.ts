import { useState, useSyncExternalStore } from 'react';

/** An immutable snapshot and its subscribers, as `useSyncExternalStore` requires. */
export class Store<Snapshot extends object> {
  #snapshot: Snapshot;
  readonly #listeners = new Set<() => void>();
  readonly #start: () => () => void;
  #stop: () => void = () => {};

  /** @param start runs with the first subscriber; what it returns runs after the last one */
  constructor(initial: Snapshot, start: () => () => void = () => () => {}) {
    this.#snapshot = initial;
    this.#start = start;
  }

  readonly get = (): Snapshot => this.#snapshot;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) this.#stop = this.#start();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#stop();
    };
  };

  update(changes: Partial<Snapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...changes };
    for (const listener of [...this.#listeners]) listener();
  }
}

/** The server renders the initial snapshot, because stores start after the first commit. */
export function useStore<Snapshot extends object>(store: Store<Snapshot>): Snapshot {
  return useSyncExternalStore(store.subscribe, store.get, store.get);
}

/** Creates a value and keeps it until one of `keys` changes. React may drop what `useMemo` holds at any time. */
export function useKept<Value>(create: () => Value, ...keys: readonly unknown[]): Value {
  const [kept, setKept] = useState(() => ({ value: create(), keys }));
  if (kept.keys.every((key, index) => Object.is(key, keys[index]))) return kept.value;
  const next = { value: create(), keys };
  setKept(next);
  return next.value;
}
