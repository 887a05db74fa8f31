import type { Clock } from './clock.ts';

export interface Deadline {
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** What is thrown when the time is up. */
  readonly timeoutError: () => Error;
  /** Of whoever waits. */
  readonly signal: AbortSignal | undefined;
}

/**
 * What `task` gives, for as long as it is waited for. The task is told by its signal that nobody waits any more, and may
 * go on; whatever it then throws is nobody's.
 * @throws what `task` throws, what `late` makes, or the reason of the waiting signal
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
    expired.abort();
  }
}
