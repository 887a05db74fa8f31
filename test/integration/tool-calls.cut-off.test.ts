import { beforeAll, describe, expect, it } from '@jest/globals';
import type { Catalogues } from '../../src/catalogue/catalogues.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { type BeginCall, type BeginResult, CallStore, type EndCall } from '../../src/tools/call-store.ts';
import type { ToolOutcome } from '../../src/tools/outcome.ts';
import { sweepCalls } from '../../workers/sweep-calls.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller, toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';
import { until } from '../support/until.ts';

const NEVER = new Promise<never>(() => undefined);
const RESERVATION_MS = 300;

let core: Core;
let files: Catalogues;

beforeAll(async () => {
  core = await startCore();
  const plans = { one: planRow({ allowances: { work: 5 }, concurrency: 2 }) };
  files = catalogues({ tools: [toolRow({ name: 'work', units: 3 })], plans }, 'file');
});

/** The step at which a process is killed; none of its later calls resolves. */
const STEPS = [
  'before it began',
  'after it began',
  'while the tool ran',
  'before the end was written',
  'after the end was written',
] as const;

/** A node that dies at a step. */
function dyingNode(step: (typeof STEPS)[number], executed: () => void) {
  const executors = {
    work: async () => {
      if (step === 'while the tool ran') return NEVER;
      executed();
      return { done: true };
    },
  };
  return toolNode(core, { catalogues: files, executors, reservationMs: RESERVATION_MS, calls: new DyingCalls(step) });
}

/** A call store whose calls never resolve once the process is dead. */
class DyingCalls extends CallStore {
  readonly #step: (typeof STEPS)[number];

  constructor(step: (typeof STEPS)[number]) {
    super(core);
    this.#step = step;
  }

  override async begin(call: BeginCall): Promise<BeginResult> {
    if (this.#step === 'before it began') return NEVER;
    const begun = await super.begin(call);
    return this.#step === 'after it began' ? NEVER : begun;
  }

  override async end(call: EndCall): Promise<ToolOutcome> {
    if (this.#step !== 'before the end was written') await super.end(call);
    return NEVER;
  }
}

async function eventsOf(userId: string): Promise<string[]> {
  const entries = await core.redis.xrange(core.keys.user(userId).log, '-', '+');
  return entries.map(([, fields]) => fields[1] ?? '');
}

describe('a call whose process is killed', () => {
  it.each(STEPS)('%s ends once, is charged for once at most, and holds no place', async (step) => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    let executions = 0;
    const node = dyingNode(step, () => {
      executions += 1;
    });
    const request = toolRequest(userId, { tool: 'work', caller: anyCaller('one'), idempotencyKey: 'k' });
    void node.service.call(request, UNLIMITED);
    const begins = step !== 'before it began';
    if (begins)
      await until(async () => (await eventsOf(userId)).length >= (step === 'after the end was written' ? 2 : 1));
    const sweep = { calls: new CallStore(core), clock: systemClock, logger: silentLogger };
    await until(
      async () => {
        await sweepCalls(sweep);
        return (await eventsOf(userId)).length === (begins ? 2 : 0);
      },
      { timeoutMs: 5_000 },
    );

    // A client that repeats the call elsewhere gets the outcome, or the first execution.
    const alive = toolNode(core, {
      catalogues: files,
      executors: {
        work: async () => {
          executions += 1;
          return { done: true };
        },
      },
    });
    const result = await (await alive.service.call(request, UNLIMITED)).finished;
    const charged = step === 'before it began' || step === 'after the end was written';
    expect(result).toMatchObject({ success: charged, repeated: begins });
    expect(executions).toBeLessThanOrEqual(1);
    expect(await eventsOf(userId)).toEqual(['tool_executing', 'tool_completed']);
    const records = (await core.redis.lrange(keys.recentUsage, 0, -1)).map((json) => JSON.parse(json));
    expect(records.map(({ id, units }) => [id, units])).toEqual([[result.usage_record_id, charged ? 3 : 0]]);
    expect(await core.redis.zcard(keys.reservations)).toBe(0);
    const summary = await alive.quotas.summary(userId, anyCaller('one'));
    expect(summary).toMatchObject({
      under_way: { calls: 0 },
      today: { calls: charged ? 1 : 0, units: charged ? 3 : 0 },
    });
    expect(summary.tools[0]?.limits[0]?.used).toBe(charged ? 1 : 0);
  });
});

/** The reply to each commit is lost, and the commit is sent again. */
class DeafCalls extends CallStore {
  override async end(call: EndCall): Promise<ToolOutcome> {
    await super.end(call);
    return super.end(call);
  }
}

describe('an end that is sent twice', () => {
  it.each([null, 'k'])('is written once and answered as the first, under the key %s', async (idempotencyKey) => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    const executors = { work: async () => ({ done: true }) };
    const node = toolNode(core, { catalogues: files, executors, calls: new DeafCalls(core) });
    const request = toolRequest(userId, { tool: 'work', caller: anyCaller('one'), idempotencyKey });
    const result = await (await node.service.call(request, UNLIMITED)).finished;
    expect(result).toMatchObject({ success: true, result: { done: true }, usage_record_id: expect.any(String) });
    expect(await eventsOf(userId)).toEqual(['tool_executing', 'tool_completed']);
    expect(await core.redis.llen(keys.recentUsage)).toBe(1);
    expect((await node.quotas.summary(userId, anyCaller('one'))).today).toMatchObject({ calls: 1, units: 3 });
    // A result that cannot be requested again is not kept.
    expect(await core.redis.hexists(keys.call(request.callId), 'outcome')).toBe(idempotencyKey === null ? 0 : 1);
    const kept = await core.redis.pttl(keys.call(request.callId));
    expect(kept > 3_600_000).toBe(idempotencyKey !== null);
    expect(kept).toBeGreaterThan(60_000);
  });
});
