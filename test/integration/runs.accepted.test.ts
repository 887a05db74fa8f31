import { beforeAll, describe, expect, it } from '@jest/globals';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import type { Runs } from '../../src/runs/runs.ts';
import { catalogueFiles, planRow } from '../support/catalogues.ts';
import { type Core, startCore } from '../support/core.ts';
import { runNodes } from '../support/run-nodes.ts';
import { expectAbout, expectKept, notAtTheEndOf, StoredRun } from '../support/stored-runs.ts';

const HOUR_MS = 3_600_000;
const BUCKET_MS = 300_000;
/** Until the sweep ends a run: the time limit of its agent, and the margin of the sweep. */
const END_MS = 65_000;
const KEPT_MS = 24 * HOUR_MS;
const THREAD_MS = 90 * 24 * HOUR_MS + HOUR_MS;

let core: Core;
let runs: Runs;
/** A node whose agents have half of the time. */
let brief: Runs;

async function node(timeoutMs: number): Promise<Runs> {
  const { plans } = new Catalogues(catalogueFiles({ plans: { default: 'pro', plans: { pro: planRow() } } }, 'file'));
  const [one] = await runNodes(core, plans, { nodes: 1, timeoutMs });
  if (!one) throw new Error('one node');
  return one;
}

beforeAll(async () => {
  core = await startCore();
  [runs, brief] = [await node(60_000), await node(30_000)];
});

const expiryOf = (key: string) => core.redis.pexpiretime(key);
const scoreOf = async (key: string, member: string) => Number(await core.redis.zscore(key, member));

describe('an accepted run', () => {
  it('is stored for a day, and its deadline is that of its agent', async () => {
    const now = Date.now();
    const run = await new StoredRun(core).start(runs);
    const { keys } = run;
    const stored = await run.stored();
    expect(stored).toMatchObject({ status: 'queued', epoch: '0', events: '0', thread_id: 'thread_1' });
    expect(stored).toMatchObject({ request_id: run.requestId, message: 'hello' });
    expectAbout(stored.accepted_at, now);
    await run.expectDeadline(now + END_MS);
    expect(await expiryOf(keys.runsInFlight)).toBe(await scoreOf(keys.activeRuns, run.member));
    expect(await core.redis.get(keys.request(run.requestId))).toBe(`${run.runId} thread_1`);
    for (const key of [run.key, keys.request(run.requestId)]) await expectKept(core, key, KEPT_MS);
    expect(await core.redis.zrange(keys.runs, 0, '-1', 'WITHSCORES')).toEqual([run.runId, stored.accepted_at]);
    await expectKept(core, keys.runs, KEPT_MS + BUCKET_MS);
  });

  it('creates its thread with the message, and keeps it for the time of a thread', async () => {
    const run = await new StoredRun(core).start(runs);
    const { threads, threadInfo } = run.keys;
    const thread = run.keys.thread('thread_1');
    const { accepted_at } = await run.stored();
    expect(await core.redis.zrange(threads, 0, '-1', 'WITHSCORES')).toEqual(['thread_1', accepted_at]);
    expect(JSON.parse(String(await core.redis.hget(threadInfo, 'thread_1')))).toMatchObject({ title: 'hello' });
    const [, fields] = (await core.redis.xrange(thread, '-', '+'))[0] ?? [];
    const message = JSON.stringify({ role: 'user', text: 'hello', run_id: run.runId });
    expect(fields).toEqual(['m', message, 'b', '0']);
    for (const key of [thread, threads, threadInfo]) await expectKept(core, key, THREAD_MS);
  });

  it('removes runs in flight past their deadline, and never shortens the expiry of the others', async () => {
    const first = await new StoredRun(core).start(runs);
    const { runsInFlight } = first.keys;
    const expiry = await expiryOf(runsInFlight);
    await core.redis.zadd(runsInFlight, Date.now() - 1, 'run_dead');
    const second = await new StoredRun(core, { userId: first.userId }).start(brief);
    expect(await core.redis.zrange(runsInFlight, 0, '-1')).toEqual([second.runId, first.runId]);
    expect(await expiryOf(runsInFlight)).toBe(expiry);
    const third = await new StoredRun(core, { userId: first.userId }).start(runs);
    expect(await expiryOf(runsInFlight)).toBe(await scoreOf(runsInFlight, third.runId));
  });

  it('counts no run in flight past its deadline, and one until its deadline', async () => {
    const run = new StoredRun(core);
    const { runsInFlight } = run.keys;
    await core.redis.zadd(runsInFlight, Date.now() - 1, 'run_dead');
    await run.start(runs);
    // With no other run in flight, the set gets the deadline of this one.
    expect(await expiryOf(runsInFlight)).toBe(await scoreOf(runsInFlight, run.runId));
  });

  it('drops runs from the list that are no longer stored, once per bucket of the limit', async () => {
    await notAtTheEndOf(BUCKET_MS);
    const run = new StoredRun(core);
    const { runs: listed, threads } = run.keys;
    const list = async () => (await core.redis.zrange(listed, 0, '-1')).filter((id) => id.startsWith('run_old'));
    await core.redis.zadd(listed, Date.now() - KEPT_MS - 1, 'run_old', Date.now() - KEPT_MS + 60_000, 'run_older_kept');
    await run.start(runs);
    expect(await list()).toEqual(['run_older_kept']);
    for (const key of [listed, threads]) await core.redis.pexpire(key, 500_000);
    await core.redis.zadd(listed, Date.now() - KEPT_MS - 1, 'run_old');
    await new StoredRun(core, { userId: run.userId }).start(runs);
    expect(await list()).toEqual(['run_old', 'run_older_kept']);
    for (const key of [listed, threads]) await expectKept(core, key, 500_000);
  });

  it('renews the expiry of its thread once per hour', async () => {
    await notAtTheEndOf(HOUR_MS);
    const run = await new StoredRun(core).start(runs);
    const thread = run.keys.thread('thread_1');
    await core.redis.pexpire(thread, 500_000);
    await new StoredRun(core, { userId: run.userId }).start(runs);
    await expectKept(core, thread, 500_000);
    await core.redis.zadd(run.keys.threads, Date.now() - HOUR_MS, 'thread_1');
    await new StoredRun(core, { userId: run.userId }).start(runs);
    await expectKept(core, thread, THREAD_MS);
    expect(await core.redis.xlen(thread)).toBe(3);
  });

  it('in a thread that has expired starts it anew, and removes expired threads', async () => {
    const run = await new StoredRun(core).start(runs);
    const { threads, threadInfo } = run.keys;
    const expired = Date.now() - 90 * 24 * HOUR_MS;
    await core.redis.zadd(threads, expired, 'thread_1', expired, 'thread_2', expired + 60_000, 'thread_3');
    for (const id of ['thread_1', 'thread_2', 'thread_3']) await core.redis.hset(threadInfo, id, `{"title":"${id}"}`);
    const { accepted_at } = await (await new StoredRun(core, { userId: run.userId }).start(runs)).stored();
    expect((await core.redis.hkeys(threadInfo)).toSorted()).toEqual(['thread_1', 'thread_3']);
    expect(await core.redis.hget(threadInfo, 'thread_1')).toContain('"title":"hello"');
    expect(await core.redis.zrange(threads, 0, '-1')).toEqual(['thread_3', 'thread_1']);
    expect(await core.redis.zscore(threads, 'thread_1')).toBe(accepted_at);
  });

  it('keeps the title of a thread that exists', async () => {
    const run = await new StoredRun(core).start(runs);
    await core.redis.hset(run.keys.threadInfo, 'thread_1', '{"title":"kept"}');
    await new StoredRun(core, { userId: run.userId }).start(runs);
    expect(await core.redis.hget(run.keys.threadInfo, 'thread_1')).toBe('{"title":"kept"}');
  });

  it('beyond the threads that are kept for a user removes the oldest with its messages', async () => {
    const run = new StoredRun(core, { threadId: 'thread_new' });
    const { threads, threadInfo } = run.keys;
    const many = Array.from({ length: 501 }, (_, at) => [`${Date.now() - 1_000 + at}`, `thread_${at}`]).flat();
    await core.redis.zadd(threads, ...many);
    const ids = ['thread_0', 'thread_1', 'thread_2'];
    for (const id of ids) await core.redis.hset(threadInfo, id, '{}');
    for (const id of ids) await core.redis.xadd(run.keys.thread(id), '*', 'm', '{}', 'b', 0);
    await run.start(runs);
    expect(await core.redis.zcard(threads)).toBe(500);
    expect(await core.redis.hkeys(threadInfo)).toEqual(['thread_2', 'thread_new']);
    const left = await Promise.all(ids.map((id) => core.redis.exists(run.keys.thread(id))));
    expect(left).toEqual([0, 0, 1]);
  });

  it('needs a message within the limit: at it is accepted, above it leaves nothing', async () => {
    const [at, above] = [new StoredRun(core), new StoredRun(core)];
    await core.redis.set(at.keys.messageRate, 30);
    await core.redis.set(above.keys.messageRate, 31);
    await at.start(runs);
    await expect(above.start(runs)).rejects.toMatchObject({ code: 'RATE_LIMITED' });
    expect(await core.redis.exists(above.key, above.keys.request(above.requestId), above.keys.threads)).toBe(0);
  });
});
