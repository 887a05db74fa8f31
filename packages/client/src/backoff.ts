export interface BackoffOptions {
  /** Upper bound of the first delay, in milliseconds. Default 500. */
  readonly firstMs?: number;
  /** Upper bound of all delays, in milliseconds. Default 20,000. */
  readonly maxMs?: number;
}

/**
 * Returns the delay before the next attempt: exponential with full jitter, so that the clients of a failed node spread
 * their reconnects evenly.
 * @param failures consecutive failed attempts
 */
export function backoffMs(failures: number, options: BackoffOptions, random: () => number): number {
  const { firstMs = 500, maxMs = 20_000 } = options;
  return random() * Math.min(maxMs, firstMs * 2 ** Math.min(failures, 20));
}
