import { setTimeout as delay } from 'node:timers/promises';

export interface UntilOptions {
  readonly timeoutMs?: number;
  readonly everyMs?: number;
  /** Names the awaited condition in the error of a timeout. */
  readonly label?: string;
}

/**
 * Polls until the predicate returns a truthy value, and returns it. A predicate may throw; the timeout error contains
 * its last error.
 */
export async function until<T>(
  predicate: () => T | Promise<T>,
  { timeoutMs = 5_000, everyMs = 20, label = 'the condition' }: UntilOptions = {},
): Promise<NonNullable<T>> {
  const deadline = performance.now() + timeoutMs;
  let lastError: unknown;
  do {
    try {
      const answer = await predicate();
      if (answer) return answer;
      lastError = undefined;
    } catch (error) {
      lastError = error;
    }
    await delay(everyMs);
  } while (performance.now() < deadline);
  throw new Error(`${label} did not come true within ${timeoutMs} ms`, { cause: lastError });
}
