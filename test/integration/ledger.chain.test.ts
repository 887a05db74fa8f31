import { createHash, randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import type { LedgerRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys, PARTITIONS } from '../../src/redis/keys.ts';
import { BEGINNING, chainHash, Ledger } from '../../src/usage/ledger/ledger.ts';
import { LedgerWriter } from '../../src/usage/ledger/ledger-writer.ts';
import { usageRecord } from '../../src/usage/records.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';

let redis: Redis;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
});

/** A private ledger, and a function that appends records to its outboxes. */
function freshLedger() {
  const keys = new Keys(`l${randomBytes(6).toString('hex')}`);
  let calls = 0;
  const execute = async (partition: number, count = 1) => {
    for (let i = 0; i < count; i++) {
      calls += 1;
      const execution = {
        callId: `call_${calls}`,
        user_id: `user_${partition}`,
        plan: 'pro',
        tool: calls % 2 ? 'analyze_workload' : 'list_agents',
        permission: 'basic',
        status: 'success',
        units: 1,
        run_id: 'run_1',
        thread_id: null,
        request_id: 'req "1" – ümläut',
        idempotency_key: null,
        transport: 'websocket',
        acceptedAt: 1_000,
        startedAt: 1_000,
        completedAt: 2_000,
      } as const;
      await redis.xadd(keys.outbox(partition), '*', 'r', JSON.stringify(usageRecord(execution)));
    }
  };
  return { keys, ledger: new Ledger({ redis, keys }), writer: new LedgerWriter({ redis, keys }), execute };
}

async function everything(ledger: Ledger): Promise<readonly LedgerRecord[]> {
  return (await ledger.read({ after: BEGINNING, limit: 1_000 })).records;
}

/** Returns the first sequence whose hash does not follow from the record and the preceding hash. */
function firstBreak(records: readonly LedgerRecord[]): number | undefined {
  let previous = '';
  for (const { hash, ...record } of records) {
    if (chainHash(previous, record) !== hash) return record.sequence;
    previous = hash;
  }
  return undefined;
}

describe('the ledger', () => {
  it('B116 chains each record to the one before: SHA-256 over that hash, a line break and the record', () => {
    const record = { id: 'usage_1', sequence: 1 } as LedgerRecord;
    const expected = createHash('sha256').update('abc\n{"id":"usage_1","sequence":1}').digest('hex');
    expect(chainHash('abc', record)).toBe(expected);
  });

  it('gives records of all partitions one sequence without gaps, and a chain that anyone can check', async () => {
    const { ledger, writer, execute } = freshLedger();
    for (const partition of [0, 5, PARTITIONS - 1]) await execute(partition, 3);
    expect(await writer.ingest(5_000)).toMatchObject({ records: 9 });
    await execute(5, 2);
    expect(await writer.ingest(5_000)).toMatchObject({ records: 2 });

    const records = await everything(ledger);
    expect(records.map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(new Set(records.map(({ id }) => id)).size).toBe(11);
    expect(firstBreak(records)).toBeUndefined();
  });

  it('shows in the chain which record was changed, left out or put elsewhere', async () => {
    const { ledger, writer, execute } = freshLedger();
    await execute(1, 5);
    await writer.ingest(5_000);
    const records = await everything(ledger);
    const changed = records.map((record) => (record.sequence === 3 ? { ...record, units: 0 } : record));
    expect(firstBreak(changed)).toBe(3);
    expect(firstBreak(records.filter(({ sequence }) => sequence !== 2))).toBe(3);
    expect(firstBreak(records.toReversed())).toBe(5);
  });

  it('ingests each record once, however often and by however many writers', async () => {
    const { keys, ledger, writer, execute } = freshLedger();
    const others = Array.from({ length: 4 }, () => new LedgerWriter({ redis, keys }));
    await execute(7, 20);
    await Promise.all(others.map((other) => other.ingest(5_000)));
    expect(await writer.ingest(5_000)).toMatchObject({ records: 0, lagMs: 0, completeUntil: expect.any(Number) });
    const records = await everything(ledger);
    expect(records).toHaveLength(20);
    expect(firstBreak(records)).toBeUndefined();
    expect(await redis.xlen(keys.outbox(7))).toBe(0);
  });

  it('reads in pages that join without a gap, filtered or not', async () => {
    const { ledger, writer, execute } = freshLedger();
    await execute(1, 7);
    await writer.ingest(5_000);
    for (const filter of [{}, { tool: 'list_agents' }, { userId: 'user_1' }]) {
      const read: number[] = [];
      let page = await ledger.read({ after: BEGINNING, limit: 2, ...filter });
      for (;;) {
        read.push(...page.records.map(({ sequence }) => sequence));
        expect(page.gapDetected).toBe(false);
        if (!page.hasMore) break;
        page = await ledger.read({ after: page.end, limit: 2, ...filter });
      }
      expect(read).toEqual('tool' in filter ? [2, 4, 6] : [1, 2, 3, 4, 5, 6, 7]);
      expect((await ledger.read({ after: page.end, limit: 2, ...filter })).records).toEqual([]);
    }
    expect((await ledger.read({ after: BEGINNING, limit: 5, userId: 'user_2' })).records).toEqual([]);
  });

  it('reports to a reader that unread records were trimmed', async () => {
    const { keys, ledger, writer, execute } = freshLedger();
    await execute(1, 3);
    await writer.ingest(5_000);
    await redis.xtrim(keys.ledger, 'MINID', '3-0');
    expect((await ledger.read({ after: BEGINNING, limit: 5 })).gapDetected).toBe(true);
    expect((await ledger.read({ after: { sequence: 2, hash: '' }, limit: 5 })).gapDetected).toBe(false);
  });
});
