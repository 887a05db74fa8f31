import type { Clock } from './clock.ts';

export interface Deadline {
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** Creates the error that is thrown after `timeoutMs`. */
  readonly timeoutError: () => Error;
  /** Aborts when the caller stops waiting. */
  readonly signal: AbortSignal | undefined;
}

/** Reason of the signal after the task has ended. Without one, each abort would create an error with a stack. */
const ENDED = new Error('the task has ended');

/**
 * Waits for `task` until the deadline expires or `signal` aborts. The signal passed to `task` then aborts. The task may
 * continue, but later errors are ignored.
 * @throws the error of `task`, the error of `timeoutError`, or the reason of `signal`
 */
export async function withDeadline<T>(
  { clock, timeoutMs, timeoutError, signal }: Deadline,
  task: (expired: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const expired = new AbortController();
  const ended = new Promise<never>((_, reject) => {
    expired.signal.addEventListener('abort', () => reject(expired.signal.reason), { once: true });
  });
  const abort = () => expired.abort(signal?.reason);
  signal?.addEventListener('abort', abort, { once: true });
  const cancel = clock.after(timeoutMs, () => expired.abort(timeoutError()));
  try {
    return await Promise.race([task(expired.signal), ended]);
  } finally {
    cancel();
    signal?.removeEventListener('abort', abort);
    expired.abort(ENDED);
  }
}

/** Resolves when every promise has settled, at the latest after `timeoutMs`. Never rejects. */
export async function settledWithin(clock: Clock, timeoutMs: number, work: Iterable<Promise<unknown>>): Promise<void> {
  await new Promise<void>((resolve) => {
    const cancel = clock.after(timeoutMs, resolve);
    Promise.allSettled(work).then(() => {
      cancel();
      resolve();
    });
  });
}
