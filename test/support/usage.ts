import { randomBytes } from 'node:crypto';
import { systemClock } from '../../src/lib/clock.ts';
import type { LedgerRecord, UsageRecord } from '../../src/protocol/usage.ts';
import type { Redis } from '../../src/redis/client.ts';
import { Keys, partitionOf } from '../../src/redis/keys.ts';
import { Consumers } from '../../src/usage/ledger/consumers.ts';
import { Corrections } from '../../src/usage/ledger/corrections.ts';
import { BEGINNING, Ledger } from '../../src/usage/ledger/ledger.ts';
import { LedgerWriter } from '../../src/usage/ledger/ledger-writer.ts';
import { Verifier } from '../../src/usage/ledger/verifier.ts';
import { Windows } from '../../src/usage/ledger/windows.ts';
import { refusal, usageRecord } from '../../src/usage/records.ts';
import { Tallies } from '../../src/usage/reports/tallies.ts';

/** An hour long ago, so that tests decide when it ends. */
export const HOUR = '2026-03-01T10';
export const NEXT_HOUR = '2026-03-01T11';
/** A time after which every window is due. */
export const EVERYTHING_PASSED = Date.parse('2100-01-01T00:00:00Z');

export interface UsageFixture extends ReturnType<typeof depsOf> {
  /** Puts executions into the outboxes, like an append. */
  readonly execute: (...executions: readonly Partial<TestExecution>[]) => Promise<UsageRecord[]>;
  readonly refuse: (userId: string, hour?: string) => Promise<void>;
  readonly ingestAll: () => Promise<void>;
  readonly records: () => Promise<LedgerRecord[]>;
}

export interface TestExecution {
  readonly userId: string;
  readonly tool: string;
  readonly plan: string;
  readonly units: number;
  readonly status: UsageRecord['status'];
  readonly hour: string;
  readonly requestId: string;
  /** Of a model step: the fields of its record beside the units. */
  readonly counted: Pick<UsageRecord, 'units_by_kind' | 'estimated'>;
}

/** A private ledger, with everything that reads and writes it. */
export function usageFixture(redis: Redis): UsageFixture {
  const deps = depsOf(redis, new Keys(`u${randomBytes(6).toString('hex')}`));
  const { keys, writer, ledger } = deps;
  let calls = 0;
  const execute: UsageFixture['execute'] = async (...executions) => {
    const records = executions.map((execution) => {
      calls += 1;
      return testRecord(calls, execution);
    });
    for (const record of records) {
      await redis.xadd(keys.outbox(partitionOf(record.user_id)), '*', 'r', JSON.stringify(record));
    }
    return records;
  };
  const refuse: UsageFixture['refuse'] = async (userId, hour = HOUR) => {
    const counted = refusal(userId, 'free', 'analyze_workload', Date.parse(`${hour}:30:00Z`));
    await redis.xadd(keys.outbox(partitionOf(userId)), '*', 'x', JSON.stringify(counted));
  };
  const ingestAll = async () => {
    let ingested = await writer.ingest(Date.now());
    while (ingested.completeUntil === undefined) ingested = await writer.ingest(Date.now());
  };
  const records = async () => {
    const read: LedgerRecord[] = [];
    for (let page = await ledger.read({ after: BEGINNING, limit: 1_000 }); ; ) {
      read.push(...page.records);
      if (!page.hasMore) return read;
      page = await ledger.read({ after: page.end, limit: 1_000 });
    }
  };
  return { ...deps, execute, refuse, ingestAll, records };
}

function depsOf(redis: Redis, keys: Keys) {
  const ledger = new Ledger({ redis, keys });
  const windows = new Windows({ redis, keys, ledger });
  const tallies = new Tallies({ redis, keys });
  return {
    redis,
    keys,
    ledger,
    windows,
    tallies,
    writer: new LedgerWriter({ redis, keys }),
    verifier: new Verifier({ ledger, windows, tallies, clock: systemClock }),
    corrections: new Corrections({ redis, keys, ledger, clock: systemClock }),
    consumers: new Consumers({ redis, keys, ledger, windows }),
  };
}

function testRecord(call: number, execution: Partial<TestExecution>): UsageRecord {
  const { userId = 'user_a', tool = 'analyze_workload', plan = 'pro', units = 5, status = 'success' } = execution;
  const completedAt = Date.parse(`${execution.hour ?? HOUR}:20:00Z`) + call;
  return usageRecord({
    callId: `call_${call}`,
    user_id: userId,
    plan,
    tool,
    permission: 'analytics',
    status,
    units,
    ...execution.counted,
    run_id: 'run_1',
    thread_id: null,
    request_id: execution.requestId ?? 'req "1" – ümläut',
    idempotency_key: null,
    transport: 'websocket',
    acceptedAt: completedAt - 7,
    startedAt: completedAt - 7,
    completedAt,
  });
}

/** A connection whose next `ingestUsage` waits until `go`: a writer frozen in the middle of a batch. */
export function frozenBeforeWriting(redis: Redis): { redis: Redis; reached: Promise<void>; go: () => void } {
  let go = () => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  let arrived = () => {};
  const reached = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  const frozen = new Proxy(redis, {
    get: (target, name) => {
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== 'function') return value;
      if (typeof name !== 'string' || !name.startsWith('ingestUsage')) return value.bind(target);
      return async (...args: unknown[]) => {
        arrived();
        await gate;
        return value.apply(target, args);
      };
    },
  });
  return { redis: frozen, reached, go };
}
