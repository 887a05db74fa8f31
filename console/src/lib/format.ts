/** Text forms of figures and times. All of them are pure, and use the locale and zone of the browser. */

const COUNT = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 });
const RATE = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const DAY_AND_TIME = new Intl.DateTimeFormat(undefined, {
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
});
const TIME = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
});
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto', style: 'short' });

const KIB = 1_024;
const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

export const NONE = '–';

export function count(value: number | null | undefined): string {
  return isNumber(value) ? COUNT.format(value) : NONE;
}

/** `12.3K` from 10,000 on. */
export function shortCount(value: number | null | undefined): string {
  if (!isNumber(value)) return NONE;
  return Math.abs(value) < 10_000 ? RATE.format(value) : SHORT.format(value);
}

export function bytes(value: number | null | undefined): string {
  if (!isNumber(value)) return NONE;
  let rest = value;
  let unit = 0;
  while (rest >= KIB && unit < BYTE_UNITS.length - 1) {
    rest /= KIB;
    unit += 1;
  }
  return `${RATE.format(rest)} ${BYTE_UNITS[unit]}`;
}

/** `3.2 ms`, `45 ms`, `1.4 s`, `2 min 5 s`, `3 h 12 min`, `4 d 2 h`. */
export function duration(ms: number | null | undefined): string {
  if (!isNumber(ms)) return NONE;
  if (ms < 10) return `${RATE.format(ms)} ms`;
  if (ms < SECOND_MS) return `${COUNT.format(ms)} ms`;
  if (ms < MINUTE_MS) return `${RATE.format(ms / SECOND_MS)} s`;
  if (ms < HOUR_MS) return pair(ms, MINUTE_MS, 'min', SECOND_MS, 's');
  if (ms < DAY_MS) return pair(ms, HOUR_MS, 'h', MINUTE_MS, 'min');
  return pair(ms, DAY_MS, 'd', HOUR_MS, 'h');
}

function pair(ms: number, large: number, largeName: string, small: number, smallName: string): string {
  const rest = Math.floor((ms % large) / small);
  return `${Math.floor(ms / large)} ${largeName}${rest > 0 ? ` ${rest} ${smallName}` : ''}`;
}

/** Local date and time with seconds. */
export function dateTime(at: string | number | Date): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? NONE : DAY_AND_TIME.format(date);
}

/** Local time of day with milliseconds, for events that follow each other closely. */
export function timeOfDay(at: string | number | Date): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return NONE;
  return `${TIME.format(date)}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

/** Local time of day. */
export function clockTime(at: number): string {
  return TIME.format(at);
}

/** ISO 8601 in UTC, for tooltips. */
export function utc(at: string | number | Date): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? '' : date.toISOString().replace('T', ' ').replace('Z', ' UTC');
}

/** `3 min. ago`. */
export function relative(at: string | number | Date, now: number): string {
  const ms = new Date(at).getTime() - now;
  if (Number.isNaN(ms)) return NONE;
  const size = Math.abs(ms);
  if (size < MINUTE_MS) return RELATIVE.format(Math.round(ms / SECOND_MS), 'second');
  if (size < HOUR_MS) return RELATIVE.format(Math.round(ms / MINUTE_MS), 'minute');
  if (size < DAY_MS) return RELATIVE.format(Math.round(ms / HOUR_MS), 'hour');
  return RELATIVE.format(Math.round(ms / DAY_MS), 'day');
}

/** `1 run`, `2 runs`. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

function isNumber(value: number | null | undefined): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}
