/**
 * Time as the product sees it. Everything that waits or compares times takes a `Clock`, so that tests move a 45-second
 * rule in milliseconds. Time that must agree across nodes (leases, limits, the order of admission) is not read here: it
 * is Redis's, inside the scripts.
 */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Runs `task` once after `delayMs`; the returned function cancels it. Never keeps the process alive. */
  after(delayMs: number, task: () => void): () => void;
  /** Runs `task` every `periodMs`; the returned function stops it. Never keeps the process alive. */
  every(periodMs: number, task: () => void): () => void;
}

/** Node refuses longer timers by running them at once; a deadline further away is reached by looking again. */
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
 * Milliseconds since a time that the clock told. Endless when that lies ahead: then the clock was set back, and whoever
 * waited for a while to pass would wait for as long as it was set back by.
 */
export function elapsedSince(clock: Clock, time: number): number {
  const elapsed = clock.now() - time;
  return elapsed < 0 ? Number.POSITIVE_INFINITY : elapsed;
}

/** Milliseconds until a time that was at most `mostMs` ahead when it was set; 0 when it has come, or the clock was set back. */
export function remainingUntil(clock: Clock, time: number, mostMs: number): number {
  const remaining = time - clock.now();
  return remaining > mostMs ? 0 : Math.max(0, remaining);
}

/** Resolves after `delayMs`, or at once when `signal` aborts; never rejects. */
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
