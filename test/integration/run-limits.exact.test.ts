import { beforeAll, describe, expect, it } from '@jest/globals';
import { Permissions } from '../../src/catalogue/permissions.ts';
import type { StartedRun } from '../../src/jobs.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { Quotas } from '../../src/limits/quotas.ts';
import type { TollgateError } from '../../src/protocol/errors.ts';
import type { Runs } from '../../src/runs/runs.ts';
import { Threads } from '../../src/threads/threads.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { type Core, startCore } from '../support/core.ts';
import { keysOf } from '../support/keys-of.ts';
import { claimRun, completeRun, isRefused, runClaims, runNodes, startRun, tryRun } from '../support/run-nodes.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller } from '../support/tools.ts';

const IN_FLIGHT = 7;
const PER_HOUR = 40;
const THREADS = 5;
const TRIES = 100;
const HOUR_MS = 3_600_000;

const files = catalogues(
  {
    tools: [toolRow({ name: 't' })],
    plans: {
      narrow: planRow({ rank: 0, runs_in_flight: IN_FLIGHT }),
      hourly: planRow({ rank: 1, runs_per_hour: PER_HOUR }),
      threaded: planRow({ rank: 2, threads: THREADS }),
      wide: planRow({ rank: 3 }),
    },
  },
  'file',
);

let core: Core;
let nodes: Runs[];

beforeAll(async () => {
  core = await startCore();
  nodes = await runNodes(core, files.plans);
});

const node = (at: number): Runs => nodes[at % nodes.length] as Runs;

/** Sends requests of one user to all nodes at once. */
async function startAll(userId: string, plan: string, times = TRIES) {
  const one = (at: number) => tryRun(node(at), { userId, plan, threadId: 'thread_1' });
  const answers = await Promise.all(Array.from({ length: times }, (_, at) => one(at)));
  const started = answers.filter((answer): answer is StartedRun => !isRefused(answer));
  return { started, refused: answers.filter(isRefused) };
}

const codes = (refused: readonly TollgateError[]) => [...new Set(refused.map(({ code }) => code))];

describe('the runs of a user', () => {
  it('are in flight in the number of the plan, exactly, whichever nodes start them', async () => {
    const userId = freshUserId();
    const { started, refused } = await startAll(userId, 'narrow');
    expect(started).toHaveLength(IN_FLIGHT);
    expect(codes(refused)).toEqual(['RATE_LIMITED']);
    expect(refused[0]).toMatchObject({
      retryAfterMs: 1_000,
      fields: {
        rate_limit_status: {
          allowed: false,
          limits: { runs_in_flight: IN_FLIGHT, runs_per_hour: 1_000_000 },
          current_usage: { runs_in_flight: IN_FLIGHT, runs_per_hour: IN_FLIGHT },
          limit: IN_FLIGHT,
          used: IN_FLIGHT,
          remaining: 0,
          resets_at: null,
        },
      },
    });
    for (const { run_id } of started.slice(0, 3)) await completeRun(core, userId, run_id);
    expect((await startAll(userId, 'narrow')).started).toHaveLength(3);
  });

  it('start in the number of the plan within an hour, exactly, and ended ones count on', async () => {
    const userId = freshUserId();
    const before = Date.now();
    const { started, refused } = await startAll(userId, 'hourly');
    expect(started).toHaveLength(PER_HOUR);
    expect(codes(refused)).toEqual(['QUOTA_EXCEEDED']);
    const { fields } = refused[0] as TollgateError;
    expect(fields).toMatchObject({
      upgrade_path: 'threaded',
      rate_limit_status: { allowed: false, limit: PER_HOUR, used: PER_HOUR, remaining: 0 },
    });
    const resetsAt = Date.parse(String(fields.resets_at));
    // A use counts until its bucket of five minutes has left the window.
    expect(resetsAt).toBeGreaterThan(before + HOUR_MS);
    expect(resetsAt).toBeLessThanOrEqual(Date.now() + HOUR_MS + 300_000);
    for (const { run_id } of started) await completeRun(core, userId, run_id);
    expect(await startAll(userId, 'hourly', 3)).toMatchObject({ started: [], refused: { length: 3 } });
    expect((await startAll(freshUserId(), 'hourly', 3)).started).toHaveLength(3);
  });

  it('count once per request id, and a repetition is answered with the first run when the limit is reached', async () => {
    const userId = freshUserId();
    const requests = Array.from({ length: IN_FLIGHT }, () => newId('req'));
    const ask = (requestId: string, at: number) => {
      return startRun(node(at), { userId, plan: 'narrow', requestId, runId: `run_${requestId}`, threadId: 'thread_1' });
    };
    const all = await Promise.all(requests.flatMap((id) => [0, 1, 2].map((at) => ask(id, at))));
    expect(all.filter(({ isRepeated }) => !isRepeated)).toHaveLength(IN_FLIGHT);
    expect(await tryRun(node(0), { userId, plan: 'narrow' })).toMatchObject({ code: 'RATE_LIMITED' });
    for (const id of requests) {
      expect(await ask(id, 1)).toEqual({ run_id: `run_${id}`, thread_id: 'thread_1', isRepeated: true });
    }
    expect((await summary(userId, 'narrow')).runs.per_hour.used).toBe(IN_FLIGHT);
  });

  it('that are refused leave nothing in Redis, and their request id starts a run later', async () => {
    const userId = freshUserId();
    const [first] = (await startAll(userId, 'narrow', IN_FLIGHT)).started;
    const names = async () => (await keysOf(core.redis, `*${userId}*`)).toSorted();
    const before = await names();
    const requestId = newId('req');
    for (let at = 0; at < 20; at++) await tryRun(node(at), { userId, plan: 'narrow' });
    expect(await tryRun(node(0), { userId, plan: 'narrow', requestId })).toMatchObject({ code: 'RATE_LIMITED' });
    expect(await names()).toEqual(before);
    await completeRun(core, userId, String(first?.run_id));
    expect(await startRun(node(1), { userId, plan: 'narrow', requestId })).toMatchObject({ isRepeated: false });
  });

  it('are in the summary of usage', async () => {
    const userId = freshUserId();
    const { started } = await startAll(userId, 'hourly', 3);
    await completeRun(core, userId, String(started[0]?.run_id));
    expect((await summary(userId, 'hourly')).runs).toMatchObject({
      in_flight: { runs: 2, limit: 1_000 },
      per_hour: { name: 'runs_per_hour', window: 'hour', limit: PER_HOUR, used: 3, remaining: PER_HOUR - 3 },
    });
  });
});

describe('the threads of a user', () => {
  const threads = () => new Threads({ ...core, clock: systemClock });
  const createThread = (userId: string) => {
    return threads().create(userId, { threadId: newId('thread'), title: 'a', allowed: THREADS });
  };

  it('are as many as the plan has, exactly, when requests name new ones and create_thread makes others', async () => {
    const userId = freshUserId();
    const ask = (at: number) => tryRun(node(at), { userId, plan: 'threaded', threadId: `thread_${at}` });
    const [asked, made] = await Promise.all([
      Promise.all(Array.from({ length: 30 }, (_, at) => ask(at))),
      Promise.all(Array.from({ length: 30 }, () => createThread(userId))),
    ]);
    const added = [...asked.filter((one) => !isRefused(one)), ...made.filter(({ outcome }) => outcome === 'created')];
    expect(added).toHaveLength(THREADS);
    const [refused] = asked.filter(isRefused);
    expect(refused).toMatchObject({
      code: 'QUOTA_EXCEEDED',
      fields: { limit: THREADS, resets_at: null, upgrade_path: 'wide' },
    });
    expect(await threads().list(userId)).toHaveLength(THREADS);
  });

  it('go on at the limit, and a request that names none goes to the one that changed last', async () => {
    const userId = freshUserId();
    const ids = Array.from({ length: THREADS }, (_, at) => `thread_${at}`);
    for (const threadId of ids) await startRun(node(0), { userId, plan: 'threaded', threadId });
    const { threads: ranking } = core.keys.user(userId);
    // Within one millisecond none of them would be the latest.
    for (const threadId of ids) await core.redis.zincrby(ranking, -1_000, threadId);
    expect(await startRun(node(1), { userId, plan: 'threaded', threadId: 'thread_2' })).toMatchObject({
      thread_id: 'thread_2',
    });
    const { run_id, thread_id } = await startRun(node(2), { userId, plan: 'threaded', message: 'not named' });
    expect(thread_id).toBe('thread_2');
    const claim = await runClaims(core).claim(userId, run_id);
    expect(claim).toMatchObject({ run: { threadId: 'thread_2' } });
    const page = await threads().history(userId, { threadId: 'thread_2', before: undefined, limit: 1 });
    expect(page.messages).toMatchObject([{ text: 'not named', run_id }]);
    expect((await threads().list(userId)).map((one) => one.thread_id).toSorted()).toEqual(ids);
  });

  it('that have expired count no longer', async () => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    for (let at = 0; at < THREADS; at++) await createThread(userId);
    expect(await createThread(userId)).toMatchObject({ outcome: 'full' });
    const oldest = String((await threads().list(userId)).at(-1)?.thread_id);
    await core.redis.zadd(keys.threads, Date.now() - 91 * 24 * HOUR_MS, oldest);
    expect(await tryRun(node(0), { userId, plan: 'threaded', threadId: 'thread_new' })).toMatchObject({
      thread_id: 'thread_new',
    });
    expect(await core.redis.hexists(keys.threadInfo, oldest)).toBe(0);
    expect(await createThread(userId)).toMatchObject({ outcome: 'full', threads: THREADS });
  });

  it('of a plan without a limit are kept in the number that is kept for anybody: the oldest one gives way', async () => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    const many = Array.from({ length: 500 }, (_, at) => [`${Date.now() - 500 + at}`, `thread_${at}`]).flat();
    await core.redis.zadd(keys.threads, ...many);
    await startRun(node(0), { userId, plan: 'wide', threadId: 'thread_new' });
    expect(await core.redis.zcard(keys.threads)).toBe(500);
    expect(await core.redis.zscore(keys.threads, 'thread_0')).toBeNull();
  });
});

describe('a run that has ended', () => {
  it('keeps no message, caller or journal, and a repeated end is recognised', async () => {
    const userId = freshUserId();
    const { run_id } = await startRun(node(0), { userId, plan: 'wide', message: 'x'.repeat(8_192) });
    const log = await claimRun(core, userId, run_id);
    await log.started();
    for (let call = 0; call < 3; call++) {
      const outcome = { success: true, result: 'y'.repeat(10_000), duration_ms: 1, usage_record_id: null };
      await log.toolCompleted({ tool: 't', callId: `call_${call}` }, outcome);
    }
    const key = core.keys.user(userId).run(run_id);
    expect(await core.redis.hlen(key)).toBe(15);
    const before = Number(await core.redis.memory('USAGE', key, 'SAMPLES', 0));
    await log.completed({ final_response: 'done', summary: 'done' });
    expect(Object.keys(await core.redis.hgetall(key)).toSorted()).toEqual(
      [
        'accepted_at',
        'agent',
        'connection_id',
        'ended_at',
        'epoch',
        'events',
        'first_seq',
        'last_seq',
        'request_id',
        'status',
        'thread_id',
      ]
        .concat('transport')
        .toSorted(),
    );
    expect(before).toBeGreaterThan(38_000);
    expect(Number(await core.redis.memory('USAGE', key, 'SAMPLES', 0))).toBeLessThan(1_300);
    expect(await runClaims(core).claim(userId, run_id)).toEqual({ outcome: 'finished' });
  });
});

function summary(userId: string, plan: string) {
  const { plans, tools } = files;
  const permissions = new Permissions({ plans, tools }, { environment: 'test' });
  return new Quotas({ ...core, plans, tools, permissions }, { reservationMs: 1_000 }).summary(userId, anyCaller(plan));
}
