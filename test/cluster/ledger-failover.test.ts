import { beforeAll, describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import type { UsageRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import { slotOf } from '../../src/redis/slots.ts';
import { LedgerWriter } from '../../src/usage/ledger/ledger-writer.ts';
import { type PendingEntry, trimOutboxes } from '../../src/usage/outbox/outboxes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisClusterProcesses } from '../support/redis-cluster.ts';
import type { RedisProcess } from '../support/redis-process.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';
import { frozenBeforeWriting, HOUR, type UsageFixture, usageFixture } from '../support/usage.ts';

/** Maximum difference of the clocks in this test. */
const HOUR_MS = 3_600_000;

let cluster: RedisClusterProcesses;
let redis: Redis;

beforeAll(async () => {
  cluster = await RedisClusterProcesses.start({ replicas: 1 });
  closeAfter('file', () => cluster.close());
  redis = await connectRedis(cluster.url, 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
}, 60_000);

function shardOf(key: string): number {
  return Math.floor((slotOf(key) * cluster.masters.length) / 16_384);
}

/** Returns a user whose outbox is on another shard than the ledger, and the number of the shard. */
function userBesideLedger({ keys }: UsageFixture): { userId: string; shard: number } {
  for (;;) {
    const userId = freshUserId();
    const shard = shardOf(keys.outbox(partitionOf(userId)));
    if (shard !== shardOf(keys.ledgerState)) return { userId, shard };
  }
}

/** Keeps the replica of a master from receiving further writes. */
async function stopReplication(master: RedisProcess, replica: RedisProcess): Promise<void> {
  await master.ask(async (server) => {
    await server.wait(1, 5_000);
    await server.config('SET', 'requirepass', 'unknown to the replica');
    await server.call('CLIENT', 'KILL', 'TYPE', 'replica');
  });
  const isCut = async () => (await replica.ask((server) => server.info('replication'))).includes('link_status:down');
  await until(isCut, { label: 'a replica without its master' });
}

async function failOver(master: RedisProcess, replica: RedisProcess): Promise<void> {
  await master.kill('SIGKILL');
  const isMaster = async () => (await replica.ask((server) => server.info('replication'))).includes('role:master');
  await until(isMaster, { timeoutMs: 20_000, label: 'the replica as master' });
}

/** Writes a record with an entry id of a clock that is ahead. */
async function writeAhead({ keys }: UsageFixture, record: UsageRecord): Promise<void> {
  await redis.xadd(keys.outbox(partitionOf(record.user_id)), `${Date.now() + HOUR_MS}-0`, 'r', JSON.stringify(record));
}

describe('a shard of a Redis Cluster that loses ingested entries in a failover', () => {
  it('charges returned and repeated records once, and those under the clock of the new master too', async () => {
    const usage = usageFixture(redis);
    const { userId, shard } = userBesideLedger(usage);
    const [master, replica] = [cluster.masters[shard], cluster.replicas[shard]] as [RedisProcess, RedisProcess];
    const outbox = usage.keys.outbox(partitionOf(userId));
    const writeAgain = (record: UsageRecord) => redis.xadd(outbox, '*', 'r', JSON.stringify(record));

    // The replica has these entries, but not their trim.
    const returning = await usage.execute({ userId }, { userId });
    await usage.refuse(userId);
    await stopReplication(master, replica);
    const lost = await usage.execute({ userId }, { userId });
    const ahead = await unwritten(usage, userId);
    await writeAhead(usage, ahead);
    await usage.ingestAll();
    const ingested = [...returning, ...lost, ahead].map(({ id }) => id);
    expect((await usage.records()).map(({ id }) => id)).toEqual(ingested);

    // A writer has read a batch from the former master, and freezes before it appends it.
    const late = await unwritten(usage, userId);
    await writeAhead(usage, late);
    const frozen = frozenBeforeWriting(redis);
    const sleeper = new LedgerWriter({ redis: frozen.redis, keys: usage.keys }).ingest(Date.now());
    await frozen.reached;

    await failOver(master, replica);
    const isServed = () => redis.xlen(outbox).then((length) => length === 3);
    await until(isServed, { timeoutMs: 20_000, label: 'the returned entries' });
    // A client repeats its lost call, and a worker restores its run.
    for (const record of lost) await writeAgain(record);
    const fresh = await usage.execute({ userId });
    // The trim of a pass that read from the former master arrives late.
    const former = { name: String(partitionOf(userId)), key: outbox, server: { id: 'the former', lastEntryId: '0-0' } };
    const pass = { ...former, pending: [{} as PendingEntry], drained: true, unreadable: false };
    await trimOutboxes(redis, [pass], new Map([[former.name, `${Date.now() + HOUR_MS}-0`]]));
    await usage.ingestAll();
    frozen.go();
    expect(await sleeper).toMatchObject({ records: 0 });
    // Also after the entries were trimmed.
    for (const record of [...returning, ...lost, ahead]) await writeAgain(record);
    const last = await usage.execute({ userId });
    await usage.refuse(userId);
    await usage.ingestAll();

    const charged = (await usage.records()).map(({ id }) => id);
    expect(charged).toEqual([...ingested, ...[...fresh, ...last].map(({ id }) => id)]);
    expect(await redis.xlen(outbox)).toBe(0);
    const [tally] = await usage.tallies.query({ hours: [HOUR], groupBy: [] });
    expect(tally).toMatchObject({ refusals: 2 });
    expect((await usage.verifier.verify([HOUR])).problem).toBeNull();
  }, 60_000);
});

/** Returns the record of an execution that is in no outbox. */
async function unwritten(usage: UsageFixture, userId: string): Promise<UsageRecord> {
  const [record] = await usage.execute({ userId });
  const outbox = usage.keys.outbox(partitionOf(userId));
  const [entry] = await redis.xrevrange(outbox, '+', '-', 'COUNT', 1);
  await redis.xdel(outbox, entry?.[0] ?? '');
  return record as UsageRecord;
}
