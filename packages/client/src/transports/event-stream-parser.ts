/** Longest event, in characters. The gateway's are far shorter. */
const MAX_LENGTH = 16 * 2 ** 20;

/**
 * Parses server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
 * Only `data` counts, because the data of this gateway names its type and position.
 */
export class EventStreamParser {
  readonly #event: (data: string) => void;
  #rest = '';
  #data: string[] = [];

  constructor(event: (data: string) => void) {
    this.#event = event;
  }

  /** @returns whether the text contains a comment, which the gateway sends to show that it is alive */
  feed(text: string): boolean {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    if (this.#rest.length > MAX_LENGTH) throw new Error('an event is too long');
    let hasComment = false;
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
      if (line === '') this.#dispatch();
      else if (line.startsWith(':')) hasComment = true;
      else if (line.startsWith('data:')) this.#data.push(line.slice(line.startsWith('data: ') ? 6 : 5));
    }
    return hasComment;
  }

  #dispatch(): void {
    const data = this.#data;
    this.#data = [];
    if (data.length > 0) this.#event(data.join('\n'));
  }
}
