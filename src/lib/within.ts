import type { Clock } from './clock.ts';

export interface Patience {
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** What is thrown when the time is up. */
  readonly late: () => Error;
  /** Of whoever waits. */
  readonly signal: AbortSignal | undefined;
}

/**
 * What `task` gives, for as long as it is waited for. The task is told by its signal that nobody waits any more, and may
 * go on; whatever it then throws is nobody's.
 * @throws what `task` throws, what `late` makes, or the reason of the waiting signal
 */
export async function within<T>(
  { clock, timeoutMs, late, signal }: Patience,
  task: (over: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const over = new AbortController();
  const ended = new Promise<never>((_, reject) => {
    over.signal.addEventListener('abort', () => reject(over.signal.reason), { once: true });
  });
  const giveUp = () => over.abort(signal?.reason);
  signal?.addEventListener('abort', giveUp, { once: true });
  const cancel = clock.after(timeoutMs, () => over.abort(late()));
  try {
    return await Promise.race([task(over.signal), ended]);
  } finally {
    cancel();
    signal?.removeEventListener('abort', giveUp);
    over.abort();
  }
}
