/** Hours in the form of the usage API, UTC. */

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** `2026-11-20T10`. */
export function hourOf(at: number): string {
  return new Date(at).toISOString().slice(0, 13);
}

/** The start of the UTC day so many days ago; with one day, the hour 24 hours ago. */
export function sinceDays(days: number, now: number): string {
  if (days === 1) return `${hourOf(now - DAY_MS)}:00:00Z`;
  return `${new Date(now - days * DAY_MS).toISOString().slice(0, 10)}T00:00:00Z`;
}

export function addHours(hour: string, hours: number): string {
  const start = hour.length === 13 ? `${hour}:00:00Z` : hour;
  return new Date(Date.parse(start) + hours * HOUR_MS).toISOString();
}
