export const HOUR_MS = 3_600_000;

/** The hour of a time (milliseconds since the epoch), UTC: `2026-11-20T10`. Hours sort as text. */
export function hourOf(time: number): string {
  return new Date(time).toISOString().slice(0, 'YYYY-MM-DDTHH'.length);
}

/** When an hour begins, in milliseconds since the epoch. @throws RangeError for what is no hour */
export function startOf(hour: string): number {
  const time = Date.parse(`${hour}:00:00.000Z`);
  if (!Number.isFinite(time) || hourOf(time) !== hour) throw new RangeError(`${hour} is no hour`);
  return time;
}

export function endOf(hour: string): number {
  return startOf(hour) + HOUR_MS;
}

/** The hours from `from` on and before `to`, both milliseconds since the epoch. */
export function hoursBetween(from: number, to: number): string[] {
  const hours: string[] = [];
  for (let time = Math.floor(from / HOUR_MS) * HOUR_MS; time < to; time += HOUR_MS) hours.push(hourOf(time));
  return hours;
}
