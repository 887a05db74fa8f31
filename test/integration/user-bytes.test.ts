import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import type { Runs } from '../../src/runs/runs.ts';
import { Threads } from '../../src/threads/threads.ts';
import { MAX_RESULT_BYTES } from '../../src/tools/built-in/result.ts';
import { catalogues, planFile, planRow, toolFile, toolRow } from '../support/catalogues.ts';
import { type Core, startCore } from '../support/core.ts';
import { keysOf } from '../support/keys-of.ts';
import { claimRun, completeRun, isRefused, runNodes, startRun, tryRun } from '../support/run-nodes.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller, type ToolNode, toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';

const MIB = 1024 * 1024;
/** The bound in docs/security.md for the plan `free` with default settings. */
const STATED_BYTES = statedMebibytes() * MIB;
/** Hours after which nothing of the first one is left, by the windows of the limits and the retention of records. */
const HOURS = 25;
const FREE = planFile.plans.free as Record<string, number>;
const THREAD_BYTES = 512 * 1024;

let core: Core;

beforeAll(async () => {
  core = await startCore();
});

function statedMebibytes(): number {
  const text = readFileSync(new URL('../../docs/security.md', import.meta.url), 'utf8');
  return Number(/holds \*\*at most (\d+) MiB\*\*/.exec(text)?.[1]);
}

/** Runs work `times` times, with a bounded number at once. */
async function inBatches(times: number, atOnce: number, work: (at: number) => Promise<unknown>): Promise<void> {
  for (let from = 0; from < times; from += atOnce) {
    const batch = Array.from({ length: Math.min(atOnce, times - from) }, (_, at) => work(from + at));
    await Promise.all(batch);
  }
}

async function bytesOf(userId: string): Promise<number> {
  const names = await keysOf(core.redis, `${core.keys.prefix}*${userId}*`);
  const sizes = await Promise.all(names.map((name) => core.redis.memory('USAGE', name, 'SAMPLES', 0)));
  return sizes.reduce((sum: number, size) => sum + Number(size), 0);
}

describe('a user of the plan free', () => {
  it('holds no more of Redis than is stated, after a day at every limit', async () => {
    const day = {
      ...FREE,
      runs_per_hour: HOURS * Number(FREE.runs_per_hour),
      idempotency_keys_per_hour: HOURS * Number(FREE.idempotency_keys_per_hour),
    };
    const files = catalogues({ tools: toolFile.tools, plans: { free: day, ...otherPlans() } });
    const userId = freshUserId();
    const [runs] = await runNodes(core, files.plans, { nodes: 1 });
    if (!runs) throw new Error('one node');
    await callADay(
      toolNode(core, {
        catalogues: files,
        executors: {
          get_thread_history: async () => ({ text: 'h'.repeat(MAX_RESULT_BYTES - 100) }),
          get_agent_status: async () => ({ text: 's'.repeat(300) }),
        },
      }),
      userId,
      day.idempotency_keys_per_hour,
    );
    // Last, because their events are the larger ones: the log ends at its limit in bytes.
    await runADay(runs, userId, day.runs_per_hour);
    const used = await bytesOf(userId);
    expect(used).toBeLessThan(STATED_BYTES);
    // The flood was sufficient: the log and the stored outcomes are at their limits.
    expect(used).toBeGreaterThan(STATED_BYTES / 2);
  }, 180_000);

  /** The fields of other plans that make the files valid. */
  function otherPlans() {
    const { free: _, ...others } = planFile.plans;
    return others;
  }

  async function runADay(runs: Runs, userId: string, perDay: number): Promise<void> {
    const inFlight = Number(FREE.runs_in_flight);
    const ask = (at: number) => {
      const threadId = `thread_${at % Number(FREE.threads)}`;
      const requestId = `${newId('req')}${'r'.repeat(100)}`;
      return startRun(runs, { userId, plan: 'free', threadId, requestId, message: 'm'.repeat(8_000) });
    };
    await inBatches(perDay - inFlight, inFlight, async (at) => {
      const { run_id } = await ask(at);
      await completeRun(core, userId, run_id, 'a'.repeat(4_000));
    });
    await inBatches(inFlight, inFlight, async (at) => {
      const { run_id } = await ask(at);
      const log = await claimRun(core, userId, run_id);
      for (let call = 0; call < 8; call++) {
        const outcome = { success: true, result: 'r'.repeat(60_000), duration_ms: 1, usage_record_id: null };
        await log.toolCompleted({ tool: 'get_thread_history', callId: `call_${run_id}_${call}` }, outcome);
      }
    });
    expect(await tryRun(runs, { userId, plan: 'free', threadId: 'thread_0' })).toMatchObject({
      code: 'QUOTA_EXCEEDED',
    });
  }

  async function callADay(node: ToolNode, userId: string, perDay: number): Promise<void> {
    const history = Number(
      (planFile.plans.free as { allowances: Record<string, number> }).allowances.get_thread_history,
    );
    const call = async (tool: string) => {
      const idempotencyKey = `${newId('req')}${'k'.repeat(100)}`;
      const callId = newId('call');
      const { finished } = await node.service.call(
        toolRequest(userId, { tool, caller: anyCaller('free'), idempotencyKey, callId }),
        UNLIMITED,
      );
      await finished;
    };
    await inBatches(history, 5, () => call('get_thread_history'));
    await inBatches(perDay - history, 5, () => call('get_agent_status'));
    await expect(call('get_agent_status')).rejects.toMatchObject({ code: 'RATE_LIMITED' });
  }
});

describe('the messages of a thread', () => {
  it('stay within their bound in bytes, and the latest ones are kept', async () => {
    const files = catalogues({ tools: [toolRow({ name: 't' })], plans: { one: planRow() } });
    const userId = freshUserId();
    const [runs] = await runNodes(core, files.plans, { nodes: 1 });
    if (!runs) throw new Error('one node');
    for (let at = 0; at < 60; at++) {
      const message = `${at} ${'m'.repeat(8_000)}`;
      const answer = await tryRun(runs, { userId, plan: 'one', threadId: 'thread_1', message });
      if (isRefused(answer)) throw answer;
      await completeRun(core, userId, answer.run_id, 'a'.repeat(8_000));
    }
    const key = core.keys.user(userId).thread('thread_1');
    expect(Number(await core.redis.memory('USAGE', key, 'SAMPLES', 0))).toBeLessThan(1.25 * THREAD_BYTES);
    const { messages } = await new Threads({ ...core, clock: systemClock }).history(userId, {
      threadId: 'thread_1',
      before: undefined,
      limit: 200,
    });
    // Of 120 messages of about 8,080 bytes each, with the overhead of Redis.
    expect(messages).toHaveLength(64);
    expect(messages[1]).toMatchObject({ role: 'user', text: expect.stringMatching(/^59 /) });
  });
});

describe('the idempotency keys of a user', () => {
  const KEYS = 20;
  const files = catalogues(
    { tools: [toolRow({ name: 't' })], plans: { one: planRow({ idempotency_keys_per_hour: KEYS }) } },
    'file',
  );
  const node = () => toolNode(core, { catalogues: files, executors: { t: async () => ({}) } });
  const call = async (on: ToolNode, userId: string, idempotencyKey: string | null) => {
    const callId = idempotencyKey === null ? newId('call') : `call_${idempotencyKey}`;
    const request = toolRequest(userId, { tool: 't', caller: anyCaller('one'), idempotencyKey, callId });
    const { finished } = await on.service.call(request, UNLIMITED);
    return finished;
  };
  const codeOf = async (work: Promise<unknown>) => {
    return work.then(
      () => 'ok',
      (error: { code?: string }) => error.code,
    );
  };

  it('are new in the number of the plan within an hour, exactly, and leave no record beyond it', async () => {
    const userId = freshUserId();
    const nodes = [node(), node(), node()];
    const ask = (at: number) => codeOf(call(nodes[at % 3] ?? node(), userId, `key_${at}`));
    const answers = await Promise.all(Array.from({ length: 3 * KEYS }, (_, at) => ask(at)));
    expect(answers.filter((answer) => answer === 'ok')).toHaveLength(KEYS);
    expect(answers.filter((answer) => answer === 'RATE_LIMITED')).toHaveLength(2 * KEYS);
    expect(await keysOf(core.redis, `${core.keys.prefix}*${userId}:call:*`)).toHaveLength(KEYS);
    const known = answers.indexOf('ok');
    expect(await call(node(), userId, `key_${known}`)).toMatchObject({ repeated: true });
    expect(await call(node(), userId, null)).toMatchObject({ success: true });
    await expect(call(node(), userId, 'another')).rejects.toMatchObject({
      retryAfterMs: expect.any(Number),
      fields: { rate_limit_status: { limit: KEYS, used: KEYS }, resets_at: expect.stringMatching(/Z$/) },
    });
    const { idempotency_keys } = await node().quotas.summary(userId, anyCaller('one'));
    expect(idempotency_keys).toMatchObject({ name: 'idempotency_keys_per_hour', used: KEYS, remaining: 0 });
  });
});
