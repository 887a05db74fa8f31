import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { plainKeys } from '../redis/personal-data.ts';
import { integer } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';

const eraseKey = LuaScript.load('eraseKey-2', integer);

/** Keys deleted or entries read in one round trip; an entry has up to 64 KiB. */
const BATCH = 100;
/** Fields that the export omits: a sealed token is a credential and adds no data about the user to the identity. */
const CREDENTIALS: ReadonlySet<string> = new Set([
  'token',
  'refresh_token',
  'refresh_digest',
  'refresh_previous',
  'refresh_family',
]);

/** A Redis key of a user: `name` as in `UserKeys`, `id` of the run, call, thread or session, if any. */
export interface UserKey {
  readonly name: string;
  readonly id: string | null;
  readonly key: string;
}

export interface UserEntry {
  readonly section: string;
  readonly id: string | null;
  readonly data: unknown;
}

export interface UserDataDeps {
  readonly redis: Redis;
  readonly keys: Keys;
}

/**
 * Reads and erases the data of a user in Redis outside the ledger. The user's own sorted sets supply the ids of runs,
 * calls, threads and sessions, so no scan of the key space is needed.
 */
export class UserData {
  readonly #deps: UserDataDeps;

  constructor(deps: UserDataDeps) {
    this.#deps = deps;
  }

  /** Yields every key except the account, in batches. Keys with an id precede the sorted sets that list these ids. */
  async *keys(userId: string): AsyncGenerator<UserKey[]> {
    const own = this.#deps.keys.user(userId);
    for await (const ids of this.#members(own.runs)) {
      const requests = await Promise.all(
        ids.map((id) => mapRedisErrors(this.#deps.redis.hget(own.run(id), 'request_id'))),
      );
      const ofRequests = requests.flatMap((id) => (id ? [{ name: 'request', id, key: own.request(id) }] : []));
      yield [...ofRequests, ...ids.map((id) => ({ name: 'run', id, key: own.run(id) }))];
    }
    for await (const ids of this.#members(own.calls)) yield ids.map((id) => ({ name: 'call', id, key: own.call(id) }));
    for await (const ids of this.#members(own.threads)) {
      yield ids.map((id) => ({ name: 'thread', id, key: own.thread(id) }));
    }
    for await (const members of this.#ofUser(own.tokenDue, userId)) {
      const sessions = members.map((member) => member.slice(userId.length + 1));
      yield sessions.flatMap((id) => [
        { name: 'tokenSession', id, key: own.tokenSession(id) },
        { name: 'tokenConnections', id, key: own.tokenConnections(id) },
      ]);
    }
    yield plainKeys(own)
      .filter(([name]) => name !== 'account')
      .map(([name, key]) => ({ name, id: null, key }));
  }

  /** Returns unfinished runs and calls, and connections with a valid lease. @param nowMs on the clock of Redis */
  async live(userId: string, nowMs: number): Promise<{ runs: string[]; calls: number; connections: number }> {
    const own = this.#deps.keys.user(userId);
    const [runs, calls] = await Promise.all([own.activeRuns, own.activeCalls].map((key) => this.#all(key, userId)));
    const connections = await mapRedisErrors(this.#deps.redis.zcount(own.leases, nowMs, '+inf'));
    return {
      runs: (runs ?? []).map((member) => member.slice(userId.length + 1)),
      calls: calls?.length ?? 0,
      connections,
    };
  }

  /**
   * Deletes everything except the account. Idempotent.
   * @param erasureId the erasure in progress; the script deletes nothing after its end
   * @returns the number of keys deleted
   */
  async erase(userId: string, erasureId: string): Promise<number> {
    const own = this.#deps.keys.user(userId);
    const erase = async (key: string, members: readonly string[] = []) => {
      return eraseKey.run(this.#deps.redis, [own.account, key], [erasureId, ...members]);
    };
    let deleted = 0;
    for await (const keys of this.keys(userId)) {
      const counts = await Promise.all(keys.map(({ key }) => erase(key)));
      deleted += counts.reduce((sum, count) => sum + count, 0);
    }
    for (const shared of [own.tokenDue, own.activeRuns, own.unsuccessfulRuns, own.activeCalls]) {
      for await (const members of this.#ofUser(shared, userId)) if (members.length > 0) await erase(shared, members);
    }
    return deleted;
  }

  /** Removes the invalidations that name the user. @returns how many were removed */
  async eraseInvalidations(userId: string): Promise<number> {
    const named: string[] = [];
    for await (const [id, fields] of this.#entries(this.#deps.keys.invalidations)) {
      const at = fields.indexOf('user');
      if (at >= 0 && at % 2 === 0 && fields[at + 1] === userId) named.push(id);
    }
    const removed = (await this.#eraseAudited(userId)) + (await this.#eraseRefusals(userId));
    if (named.length === 0) return removed;
    return removed + (await mapRedisErrors(this.#deps.redis.xdel(this.#deps.keys.invalidations, ...named)));
  }

  /** Removes the entries of the audit log that name the user. The erasure itself remains, with who requested it. */
  async #eraseAudited(userId: string): Promise<number> {
    let removed = 0;
    for await (const [id, fields] of this.#entries(this.#deps.keys.auditLog)) {
      if (isAbout(fields, userId)) removed += await mapRedisErrors(this.#deps.redis.xdel(this.#deps.keys.auditLog, id));
    }
    return removed;
  }

  async #eraseRefusals(userId: string): Promise<number> {
    let removed = 0;
    for await (const [id, fields] of this.#entries(this.#deps.keys.refusals)) {
      if (fields[1] === userId) removed += await mapRedisErrors(this.#deps.redis.xdel(this.#deps.keys.refusals, id));
    }
    return removed;
  }

  /** Yields all data of the user, one entry at a time. */
  async *export(userId: string): AsyncGenerator<UserEntry> {
    const own = this.#deps.keys.user(userId);
    yield* this.#read({ name: 'account', id: null, key: own.account });
    for await (const keys of this.keys(userId)) for (const key of keys) yield* this.#read(key);
    for await (const [id, [field, json = '', ..._rest]] of this.#entries(own.outbox)) {
      const data = parsed(json) as { user_id?: unknown };
      if (data.user_id === userId) yield { section: 'outbox', id, data: { [field ?? '']: data } };
    }
    for await (const [id, fields] of this.#entries(this.#deps.keys.invalidations)) {
      if (fields[fields.indexOf('user') + 1] === userId) yield { section: 'announcements', id, data: pairs(fields) };
    }
    for await (const [id, fields] of this.#entries(this.#deps.keys.auditLog)) {
      if (isAbout(fields, userId)) yield { section: 'audit', id, data: pairs(fields) };
    }
    for await (const [id, fields] of this.#entries(this.#deps.keys.refusals)) {
      if (fields[1] === userId) yield { section: 'refusals', id, data: pairs(fields) };
    }
  }

  async *#read({ name: section, id, key }: UserKey): AsyncGenerator<UserEntry> {
    const type = await mapRedisErrors(this.#deps.redis.type(key));
    if (type === 'string') yield { section, id, data: parsed((await mapRedisErrors(this.#deps.redis.get(key))) ?? '') };
    if (type === 'stream') {
      for await (const [entry, fields] of this.#entries(key))
        yield { section, id, data: { id: entry, ...pairs(fields) } };
    }
    if (type === 'list') {
      for (let from = 0; ; from += BATCH) {
        const items = await mapRedisErrors(this.#deps.redis.lrange(key, from, from + BATCH - 1));
        for (const item of items) yield { section, id, data: parsed(item) };
        if (items.length < BATCH) return;
      }
    }
    if (type === 'hash' || type === 'zset' || type === 'set') {
      for await (const items of this.#scan(type, key)) {
        if (type === 'set') for (const data of items) yield { section, id, data };
        else yield { section, id, data: pairs(items) };
      }
    }
  }

  async *#entries(key: string): AsyncGenerator<[id: string, fields: string[]]> {
    for (let from = '-'; ; ) {
      const entries = await mapRedisErrors(this.#deps.redis.xrange(key, from, '+', 'COUNT', BATCH));
      yield* entries;
      const last = entries.at(-1);
      if (!last || entries.length < BATCH) return;
      from = `(${last[0]}`;
    }
  }

  async #all(key: string, userId: string): Promise<string[]> {
    const found: string[] = [];
    for await (const members of this.#ofUser(key, userId)) found.push(...members);
    return found;
  }

  /** Yields the members `<user id> …` of a sorted set that the users of a partition share. */
  async *#ofUser(key: string, userId: string): AsyncGenerator<string[]> {
    for await (const items of this.#scan('zset', key)) {
      yield items.filter((member, at) => at % 2 === 0 && member.startsWith(`${userId} `));
    }
  }

  async *#members(key: string): AsyncGenerator<string[]> {
    for await (const items of this.#scan('zset', key)) yield items.filter((_, at) => at % 2 === 0);
  }

  /** May yield an item twice. */
  async *#scan(type: 'hash' | 'zset' | 'set', key: string): AsyncGenerator<string[]> {
    let cursor = '0';
    do {
      const step = { hash: 'hscan', zset: 'zscan', set: 'sscan' } as const;
      const [next, items] = await mapRedisErrors(this.#deps.redis[step[type]](key, cursor, 'COUNT', BATCH));
      yield items.map(String);
      cursor = next;
    } while (cursor !== '0');
  }
}

/** Whether an entry of the audit log names the user, as the actor or as the one concerned. */
function isAbout([, json = '']: readonly string[], userId: string): boolean {
  const { actor, target } = (parsed(json) ?? {}) as { actor?: unknown; target?: { user_id?: unknown } };
  return actor === `user:${userId}` || target?.user_id === userId;
}

function pairs(flat: readonly string[]): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (let at = 0; at + 1 < flat.length; at += 2) {
    const [name = '', value = ''] = [flat[at], flat[at + 1]];
    found[name] = CREDENTIALS.has(name) ? '(sealed)' : parsed(value);
  }
  return found;
}

/** Parses JSON objects and arrays; returns other values as text. */
function parsed(text: string): unknown {
  if (!/^[[{]/.test(text)) return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
