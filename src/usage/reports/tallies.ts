import { TollgateError } from '../../protocol/errors.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import type { Keys } from '../../redis/keys.ts';
import { type Measures, Sums, unpacked } from '../measures.ts';

/** Rows requested per HSCAN. */
const SCAN_BATCH = 1_000;
/** Maximum number of rows read per query: about 100 MB, read in pieces and not retained. */
const MAX_ROWS = 500_000;
/** Maximum number of rows in a result. */
const MAX_GROUPS = 10_000;

export const DIMENSIONS = ['user', 'tool', 'plan', 'hour', 'day'] as const;
export type Dimension = (typeof DIMENSIONS)[number];

export interface TallyQuery {
  readonly hours: readonly string[];
  readonly userId?: string | undefined;
  readonly groupBy: readonly Dimension[];
}

export type Tally = Readonly<Partial<Record<Dimension, string>>> & Measures;

export interface TalliesDeps {
  readonly redis: Redis;
  readonly keys: Keys;
}

/**
 * Sums of the ledger by hour, user, tool and plan, and the refusals, which are not in the ledger. Ingestion updates
 * them.
 */
export class Tallies {
  readonly #deps: TalliesDeps;

  constructor(deps: TalliesDeps) {
    this.#deps = deps;
  }

  /**
   * Returns sums per combination of the dimensions, in their order; a single row when there are none.
   * @throws TollgateError FORMAT_ERROR when the query reads or returns too many rows; RedisUnavailable
   */
  async query({ hours, userId, groupBy }: TallyQuery): Promise<Tally[]> {
    const sums = new Sums();
    let looked = 0;
    for (const hour of hours) {
      const rows = await this.rows(hour, userId);
      looked += rows.size;
      if (looked > MAX_ROWS) throw tooMuch();
      for (const [row, measures] of rows) {
        const [user = '', tool = '', plan = ''] = JSON.parse(row) as string[];
        const values = { user, tool, plan, hour, day: hour.slice(0, 'YYYY-MM-DD'.length) };
        sums.add(JSON.stringify(groupBy.map((dimension) => values[dimension])), measures);
      }
      if (sums.rows.size > MAX_GROUPS) throw tooMuch();
    }
    return [...sums.rows]
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([group, measures]) => {
        const values = JSON.parse(group) as string[];
        return { ...Object.fromEntries(groupBy.map((dimension, at) => [dimension, values[at]])), ...measures };
      });
  }

  /** Returns the rows of one hour. HSCAN may return a row twice while the hash grows, so rows are collected by name. */
  async rows(hour: string, userId?: string): Promise<Map<string, Measures>> {
    const rows = new Map<string, Measures>();
    const pattern = userId === undefined ? '*' : `${escaped(`[${JSON.stringify(userId)},`)}*`;
    let cursor = '0';
    do {
      const [next, fields] = await mapRedisErrors(
        this.#deps.redis.hscan(this.#deps.keys.tally(hour), cursor, 'MATCH', pattern, 'COUNT', SCAN_BATCH),
      );
      for (let at = 0; at + 1 < fields.length; at += 2) rows.set(fields[at] ?? '', unpacked(fields[at + 1] ?? ''));
      if (rows.size > MAX_ROWS) throw tooMuch();
      cursor = next;
    } while (cursor !== '0');
    return rows;
  }
}

function tooMuch(): TollgateError {
  return new TollgateError('FORMAT_ERROR', {
    text: 'The query needs too many rows. Request a shorter time range, a single user, or fewer groups.',
  });
}

/** Escapes the special characters of a Redis pattern. */
function escaped(text: string): string {
  return text.replaceAll(/[*?[\]\\]/g, '\\$&');
}
