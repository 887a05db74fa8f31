import { createHash } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createLogger } from '../../src/lib/logger.ts';
import type { LedgerRecord, UsageRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { hourOf } from '../../src/usage/hours.ts';
import { BEGINNING, type LedgerPosition } from '../../src/usage/ledger/ledger.ts';
import { LedgerWriter } from '../../src/usage/ledger/ledger-writer.ts';
import { measuresOf, NOTHING, rowOf, Sums } from '../../src/usage/measures.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import {
  EVERYTHING_PASSED,
  frozenBeforeWriting,
  HOUR,
  NEXT_HOUR,
  type UsageFixture,
  usageFixture,
} from '../support/usage.ts';

const RUNS = Number(process.env.LEDGER_RUNS ?? 40);

let redis: Redis;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
});

/** The operations of one run, and the expected result. */
class Run {
  readonly usage: UsageFixture = usageFixture(redis);
  readonly appended: UsageRecord[] = [];
  refusals = 0;
  readonly #frozen: { go: () => void; done: Promise<unknown> }[] = [];
  /** A consumer that reads from its last position, which it stores together with the sum. */
  #bill = { at: BEGINNING as LedgerPosition, units: 0, records: 0 };

  async append(user: number, hour: string, units: number): Promise<void> {
    this.appended.push(...(await this.usage.execute({ userId: `user_${user}`, hour, units })));
  }

  async refuse(user: number): Promise<void> {
    await this.usage.refuse(`user_${user}`);
    this.refusals += 1;
  }

  /** A writer that pauses before its write and completes it later. */
  async freeze(): Promise<void> {
    const { redis: slow, reached, go } = frozenBeforeWriting(redis);
    const done = new LedgerWriter({ redis: slow, keys: this.usage.keys }).ingest(Date.now());
    await Promise.race([reached, done]);
    this.#frozen.push({ go, done });
  }

  async thaw(): Promise<void> {
    for (const { go, done } of this.#frozen.splice(0)) {
      go();
      await done;
    }
  }

  async close(): Promise<void> {
    const { completeUntil } = await this.usage.writer.ingest(Date.now());
    if (completeUntil !== undefined) await this.usage.windows.closeDue(EVERYTHING_PASSED);
  }

  async correct(pick: number, units: number, key: number): Promise<void> {
    const records = (await this.usage.records()).filter(({ corrects }) => corrects === undefined);
    const record = records[pick % Math.max(1, records.length)];
    if (!record) return;
    const request = { recordId: record.id, sequence: record.sequence, units, reason: 'test' };
    const result = await this.usage.corrections.record({ serviceId: 'billing', idempotencyKey: `key_${key}` }, request);
    if (result.outcome === 'recorded') this.appended.push(result.record);
  }

  /** Reads one page; a crash loses what was read and not stored. */
  async consume(limit: number, crashes: boolean): Promise<void> {
    const page = await this.usage.ledger.read({ after: this.#bill.at, limit });
    expect(page.gapDetected).toBe(false);
    if (crashes) return;
    const units = page.records.reduce((sum, record) => sum + record.units, this.#bill.units);
    this.#bill = { at: page.end, units, records: this.#bill.records + page.records.length };
  }

  async end(): Promise<void> {
    await this.thaw();
    await this.usage.ingestAll();
    for (let read = -1; read < this.#bill.records; ) {
      read = this.#bill.records;
      await this.consume(3, false);
    }
    const records = await this.usage.records();
    this.#expectLedger(records);
    const hours = [HOUR, NEXT_HOUR, ...new Set(records.flatMap((r) => (r.corrects ? [r.period] : [])))].sort();
    await this.#expectTallies(records, hours);
    await this.#expectWindows(records, hours);
    for (const hour of hours) expect((await this.usage.verifier.verify([hour])).problem).toBeNull();
  }

  #expectLedger(records: readonly LedgerRecord[]): void {
    expect(records.map(({ sequence }) => sequence)).toEqual(records.map((_, at) => at + 1));
    expect(records.map(({ id }) => id).toSorted()).toEqual(this.appended.map(({ id }) => id).toSorted());
    const units = this.appended.reduce((sum, record) => sum + record.units, 0);
    expect(this.#bill).toMatchObject({ units, records: this.appended.length });
  }

  async #expectTallies(records: readonly LedgerRecord[], hours: readonly string[]): Promise<void> {
    const refused = await this.usage.tallies.query({ hours, groupBy: [] });
    expect(refused[0]?.refusals ?? 0).toBe(this.refusals);
    for (const hour of hours) {
      const sums = new Sums();
      for (const record of records) if (record.period === hour) sums.add(rowOf(record), measuresOf(record));
      const stored = [...(await this.usage.tallies.rows(hour))].map(([row, sum]) => [row, { ...sum, refusals: 0 }]);
      const ofRecords = stored.filter(([, sum]) => JSON.stringify(sum) !== JSON.stringify(NOTHING));
      expect(new Map(ofRecords as [string, typeof NOTHING][])).toEqual(sums.rows);
    }
  }

  async #expectWindows(records: readonly LedgerRecord[], hours: readonly string[]): Promise<void> {
    let counted = 0;
    for (const { window, closed, open } of await this.usage.windows.read(hours)) {
      let after = 0;
      for (const revision of open ? [...closed, open] : closed) {
        const { first_sequence: from, last_sequence: to } = revision;
        const of = records.filter(({ period, sequence }) => period === window && from <= sequence && sequence <= to);
        expect(from).toBeGreaterThan(after);
        after = to;
        counted += of.length;
        expect(revision.record_count).toBe(of.length);
        if (revision.status === 'closed') expect(revision.sha256).toBe(digestOf(of));
      }
    }
    expect(counted).toBe(records.length);
  }
}

function digestOf(records: readonly LedgerRecord[]): string {
  const hash = createHash('sha256');
  for (const { id } of records) hash.update(`${id}\n`);
  return hash.digest('hex');
}

type Step = (run: Run) => Promise<unknown>;

const hour = fc.constantFrom(HOUR, NEXT_HOUR);
const step: fc.Arbitrary<readonly [string, Step]> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.nat(9), hour, fc.nat(9))
      .map(([u, h, n]) => [`append ${u} ${h} ${n}`, (r: Run) => r.append(u, h, n)] as const),
  },
  { weight: 1, arbitrary: fc.nat(9).map((u) => [`refuse ${u}`, (r: Run) => r.refuse(u)] as const) },
  { weight: 3, arbitrary: fc.constant(['fold', (r: Run) => r.usage.writer.ingest(Date.now())] as const) },
  { weight: 2, arbitrary: fc.constant(['freeze', (r: Run) => r.freeze()] as const) },
  { weight: 2, arbitrary: fc.constant(['thaw', (r: Run) => r.thaw()] as const) },
  { weight: 2, arbitrary: fc.constant(['close', (r: Run) => r.close()] as const) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.nat(20), fc.integer({ min: -6, max: 6 }), fc.nat(5))
      .map(([p, u, k]) => [`correct ${p} ${u} ${k}`, (r: Run) => r.correct(p, u || 1, k)] as const),
  },
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.integer({ min: 1, max: 5 }), fc.boolean())
      .map(([n, c]) => [`consume ${n} ${c}`, (r: Run) => r.consume(n, c)] as const),
  },
);

describe('the ledger', () => {
  it(
    `agrees with its tallies, windows and a consumer that crashes: ${RUNS} interleavings`,
    async () => {
      expect(hourOf(Date.now())).not.toBe(HOUR);
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
          const run = new Run();
          for (const [, act] of steps) await act(run);
          await run.end();
        }),
        { numRuns: RUNS, endOnFailure: true },
      );
    },
    Math.max(120_000, RUNS * 1_000),
  );
});
