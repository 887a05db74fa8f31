import jsonPatch, { type Operation } from 'fast-json-patch';

/**
 * The shared state of an AG-UI thread, as the agent changed it last. Patches are applied when the state is needed, for
 * a further request; most turns need none.
 */
export class RemoteState {
  #value: unknown;
  #patches: (readonly unknown[])[] = [];

  constructor(initial: unknown) {
    this.#value = structuredClone(initial ?? {});
  }

  get value(): unknown {
    for (const patch of this.#patches.splice(0)) this.#apply(patch as Operation[]);
    return this.#value;
  }

  replace(value: unknown): void {
    this.#value = structuredClone(value ?? {});
    this.#patches = [];
  }

  /** Applies a JSON Patch (RFC 6902). One that does not apply changes nothing, as in the clients of AG-UI. */
  patch(delta: readonly unknown[]): void {
    this.#patches.push(delta);
  }

  #apply(patch: Operation[]): void {
    try {
      // One operation applies or does not; several are tried on a copy.
      this.#value = jsonPatch.applyPatch(this.#value, patch, true, patch.length === 1, true).newDocument;
    } catch {
      // Clients receive the patch and skip it as well.
    }
  }
}
