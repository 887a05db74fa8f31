import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';

/** Retention of the audit log: whichever bound is reached first. Redis removes whole blocks of about 100 entries. */
const AUDIT_ENTRIES = 50_000;
const AUDIT_DAYS = 90;
const AUDIT_MS = AUDIT_DAYS * 86_400_000;
/** Entries that one page reads at most while it searches for those of a filter. */
const MAX_SEARCHED = 2_000;
const READ_AT_ONCE = 500;

/** What identifies the object of an action. Never a token, a secret or a body. */
export const AuditTarget = z.record(z.string(), z.string());
const Entry = z.object({
  actor: z.string(),
  action: z.string(),
  target: AuditTarget,
  from: z.string(),
  user_agent: z.string().nullable(),
  status: z.int(),
  error: z.string().nullable(),
  node_id: z.string(),
});
export type AuditEntry = z.infer<typeof Entry>;
export type ListedEntry = AuditEntry & { readonly id: string; readonly at: string };

export interface AuditQuery {
  /** Id after which the page begins; undefined for the newest entry. */
  readonly cursor: string | undefined;
  readonly limit: number;
  readonly actor: string | undefined;
  readonly action: string | undefined;
}

/** The audit log: a Redis stream of admin actions with bounded length and age. */
export class AuditLog {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Pick<Clock, 'now'>;

  constructor(deps: { readonly redis: Redis; readonly keys: Keys; readonly clock: Pick<Clock, 'now'> }) {
    this.#redis = deps.redis;
    this.#keys = deps.keys;
    this.#clock = deps.clock;
  }

  /** @throws RedisUnavailable */
  async write(entry: AuditEntry): Promise<void> {
    const { auditLog: key } = this.#keys;
    // Pipelined: one round trip.
    await mapRedisErrors(
      Promise.all([
        this.#redis.xadd(key, 'MAXLEN', '~', AUDIT_ENTRIES, '*', 'entry', JSON.stringify(entry)),
        this.#redis.xtrim(key, 'MINID', '~', Math.max(0, this.#clock.now() - AUDIT_MS)),
        this.#redis.pexpire(key, AUDIT_MS),
      ]),
    );
  }

  /** Reads a page, newest first. @throws RedisUnavailable */
  async read({ cursor, limit, actor, action }: AuditQuery): Promise<{ entries: ListedEntry[]; next: string | null }> {
    const entries: ListedEntry[] = [];
    let before = cursor;
    for (let searched = 0; searched < MAX_SEARCHED; searched += READ_AT_ONCE) {
      const rows = await this.#rows(before, READ_AT_ONCE);
      for (const row of rows) {
        before = row[0];
        const entry = listed(row);
        if (!entry || (actor && entry.actor !== actor) || (action && entry.action !== action)) continue;
        entries.push(entry);
        if (entries.length === limit) return { entries, next: before };
      }
      if (rows.length < READ_AT_ONCE) return { entries, next: null };
    }
    return { entries, next: before ?? null };
  }

  /** Returns the newest entry. @throws RedisUnavailable */
  async latest(): Promise<ListedEntry | undefined> {
    const [row] = await this.#rows(undefined, 1);
    return row && listed(row);
  }

  #rows(before: string | undefined, count: number) {
    const end = before === undefined ? '+' : `(${before}`;
    return mapRedisErrors(this.#redis.xrevrange(this.#keys.auditLog, end, '-', 'COUNT', count));
  }
}

function listed([id, fields]: readonly [string, readonly string[]]): ListedEntry | undefined {
  const parsed = Entry.safeParse(JSON.parse(fields[1] ?? 'null'));
  if (!parsed.success) return undefined;
  return { id, at: new Date(Number.parseInt(id, 10)).toISOString(), ...parsed.data };
}
