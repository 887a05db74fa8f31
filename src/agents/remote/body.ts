import { createParser } from 'eventsource-parser';
import type { Response } from 'undici';
import type { Clock } from '../../lib/clock.ts';
import { parseJson } from '../../lib/json.ts';
import { isWithinJsonBounds } from '../../protocol/json-bounds.ts';
import type { Budget } from './budget.ts';
import { faultOf, RemoteFault } from './fault.ts';

/** Clients of other languages parse the values in events recursively. */
const JSON_BOUNDS = { maxDepth: 64, maxValues: 100_000 };
const SURROGATE_ESCAPE = /\\u[dD][89a-fA-F]/;

export interface RemoteBodyDeps {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Ends the request. */
  readonly abort: AbortController;
  readonly budget: Budget;
  /** Called for a fault while the body is read. */
  readonly onFault: (fault: RemoteFault) => void;
}

/** The body of a response: bounded in silence, in bytes, and in the size and number of its events. */
export class RemoteBody {
  readonly contentType: string;
  readonly headers: Response['headers'];
  readonly #deps: RemoteBodyDeps;
  readonly #response: Response;
  readonly #idleMs: number;

  constructor(deps: RemoteBodyDeps, response: Response, idleMs: number) {
    this.#deps = deps;
    this.#response = response;
    this.#idleMs = idleMs;
    this.headers = response.headers;
    this.contentType = (response.headers.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
  }

  /** Yields the JSON value of each line; blank lines are signs of life. @throws RemoteFault */
  async *lines(): AsyncGenerator<unknown, void> {
    const { budget } = this.#deps;
    // Pieces of the unfinished line. Joining them for each part would take quadratic time for a line in many pieces.
    const pieces: string[] = [];
    let length = 0;
    for await (const text of this.#texts()) {
      const [first = '', ...more] = text.split('\n');
      pieces.push(first);
      length += first.length;
      const last = more.pop();
      if (last !== undefined) {
        yield* this.#value(pieces.splice(0).join(''));
        for (const line of more) yield* this.#value(line);
        pieces.push(last);
        length = last.length;
      }
      if (length > budget.eventBytes) throw tooLarge();
    }
    yield* this.#value(pieces.join(''));
  }

  /**
   * Yields the JSON value of each server-sent event. LF and CRLF, comments, names and ids are accepted.
   * @throws RemoteFault
   */
  async *events(): AsyncGenerator<unknown, void> {
    const queue: string[] = [];
    let isTooLarge = false;
    const parser = createParser({
      maxBufferSize: this.#deps.budget.eventBytes,
      onEvent: ({ data }) => queue.push(data),
      onError: ({ type }) => {
        isTooLarge ||= type === 'max-buffer-size-exceeded';
      },
    });
    for await (const text of this.#texts()) {
      parser.feed(text);
      for (const data of queue.splice(0)) yield* this.#value(data);
      if (isTooLarge) throw tooLarge();
    }
    // The data of an event whose blank line is missing is complete.
    parser.feed('\n\n');
    for (const data of queue.splice(0)) yield* this.#value(data);
  }

  /** Reads the whole body as one JSON value. @throws RemoteFault */
  async json(): Promise<unknown> {
    let text = '';
    for await (const piece of this.#texts()) text += piece;
    return parsed(text);
  }

  /** Ends the request if the body has not ended. */
  close(): void {
    this.#deps.abort.abort();
  }

  *#value(text: string): Generator<unknown, void> {
    if (text.trim() === '') return;
    if (text.length > this.#deps.budget.eventBytes) throw tooLarge();
    this.#deps.budget.event();
    if (text === '[DONE]') return;
    yield parsed(text);
  }

  /** Ends the request when the consumer stops reading, and when the body fails. */
  async *#texts(): AsyncGenerator<string, void> {
    const { signal, budget, onFault } = this.#deps;
    const decoder = new TextDecoder();
    const reader = this.#response.body?.getReader();
    try {
      for (;;) {
        const bytes = reader && (await this.#read(() => reader.read()));
        if (bytes === undefined) break;
        budget.bytes(bytes.byteLength);
        yield decoder.decode(bytes, { stream: true });
      }
      yield decoder.decode();
    } catch (thrown) {
      signal.throwIfAborted();
      const fault = faultOf(thrown);
      if (fault instanceof RemoteFault) onFault(fault);
      throw fault;
    } finally {
      this.close();
    }
  }

  /** Bytes of any kind are a sign of life. The time of the consumer does not count as silence. */
  async #read(read: () => Promise<{ done: boolean; value?: Uint8Array | undefined }>): Promise<Uint8Array | undefined> {
    const { clock, abort, signal } = this.#deps;
    signal.throwIfAborted();
    let isLate = false;
    const cancel = clock.after(this.#idleMs, () => {
      isLate = true;
      abort.abort();
    });
    try {
      return (await read()).value;
    } catch (thrown) {
      throw isLate ? new RemoteFault('timeout', 'silence longer than idle_seconds') : thrown;
    } finally {
      cancel();
    }
  }
}

function tooLarge(): RemoteFault {
  return new RemoteFault('too_large', 'an event is larger than event_kib');
}

/** @throws RemoteFault invalid */
function parsed(text: string): unknown {
  if (!isWithinJsonBounds(text, JSON_BOUNDS)) throw new RemoteFault('invalid', 'JSON with too many values or levels');
  const json = parseJson(text);
  if (json === undefined) throw new RemoteFault('invalid', 'no JSON');
  return SURROGATE_ESCAPE.test(text) ? wellFormed(json) : json;
}

/** Replaces lone surrogates, which many clients reject. The depth is bounded. */
function wellFormed(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed();
  if (Array.isArray(value)) return value.map(wellFormed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name.toWellFormed(), wellFormed(one)]));
}
