import { Erasures } from '../../src/accounts/erasures.ts';
import { UserData } from '../../src/accounts/user-data.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { Redis } from '../../src/redis/client.ts';
import { masters } from '../../src/redis/connection.ts';
import type { Keys } from '../../src/redis/keys.ts';
import type { UsageArchive } from '../../src/usage/archive/archive.ts';
import { Ledger } from '../../src/usage/ledger/ledger.ts';
import { LedgerErasure } from '../../src/usage/ledger-erasure.ts';
import { Tallies } from '../../src/usage/reports/tallies.ts';
import { type EraseUsersDeps, eraseUsers } from '../../workers/erase-users.ts';
import { silentLogger } from './core.ts';
import { until } from './until.ts';

export interface ErasureOptions extends Partial<Pick<EraseUsersDeps, 'runs' | 'runQueue'>> {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly archive?: UsageArchive | undefined;
}

/** Continues erasures as a worker does, without the wait for late writes. */
export function erasureFixture({ redis, keys, archive, runs, runQueue }: ErasureOptions) {
  const erasures = new Erasures({ redis, keys });
  const ledger = new Ledger({ redis, keys });
  const deps: EraseUsersDeps = {
    redis,
    keys,
    erasures,
    userData: new UserData({ redis, keys }),
    ledgerErasure: new LedgerErasure({ redis, keys, ledger, tallies: new Tallies({ redis, keys }), archive }),
    runs: runs ?? { cancel: async () => 'missing' },
    runQueue: runQueue ?? { remove: async () => undefined },
    clock: systemClock,
    logger: silentLogger,
    quietMs: 0,
  };
  /** One job of the worker. */
  const step = () => eraseUsers(deps);
  /** Continues until the erasure is done. @param between called between two jobs, e.g. to ingest or verify */
  const finish = async (id: string, between: () => Promise<unknown> = async () => undefined) => {
    return until(
      async () => {
        await step();
        await between();
        const state = await erasures.read(id);
        return state?.status === 'done' ? state : undefined;
      },
      { label: `the erasure ${id}`, timeoutMs: 20_000 },
    );
  };
  return { erasures, deps, step, finish };
}

/** Returns every key of a prefix with its content, as text. */
export async function everythingUnder(redis: Redis, prefix: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const master of masters(redis)) {
    for (const key of await master.keys(`*${prefix}*`)) {
      const type = await redis.type(key);
      const content = await contentOf(redis, key, type);
      if (type !== 'none') found.set(key, `${key} ${JSON.stringify(content)}`);
    }
  }
  return found;
}

function contentOf(redis: Redis, key: string, type: string): Promise<unknown> {
  if (type === 'string') return redis.get(key);
  if (type === 'hash') return redis.hgetall(key);
  if (type === 'list') return redis.lrange(key, 0, -1);
  if (type === 'set') return redis.smembers(key);
  if (type === 'zset') return redis.zrange(key, 0, '-1');
  return type === 'stream' ? redis.xrange(key, '-', '+') : Promise.resolve(undefined);
}
