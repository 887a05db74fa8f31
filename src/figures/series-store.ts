import { z } from 'zod';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { acrossProcesses, type Figures } from './figures.ts';

export const STEP_MS = { minute: 60_000, hour: 3_600_000 } as const;
export type Step = keyof typeof STEP_MS;
/** Samples that are kept per process: a day of minutes and 30 days of hours. */
export const KEPT_STEPS = { minute: 1_440, hour: 720 } as const;
const KEPT_MS = { minute: KEPT_STEPS.minute * STEP_MS.minute, hour: KEPT_STEPS.hour * STEP_MS.hour } as const;
/** Expired hours that each write removes: as many as a process can have missed while Redis was unavailable. */
const REMOVED_HOURS = 24;
/** Processes whose series are kept; of more, those that wrote last. With `MAX_SAMPLE_BYTES` they bound the memory. */
export const MAX_PROCESSES = 500;
/** Bound of a sample. It has at most 24 names per group; a busy process has about 900 bytes. */
export const MAX_SAMPLE_BYTES = 4_096;

const Sample = z.object({ c: z.record(z.string(), z.number()), g: z.record(z.string(), z.number()) });

export interface SeriesQuery {
  readonly step: Step;
  /** First and last step, milliseconds since the epoch. */
  readonly from: number;
  readonly to: number;
  /** Process; undefined for all. */
  readonly process: string | undefined;
}

export interface SeriesPoint {
  readonly at: number;
  /** Undefined if no process reported. */
  readonly figures: Figures | undefined;
}

/**
 * The figures of the last minutes and hours of each process in Redis, for the charts of the console. A write costs one
 * round trip per process and minute. Per process, 1,440 minutes and 720 hours are kept; the series of a process that
 * has stopped expire.
 */
export class SeriesStore {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { readonly redis: Redis; readonly keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /**
   * Stores the figures of a minute, and those of its hour so far. A repetition changes nothing.
   * @param at start of the minute
   * @throws RedisUnavailable
   */
  async write(process: string, at: number, { minute, hour }: Readonly<Record<Step, Figures>>): Promise<void> {
    const [minutes, hours] = [this.#keys.seriesMinutes(process), this.#keys.seriesHours(process)];
    const { seriesProcesses: processes } = this.#keys;
    const hourAt = Math.floor(at / STEP_MS.hour) * STEP_MS.hour;
    const expired = Array.from({ length: REMOVED_HOURS }, (_, index) => {
      return String(hourAt - (KEPT_STEPS.hour + index) * STEP_MS.hour);
    });
    const written = this.#redis
      .pipeline()
      .xadd(minutes, 'MAXLEN', '=', KEPT_STEPS.minute, `${at}-0`, 's', encode(minute))
      .pexpire(minutes, KEPT_MS.minute)
      .hset(hours, String(hourAt), encode(hour))
      .hdel(hours, ...expired)
      .pexpire(hours, KEPT_MS.hour)
      .zadd(processes, at, process)
      .zremrangebyscore(processes, '-inf', `(${at - KEPT_MS.hour}`)
      .zremrangebyrank(processes, 0, -MAX_PROCESSES - 1)
      .pexpire(processes, KEPT_MS.hour)
      .exec();
    const replies = await mapRedisErrors(written);
    // The first reply is an error if the minute is already stored.
    const failed = replies?.slice(1).find(([error]) => error !== null)?.[0];
    if (failed) throw failed;
  }

  /**
   * Reads one point per step, oldest first. One round trip per process, so that a long range does not block the event
   * loop.
   * @throws RedisUnavailable
   */
  async read({ step, from, to, process }: SeriesQuery): Promise<SeriesPoint[]> {
    const first = Math.ceil(from / STEP_MS[step]) * STEP_MS[step];
    const byTime = new Map<number, Figures[]>();
    for (let at = first; at <= to; at += STEP_MS[step]) byTime.set(at, []);
    for (const one of process === undefined ? await this.#processes(first) : [process]) {
      const rows = step === 'minute' ? await this.#minutes(one, first, to) : await this.#hours(one, [...byTime.keys()]);
      for (const { at, sample } of rows) byTime.get(at)?.push(sample);
    }
    return [...byTime].map(([at, all]) => ({ at, figures: all.length === 0 ? undefined : acrossProcesses(all) }));
  }

  #processes(from: number): Promise<string[]> {
    const { seriesProcesses: processes } = this.#keys;
    return mapRedisErrors(this.#redis.zrange(processes, from, '+inf', 'BYSCORE', 'LIMIT', 0, MAX_PROCESSES));
  }

  async #minutes(process: string, from: number, to: number) {
    const rows = await mapRedisErrors(this.#redis.xrange(this.#keys.seriesMinutes(process), from, to));
    return rows.flatMap(([id, fields]) => sampleAt(Number.parseInt(id, 10), fields[1]));
  }

  async #hours(process: string, hours: readonly number[]) {
    if (hours.length === 0) return [];
    const rows = await mapRedisErrors(this.#redis.hmget(this.#keys.seriesHours(process), ...hours.map(String)));
    return rows.flatMap((text, index) => sampleAt(hours[index] ?? 0, text));
  }
}

function encode({ counters, gauges }: Figures): string {
  const text = JSON.stringify({ c: counters, g: gauges });
  if (text.length <= MAX_SAMPLE_BYTES) return text;
  // Names without a group are few; those of groups are the details.
  const totals = (values: Readonly<Record<string, number>>) => {
    return Object.fromEntries(Object.entries(values).filter(([name]) => !name.includes('.')));
  };
  return JSON.stringify({ c: totals(counters), g: totals(gauges) });
}

/** A sample of a newer version that this one cannot read counts as missing. */
function sampleAt(at: number, text: string | null | undefined): { readonly at: number; readonly sample: Figures }[] {
  if (typeof text !== 'string') return [];
  const parsed = Sample.safeParse(JSON.parse(text));
  return parsed.success ? [{ at, sample: { counters: parsed.data.c, gauges: parsed.data.g } }] : [];
}
