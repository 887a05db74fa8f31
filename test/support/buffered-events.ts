/** A message from the server with its dialect taken off, and when it came. */
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
  /** Says what is waited for when it does not come. */
  readonly label?: string;
  /** Looks only at events from this place in the buffer on; see `mark`. */
  readonly from?: number;
}

const DEFAULT_TIMEOUT_MS = 5_000;
const SHOWN_EVENTS = 30;

/** Everything a client received, from the first event on, so that a test cannot come too late to see one. */
export class BufferedEvents {
  readonly all: ReceivedEvent[] = [];
  readonly #watchers = new Set<() => void>();
  #ended: string | undefined;

  push(event: ReceivedEvent): void {
    this.all.push(event);
    this.#wake();
  }

  /** Nothing more can come: whoever waits is told why. */
  end(reason: string): void {
    this.#ended ??= reason;
    this.#wake();
  }

  /** The first event that matches, buffered or to come. @throws Error listing what did arrive */
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
