export interface Position {
  /** `seq` of the last event that was delivered. */
  readonly after: number;
  /** Identifies the history to which `after` belongs. */
  readonly epoch: string;
}

export interface PositionStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

/** What to do with a durable event. */
export type Arrival = 'deliver' | 'repeated' | 'gap';

/**
 * The client's position in the user's event log. `seq` counts from 1 without gaps, so each event that is not the next
 * one is a repetition or shows a gap.
 */
export class StreamPosition {
  #current: Position | undefined;
  readonly #storage: PositionStorage | undefined;
  readonly #key: string;

  /** @param key key of the position in `storage`, which keeps it across page loads */
  constructor(storage: PositionStorage | undefined, key: string) {
    this.#storage = storage;
    this.#key = key;
    this.#current = this.#stored();
  }

  /** Undefined before the first welcome. */
  get current(): Position | undefined {
    return this.#current;
  }

  set(position: Position): void {
    this.#current = position;
  }

  arrive(seq: number): Arrival {
    const position = this.#current;
    if (!position || seq > position.after + 1) return 'gap';
    if (seq <= position.after) return 'repeated';
    this.#current = { after: seq, epoch: position.epoch };
    return 'deliver';
  }

  /** @throws what the storage throws when it is full or forbidden */
  save(): void {
    if (this.#storage && this.#current) this.#storage.setItem(this.#key, JSON.stringify(this.#current));
  }

  #stored(): Position | undefined {
    try {
      const parsed: unknown = JSON.parse(this.#storage?.getItem(this.#key) ?? 'null');
      return isPosition(parsed) ? { after: parsed.after, epoch: parsed.epoch } : undefined;
    } catch {
      return undefined;
    }
  }
}

function isPosition(value: unknown): value is Position {
  if (typeof value !== 'object' || value === null) return false;
  const { after, epoch } = value as Partial<Position>;
  return Number.isSafeInteger(after) && Number(after) >= 0 && typeof epoch === 'string' && epoch !== '';
}
