import { EventsLostError, errorInit, RunFailedError, TollgateError } from './errors.ts';
import type { InputRequest, RunEvent } from './events.ts';
import { isTerminalEvent } from './protocol.ts';

export interface RunAccepted {
  readonly runId: string;
  readonly threadId: string;
}

export interface RunResult extends RunAccepted {
  readonly text: string;
  /** NaN if events of the run were lost. */
  readonly durationMs: number;
  /** Empty if events of the run were lost. */
  readonly toolsUsed: readonly string[];
}

/** The answer to `run_status`. */
export interface RunStatus {
  readonly run_id: string;
  readonly thread_id: string | null;
  readonly status: 'queued' | 'running' | 'waiting' | 'completed' | 'failed' | 'cancelled' | 'unknown';
  readonly ended_at?: string;
  /** Of a completed run; null if its thread no longer contains the answer. */
  readonly final_response?: string | null;
  /** Of a run that is `waiting`: what it asks its user. */
  readonly input_requests?: readonly InputRequest[];
}

/** One run: an async iterable of its events, and a promise of its result. */
export class Run implements AsyncIterable<RunEvent> {
  /** Identifies the run's request: the same request id starts one run within 24 hours. */
  readonly requestId: string;
  /** Resolves when the gateway has accepted the run. @throws TollgateError with which the gateway refuses it */
  readonly accepted: Promise<RunAccepted>;
  readonly #cancel: (runId: string) => Promise<void>;
  readonly #maxQueued: number;
  readonly #result = withResolvers<RunResult>();
  readonly #queue: RunEvent[] = [];
  #wakeReader: () => void = () => {};
  #hasReader = false;
  /** The queue was full before the first read: only the result can be read any more. */
  #overflowed = false;
  #ended = false;
  #failure: unknown;

  constructor(
    requestId: string,
    accepted: Promise<RunAccepted>,
    options: { readonly maxQueued: number; readonly cancel: (runId: string) => Promise<void> },
  ) {
    this.requestId = requestId;
    this.accepted = accepted;
    this.#cancel = options.cancel;
    this.#maxQueued = options.maxQueued;
    // A caller that uses only one of the three ways to read a run must not see unhandled rejections of the others.
    this.#result.promise.catch(() => {});
    accepted.catch((error: unknown) => this.fail(error));
  }

  /**
   * Resolves with the answer.
   * @throws RunFailedError after `agent_failed` or `agent_cancelled`, EventsLostError if the gateway does not know how
   *   the run ended, or the error of a refusal
   */
  result(): Promise<RunResult> {
    return this.#result.promise;
  }

  /** Cancels the run. Its events end with `agent_cancelled`, or with the end that it had reached before. */
  async cancel(): Promise<void> {
    const { runId } = await this.accepted;
    await this.#cancel(runId);
  }

  /**
   * The events in order, the terminal event included. One reader at a time.
   * @throws EventsLostError, RUN_BUFFER_FULL, or the error of a refusal; not for a run that failed, whose last event
   *   is `agent_failed`
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<RunEvent, void> {
    if (this.#hasReader) throw new Error('The events of a run have one reader.');
    if (this.#overflowed) throw this.#bufferFull();
    this.#hasReader = true;
    try {
      for (;;) {
        const event = this.#queue.shift();
        if (event) yield event;
        else if (this.#failure !== undefined) throw this.#failure;
        else if (this.#ended) return;
        else {
          await new Promise<void>((resolve) => {
            this.#wakeReader = resolve;
          });
        }
      }
    } finally {
      this.#hasReader = false;
      this.#queue.length = 0;
    }
  }

  /** Adds an event of the log. @returns whether it ended the run */
  push(event: RunEvent): boolean {
    if (this.#ended) return true;
    if (this.#queue.length >= this.#maxQueued) {
      // A reader that is too slow must see that events are missing. Without a reader the result is still of use.
      if (this.#hasReader) {
        this.fail(this.#bufferFull());
        return true;
      }
      this.#overflowed = true;
      this.#queue.length = 0;
    }
    // After a loss the remaining events are incomplete, and only the end of the run is of use.
    if (!this.#overflowed && this.#failure === undefined) this.#queue.push(event);
    if (isTerminalEvent(event.type)) this.#end(event);
    this.#wakeReader();
    return this.#ended;
  }

  /** Ends the run for this client: refused, events lost, or the connection stopped. */
  fail(error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure ??= error;
    this.#result.reject(error);
    this.#wakeReader();
  }

  /**
   * Ends the iteration over the events, some of which are no longer in the log. The result remains open.
   * @param ask asks the gateway for the status of the run
   */
  async lost(reason: string, ask: (runId: string) => Promise<RunStatus>): Promise<void> {
    if (this.#ended) return;
    const message = `Events of the run are no longer in the log (${reason}).`;
    const error = new EventsLostError('EVENTS_LOST', { message, retryable: false, fields: { reason } });
    this.#failure ??= error;
    this.#wakeReader();
    try {
      this.#resolve(await ask((await this.accepted).runId), error);
    } catch {
      this.fail(error);
    }
  }

  /** Ends the run as the gateway reports it. A run that continues ends with its terminal event. */
  #resolve({ run_id, thread_id, status, final_response }: RunStatus, lost: EventsLostError): void {
    if (this.#ended || status === 'queued' || status === 'running' || status === 'waiting') return;
    if (status === 'completed' && typeof final_response === 'string') {
      this.#ended = true;
      const ids = { runId: run_id, threadId: thread_id ?? '' };
      this.#result.resolve({ ...ids, text: final_response, durationMs: Number.NaN, toolsUsed: [] });
    } else if (status === 'failed') {
      const message = 'The run failed. Its error was in the lost events.';
      this.fail(new RunFailedError('RUN_FAILED', { message, retryable: false }));
    } else if (status === 'cancelled') this.fail(cancelled());
    else this.fail(lost);
  }

  #bufferFull(): TollgateError {
    const message = `More than ${this.#maxQueued} events of the run waited for their reader.`;
    return new TollgateError('RUN_BUFFER_FULL', { message, retryable: false });
  }

  #end(event: RunEvent): void {
    this.#ended = true;
    if (event.type === 'agent_completed') {
      this.#result.resolve({
        runId: event.run_id ?? '',
        threadId: event.thread_id ?? '',
        text: event.final_response,
        durationMs: event.duration_ms,
        toolsUsed: event.tools_used,
      });
    } else if (event.type === 'agent_failed') {
      this.#result.reject(new RunFailedError(event.error.code, errorInit(event.error)));
    } else {
      this.#result.reject(cancelled());
    }
  }
}

function cancelled(): RunFailedError {
  return new RunFailedError('RUN_CANCELLED', { message: 'The run was cancelled.', retryable: false });
}

/** As of `Promise.withResolvers`, which Node 20 lacks. */
function withResolvers<T>() {
  let resolve: (value: T) => void = () => {};
  let reject: (reason: unknown) => void = () => {};
  const promise = new Promise<T>((whenResolved, whenRejected) => {
    resolve = whenResolved;
    reject = whenRejected;
  });
  return { promise, resolve, reject };
}
