/** A decoded message of the server, with its time of arrival. */
export interface ReceivedEvent {
  readonly type: string;
  readonly fields: Readonly<Record<string, unknown>>;
  /** `performance.now()` at its arrival. */
  readonly at: number;
  /** The id of the JSON-RPC request that it answers. */
  readonly rpcId?: string | number | null;
}

export type EventMatcher = string | ((event: ReceivedEvent) => boolean);

export interface WaitOptions {
  readonly timeoutMs?: number;
  /** Names the awaited event in the error of a timeout. */
  readonly label?: string;
  /** Considers only events from this position of the buffer on; see `mark`. */
  readonly from?: number;
}

const DEFAULT_TIMEOUT_MS = 5_000;
const SHOWN_EVENTS = 30;

/** Buffers every event of a client from the first one on, so that a test cannot miss one. */
export class BufferedEvents {
  readonly all: ReceivedEvent[] = [];
  readonly #watchers = new Set<() => void>();
  #ended: string | undefined;

  push(event: ReceivedEvent): void {
    this.all.push(event);
    this.#wake();
  }

  /** Rejects all pending waits with the reason: no further event can arrive. */
  end(reason: string): void {
    this.#ended ??= reason;
    this.#wake();
  }

  /** Resolves with the first matching event, buffered or future. @throws Error that lists the received events */
  waitFor(matcher: EventMatcher, { timeoutMs = DEFAULT_TIMEOUT_MS, label, from = 0 }: WaitOptions = {}) {
    const matches = typeof matcher === 'string' ? (event: ReceivedEvent) => event.type === matcher : matcher;
    const wanted = label ?? (typeof matcher === 'string' ? matcher : 'a matching event');
    return new Promise<ReceivedEvent>((resolve, reject) => {
      let next = from;
      const finish = (finish: () => void) => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        finish();
      };
      const fail = (why: string) => finish(() => reject(new Error(`${wanted} did not arrive: ${why}${this.#list()}`)));
      const look = () => {
        for (; next < this.all.length; next++) {
          const event = this.all[next] as ReceivedEvent;
          if (matches(event)) return finish(() => resolve(event));
        }
        if (this.#ended !== undefined) fail(this.#ended);
      };
      const timer = setTimeout(() => fail(`waited ${timeoutMs} ms`), timeoutMs);
      this.#watchers.add(look);
      look();
    });
  }

  #list(): string {
    if (this.all.length === 0) return '; nothing did';
    const shown = this.all
      .slice(-SHOWN_EVENTS)
      .map(({ type, fields }) => `  ${type} ${JSON.stringify(fields).slice(0, 200)}`);
    return `; what did, of ${this.all.length}:\n${shown.join('\n')}`;
  }

  #wake(): void {
    for (const look of [...this.#watchers]) look();
  }
}
