/**
 * Returns the milliseconds of a `Retry-After` header: a number of seconds or a date (RFC 9110 section 10.2.3). Servers
 * also send fractions of seconds.
 * @param now milliseconds since the epoch, for a date
 * @returns 0 to `maxMs`; undefined for a missing or unreadable value
 */
export function parseRetryAfter(value: string | null | undefined, now: number, maxMs: number): number | undefined {
  if (!value) return undefined;
  const ms = /^\d+(\.\d+)?$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - now;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), maxMs);
}
