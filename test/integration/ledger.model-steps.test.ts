import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { LedgerRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { EVERYTHING_PASSED, HOUR, type UsageFixture, usageFixture } from '../support/usage.ts';

const TOKENS = { input_tokens: 1_200, output_tokens: 30 };
const STEP = { tool: 'model:small', units: 2, counted: { units_by_kind: TOKENS } };

let redis: Redis;
let usage: UsageFixture;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
});

/** Two steps of a model, one of them estimated, between tool calls. */
beforeEach(async () => {
  usage = usageFixture(redis);
  await usage.execute({}, STEP, {});
  await usage.execute({ ...STEP, units: 3, counted: { ...STEP.counted, estimated: true } });
  await usage.ingestAll();
});

const verified = () => usage.verifier.verify([HOUR]);

describe('steps of a model in the ledger', () => {
  it('keep what was counted, and are in windows and tallies like any other record', async () => {
    const steps = (await usage.records()).filter(({ tool }) => tool === STEP.tool);
    expect(steps.map(({ units_by_kind, estimated }) => [units_by_kind, estimated])).toEqual([
      [TOKENS, undefined],
      [TOKENS, true],
    ]);
    const tallies = await usage.tallies.query({ hours: [HOUR], groupBy: ['tool'] });
    expect(tallies).toMatchObject([
      { tool: 'analyze_workload', executions: 2, units: 10 },
      { tool: 'model:small', executions: 2, succeeded: 2, units: 5 },
    ]);
    await usage.windows.closeDue(EVERYTHING_PASSED);
    expect(await verified()).toMatchObject({ ok: true, checked_records: 4, unsettled: [] });
  });

  it.each<[string, (record: LedgerRecord) => LedgerRecord]>([
    ['tokens were lowered', (record) => ({ ...record, units_by_kind: { ...TOKENS, input_tokens: 1 } })],
    ['tokens were taken out', ({ units_by_kind: _, ...record }) => record],
    ['estimate was made a count', ({ estimated: _, ...record }) => record],
  ])('are named by verify when their %s', async (_label, forge) => {
    const records = await usage.records();
    await redis.del(usage.keys.ledger);
    for (const record of records.map((one) => (one.sequence === 4 ? forge(one) : one))) {
      await redis.xadd(usage.keys.ledger, `${record.sequence}-0`, 'r', JSON.stringify(record), 'a', '1');
    }
    expect(await verified()).toMatchObject({ ok: false, problem: { kind: 'chain', sequence: 4 } });
  });

  it('can be corrected, in units; what the model counted stays with the step', async () => {
    const step = (await usage.records())[1] as LedgerRecord;
    const request = { recordId: step.id, sequence: step.sequence, units: -2, reason: 'a wrong price' };
    const result = await usage.corrections.record({ serviceId: 'billing', idempotencyKey: 'key_1' }, request);
    expect(result.outcome).toBe('recorded');
    await usage.ingestAll();
    const correction = (await usage.records()).at(-1);
    expect(correction).toMatchObject({ tool: 'model:small', corrects: step.id, units: -2 });
    expect(correction).not.toHaveProperty('units_by_kind');
    expect(await verified()).toMatchObject({ ok: true });
  });
});
