import { setTimeout as delay } from 'node:timers/promises';

export interface UntilOptions {
  readonly timeoutMs?: number;
  readonly everyMs?: number;
  /** What is waited for, for the message when it does not come. */
  readonly label?: string;
}

/**
 * Asks again and again until the answer is truthy, and gives that answer. A predicate that throws has not been answered:
 * the last error is told when the time is up.
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
