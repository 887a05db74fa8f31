export const HOUR_MS = 3_600_000;

/** Returns the UTC hour of a time (milliseconds since the epoch), e.g. `2026-11-20T10`. Hours sort as text. */
export function hourOf(time: number): string {
  return new Date(time).toISOString().slice(0, 'YYYY-MM-DDTHH'.length);
}

/**
 * Returns the start of an hour, in milliseconds since the epoch.
 * @throws RangeError for an invalid hour
 */
export function startOf(hour: string): number {
  const time = Date.parse(`${hour}:00:00.000Z`);
  if (!Number.isFinite(time) || hourOf(time) !== hour) throw new RangeError(`${hour} is not a valid hour`);
  return time;
}

export function endOf(hour: string): number {
  return startOf(hour) + HOUR_MS;
}

/**
 * Returns the hours that overlap the time from `from` (inclusive) to `to` (exclusive), both in milliseconds since the
 * epoch.
 */
export function hoursBetween(from: number, to: number): string[] {
  const hours: string[] = [];
  for (let time = Math.floor(from / HOUR_MS) * HOUR_MS; time < to; time += HOUR_MS) hours.push(hourOf(time));
  return hours;
}
