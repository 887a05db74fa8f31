/**
 * Source of time. All code that waits or compares times receives a `Clock`, so that tests can advance 45 seconds in
 * milliseconds. Times that must agree across nodes (leases, limits, the order of admission) come from Redis, inside the
 * scripts.
 */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Runs `task` once after `delayMs`; the returned function cancels it. Never keeps the process alive. */
  after(delayMs: number, task: () => void): () => void;
  /** Runs `task` every `periodMs`; the returned function stops it. Never keeps the process alive. */
  every(periodMs: number, task: () => void): () => void;
}

/**
 * Maximum delay of a Node timer; longer ones fire at once. Callers with a later deadline check the time and wait
 * again.
 */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, Math.min(Math.max(delayMs, 0), LONGEST_TIMER_MS)).unref();
    return () => clearTimeout(timer);
  },
  every(periodMs, task) {
    const timer = setInterval(task, periodMs).unref();
    return () => clearInterval(timer);
  },
};

/**
 * Returns the milliseconds since an earlier time of the clock, or infinity if that time is in the future. In that
 * case the clock was set back, and a caller that waits for a period would wait longer by the same amount.
 */
export function elapsedSince(clock: Clock, time: number): number {
  const elapsed = clock.now() - time;
  return elapsed < 0 ? Number.POSITIVE_INFINITY : elapsed;
}

/**
 * Returns the milliseconds until a time that was at most `mostMs` ahead when it was set; 0 if it has passed or the
 * clock was set back.
 */
export function remainingUntil(clock: Clock, time: number, mostMs: number): number {
  const remaining = time - clock.now();
  return remaining > mostMs ? 0 : Math.max(0, remaining);
}

/** Resolves after `delayMs`, or when `signal` aborts; never rejects. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      cancel();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.after(delayMs, done);
    signal?.addEventListener('abort', done, { once: true });
  });
}
