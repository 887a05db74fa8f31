import jsonPatch, { type Operation } from 'fast-json-patch';
import { isDeeper } from '../../lib/json-depth.ts';
import { asObject, asText } from '../model/json.ts';

/** Characters of JSON that the operations `copy` of one turn add. Each can double the state. */
const MAX_COPIED = 262_144;
/** Levels of the state. Its serialisation is recursive. */
const MAX_DEPTH = 128;
/** Patches that fail after their first operation. Each makes all patches of the turn be applied again. */
const MAX_HALF_FAILED = 8;

/**
 * The shared state of an AG-UI thread, as the agent changed it last. Patches are applied when the state is needed, for
 * a further request; most turns need none.
 */
export class RemoteState {
  #value: unknown;
  #patches: (readonly unknown[])[] = [];
  #copied = 0;

  constructor(initial: unknown) {
    this.#value = structuredClone(initial ?? {});
  }

  get value(): unknown {
    const patches = this.#patches.splice(0);
    if (patches.length > 0) this.#value = this.#patched(patches);
    return this.#value;
  }

  replace(value: unknown): void {
    this.#value = structuredClone(value ?? {});
    this.#patches = [];
  }

  /**
   * Applies a JSON Patch (RFC 6902). One that does not apply changes nothing, as in the clients of AG-UI; neither does one
   * that exceeds a bound.
   */
  patch(delta: readonly unknown[]): void {
    this.#patches.push(delta);
  }

  /** Applies all patches to one copy: a copy for each would take minutes for a large state with many patches. */
  #patched(patches: (readonly unknown[])[]): unknown {
    for (let failures = 0; ; failures++) {
      const { state, failedAt } = this.#tried(patches);
      if (failedAt === undefined) return isDeeper(state, MAX_DEPTH) ? this.#value : state;
      patches.splice(failedAt, failures < MAX_HALF_FAILED ? 1 : patches.length);
    }
  }

  /** @returns the state; with the index of the patch whose later operation failed, a state that must not be used */
  #tried(patches: readonly (readonly unknown[])[]): { readonly state: unknown; readonly failedAt?: number } {
    let state = structuredClone(this.#value);
    for (const [at, patch] of patches.entries()) {
      for (const [number, operation] of patch.entries()) {
        try {
          this.#bound(state, operation);
          // In place. One operation applies or does not.
          state = jsonPatch.applyOperation(state, operation as Operation, true, true, true).newDocument;
        } catch {
          if (number > 0) return { state, failedAt: at };
          break;
        }
      }
    }
    return { state };
  }

  /** @throws Error for an operation above a bound */
  #bound(state: unknown, operation: unknown): void {
    const { op, path, from } = asObject(operation) ?? {};
    if ((asText(path) ?? '').split('/', MAX_DEPTH + 2).length > MAX_DEPTH + 1) throw new Error('too many levels');
    if (op !== 'copy') return;
    if (this.#copied > MAX_COPIED) throw new Error('too much was copied');
    this.#copied += JSON.stringify(jsonPatch.getValueByPointer(state, asText(from) ?? ''))?.length ?? 0;
    if (this.#copied > MAX_COPIED) throw new Error('too much was copied');
  }
}
