import type { LedgerRecord } from '../../protocol/usage.ts';
import type { Redis } from '../../redis/client.ts';
import { mapRedisErrors } from '../../redis/errors.ts';
import { type Keys, partitionOf } from '../../redis/keys.ts';
import { done } from '../../redis/replies.ts';
import { LuaScript } from '../../redis/scripts.ts';
import { RESUBMITTED_SECONDS } from '../ledger/append-batch.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { type Outbox, type OutboxServer, SERVER_PREFIX } from '../outbox/outboxes.ts';
import { parseLedgerRecord } from '../records.ts';
import { isErased } from '../redaction.ts';

const rewindOutboxes = LuaScript.load('rewindOutboxes-1', done);

/**
 * Ingested records can return only if the last server had them for less than this time before it failed: the longest
 * replication lag, plus the difference of the clocks. A replica that is further behind is not promoted
 * (`cluster-replica-validity-factor`; 160 s by default).
 */
const LOST_MS = 10 * 60_000;
/** Maximum number of records whose ids are kept: about 80 MB. One read of the ledger serves all outboxes. */
const MAX_KEPT = 1_000_000;
/** Ids sent per command. */
const BATCH = 1_000;

type State = Readonly<Record<string, string>>;

interface MovedOutboxesDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly ledger: Ledger;
}

/** An outbox on Redis Cluster whose server is not the one in the state of the ledger. */
export interface MovedOutbox extends Outbox {
  readonly server: OutboxServer;
}

/** Returns the outboxes that have another server than in the state: none without Redis Cluster. */
export function movedAmong(outboxes: readonly Outbox[], state: State): MovedOutbox[] {
  const isMoved = (one: Outbox): one is MovedOutbox => {
    return one.server !== undefined && one.server.id !== state[SERVER_PREFIX + one.name];
  };
  return outboxes.filter(isMoved);
}

/**
 * Lets ingestion read the outboxes again from their beginning, because their servers have changed (a failover, a
 * restart, a moved slot) and may have lost their last writes. Two things are then wrong with the cursor of an outbox:
 * entries that were written since can be at or before it, and records before it can be written again, by a client that
 * repeats its lost call or a worker that restores its run. So the ids of the last ledger records of these outboxes are
 * stored first: ingestion skips records with these ids.
 *
 * It does nothing if the ledger changes meanwhile: the next pass begins again.
 * @param asOf time of Redis shortly before the outboxes were read, in milliseconds since the epoch
 * @throws RedisUnavailable
 */
export async function rewind(
  deps: MovedOutboxesDeps,
  moved: readonly MovedOutbox[],
  { state, asOf }: { readonly state: State; readonly asOf: number },
): Promise<void> {
  const suspects = moved.filter(({ name, server }) => {
    const cursor = state[`cursor:${name}`];
    // Without a known server the ledger is that of a version that did not store it.
    if (cursor === undefined || state[SERVER_PREFIX + name] === undefined) return false;
    // A server whose last entry is the last ingested one has lost nothing that was ingested, and got nothing since: but
    // a clock that is behind can assign the id of a lost entry again, so the entry must be older than a loss.
    const isQuiet = asOf - Number.parseInt(cursor, 10) > LOST_MS;
    return !(isQuiet && cursor === server.lastEntryId);
  });
  await keepIds(deps, suspects, state);
  const rewound = new Set(suspects.map(({ name }) => name));
  const args = moved.flatMap(({ name, server }) => [name, server.id, rewound.has(name) ? server.lastEntryId : '']);
  await rewindOutboxes.run(deps.redis, [deps.keys.ledgerState], [state.hash ?? '', state.rewinds ?? '', ...args]);
}

/** Stores the ids of the ledger's records that the outboxes may have lost. */
async function keepIds(
  { redis, keys, ledger }: MovedOutboxesDeps,
  suspects: readonly MovedOutbox[],
  state: State,
): Promise<void> {
  if (suspects.length === 0) return;
  const names = new Set(suspects.map(({ name }) => name));
  const since = Math.min(...suspects.map(({ name }) => Number.parseInt(state[`cursor:${name}`] ?? '0', 10))) - LOST_MS;
  let read = 0;
  for await (const batch of ledger.backwards(Number(state.sequence ?? 0), since)) {
    const records = batch.map(({ json }) => parseLedgerRecord(json));
    // The partition of an erased user is unknown.
    const isWanted = (one: LedgerRecord) => isErased(one) || names.has(String(partitionOf(one.user_id)));
    const ids = records.filter(isWanted).map(({ id }) => id);
    for (let at = 0; at < ids.length; at += BATCH) {
      await mapRedisErrors(redis.sadd(keys.resubmittedIds, ...ids.slice(at, at + BATCH)));
    }
    await mapRedisErrors(redis.expire(keys.resubmittedIds, RESUBMITTED_SECONDS));
    read += batch.length;
    if (read >= MAX_KEPT) return;
  }
}
