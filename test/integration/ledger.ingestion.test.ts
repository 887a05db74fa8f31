import { beforeAll, describe, expect, it } from '@jest/globals';
import type { LedgerRecord } from '../../src/protocol/usage.ts';
import { BEGINNING, chainHash, Ledger } from '../../src/usage/ledger/ledger.ts';
import { LedgerWriter } from '../../src/usage/ledger/ledger-writer.ts';
import { usageRecord } from '../../src/usage/records.ts';
import { type Core, startCore, thinking } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';

let core: Core;

beforeAll(async () => {
  core = await startCore();
});

/** Executions of fresh users, spread over the partitions; returns the ids of their records. */
async function execute(count: number): Promise<string[]> {
  const records = Array.from({ length: count }, (_, i) =>
    usageRecord({
      callId: `call_${i}`,
      user_id: freshUserId(),
      plan: 'pro',
      tool: i % 2 ? 'system_health' : 'analyze_workload',
      permission: 'analytics',
      status: 'success',
      units: 5,
      run_id: `run_${i}`,
      thread_id: null,
      request_id: null,
      idempotency_key: null,
      transport: 'websocket',
      acceptedAt: Date.now() - 3,
      startedAt: Date.now() - 3,
      completedAt: Date.now(),
    }),
  );
  await Promise.all(
    records.map((record) => {
      const event = { ...thinking('done'), usageRecord: { ...record } };
      return core.log.append({ userId: record.user_id, events: [event] });
    }),
  );
  return records.map(({ id }) => id);
}

async function wholeLedger(ledger: Ledger, pageSize: number): Promise<LedgerRecord[]> {
  const records: LedgerRecord[] = [];
  for (let after = BEGINNING; ; ) {
    const page = await ledger.read({ after, limit: pageSize });
    records.push(...page.records);
    after = page.end;
    if (!page.hasMore) return records;
  }
}

describe('the ledger', () => {
  it('ingests every record once, gap-free and chained, with eight concurrent writers', async () => {
    const ledger = new Ledger(core);
    const ids: string[] = [];
    const writing = (async () => {
      for (let round = 0; round < 10; round++) ids.push(...(await execute(60)));
    })();
    const ingesting = Array.from({ length: 8 }, async () => {
      const writer = new LedgerWriter(core);
      for (let round = 0; round < 25; round++) await writer.ingest(Date.now());
    });
    await Promise.all([writing, ...ingesting]);
    while ((await new LedgerWriter(core).ingest(Date.now())).records > 0);

    const records = await wholeLedger(ledger, 70);
    expect(records.map(({ sequence }) => sequence)).toEqual(records.map((_, i) => i + 1));
    expect(records.map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
    let previous = '';
    for (const { hash, ...record } of records) {
      expect(hash).toBe(chainHash(previous, record));
      previous = hash;
    }
  });

  it('reads the same bytes twice, filtered and not', async () => {
    const ledger = new Ledger(core);
    await execute(20);
    await new LedgerWriter(core).ingest(Date.now());
    for (const feed of [{}, { tool: 'system_health' }]) {
      const [first, second] = await Promise.all([
        ledger.read({ after: { sequence: 3, hash: '' }, limit: 10, ...feed }),
        ledger.read({ after: { sequence: 3, hash: '' }, limit: 10, ...feed }),
      ]);
      expect(JSON.stringify(second)).toBe(JSON.stringify(first));
    }
    const { records } = await ledger.read({ after: BEGINNING, limit: 5, tool: 'system_health' });
    expect(new Set(records.map(({ tool }) => tool))).toEqual(new Set(['system_health']));
  });

  it('has the same bytes with and without tracing: ingestion drops the trace beside the record', async () => {
    const [plain, traced] = [await startCore(), await startCore()];
    const record = usageRecord({
      ...{ callId: 'call_1', user_id: 'user_1', plan: 'pro', tool: 'system_health', permission: 'monitoring' },
      ...{ status: 'success', units: 1, run_id: null, thread_id: null, request_id: null, idempotency_key: null },
      ...{ transport: 'websocket', acceptedAt: 1_000, startedAt: 1_000, completedAt: 2_000 },
    });
    const trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    await plain.redis.xadd(plain.keys.outbox(3), '*', 'r', JSON.stringify(record));
    await traced.redis.xadd(traced.keys.outbox(3), '*', 'r', JSON.stringify(record), 't', trace);
    const bytes: string[] = [];
    for (const one of [plain, traced]) {
      expect((await new LedgerWriter(one).ingest(Date.now())).records).toBe(1);
      const { records } = await new Ledger(one).read({ after: BEGINNING, limit: 10 });
      // Every ledger draws its own salts, which the hash covers.
      bytes.push(JSON.stringify(records.map(({ salt: _, hash: __, ...rest }) => rest)));
    }
    expect(bytes[1]).toBe(bytes[0]);
    expect(JSON.stringify(await traced.redis.xrange(traced.keys.ledger, '-', '+'))).not.toContain('0af7651916cd');
  });

  it('says so when records before the first that is left are gone', async () => {
    const ledger = new Ledger(core);
    await execute(5);
    await new LedgerWriter(core).ingest(Date.now());
    await core.redis.xtrim(core.keys.ledger, 'MINID', '4-0');
    expect((await ledger.read({ after: BEGINNING, limit: 10 })).gapDetected).toBe(true);
    expect((await ledger.read({ after: { sequence: 3, hash: '' }, limit: 10 })).gapDetected).toBe(false);
  });
});
