import { beforeAll, describe, expect, it } from '@jest/globals';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import type { Runs } from '../../src/runs/runs.ts';
import { type AcceptedRun, acceptedAs } from '../../src/runs/stored-run.ts';
import { type Core, startCore } from '../support/core.ts';
import { RUN_AGENTS, runNodes } from '../support/run-nodes.ts';
import { expectAbout, expectKept, StoredRun } from '../support/stored-runs.ts';

/** Until the sweep ends a run: the time limit of its agent, and the margin of the sweep. */
const END_MS = 65_000;
const HOUR_MS = 3_600_000;
const KEPT_MS = 24 * HOUR_MS;
const LIMIT = { allowed: Promise.resolve(), messages: 30 };
const ENDED = ['completed', 'failed', 'cancelled'] as const;

let core: Core;
let runs: Runs;
let claims: RunClaims;

beforeAll(async () => {
  core = await startCore();
  const [node] = await runNodes(core, new Catalogues().plans, { nodes: 1, timeoutMs: 60_000 });
  if (!node) throw new Error('one node');
  runs = node;
  claims = new RunClaims({ ...core, agents: RUN_AGENTS }, { timeoutMs: 60_000 });
});

const expiryOf = (key: string) => core.redis.pexpiretime(key);
const scoreOf = async (key: string, member: string) => Number(await core.redis.zscore(key, member));

describe('a claim', () => {
  it('by the first delivery of a job takes a queued run, and one of that job, from no other job', async () => {
    const run = await new StoredRun(core).start(runs);
    expect((await claims.claim(run.userId, run.runId, 'job_1')).outcome).toBe('claimed');
    expect(await run.stored()).toMatchObject({ status: 'running', job: 'job_1' });
    expect((await claims.claim(run.userId, run.runId, 'job_2')).outcome).toBe('finished');
    const again = await claims.claim(run.userId, run.runId, 'job_1');
    const { epoch } = await run.stored();
    expect(again).toMatchObject({ outcome: 'claimed', run: { fencingToken: Number(epoch) } });
    await run.set({ status: 'queued' });
    expect((await claims.claim(run.userId, run.runId, 'job_2')).outcome).toBe('claimed');
    expect(await run.stored()).toMatchObject({ job: 'job_2' });
  });

  it('that takes a run over belongs to no job, so that the job of the lost worker gets it no more', async () => {
    const run = await new StoredRun(core).start(runs);
    await run.claim(claims);
    expect(await run.stored()).not.toHaveProperty('job');
    await run.set({ status: 'queued' });
    await claims.claim(run.userId, run.runId, 'job_1');
    await run.claim(claims);
    expect(await run.stored()).toMatchObject({ status: 'running', job: '' });
    expect((await claims.claim(run.userId, run.runId, 'job_1')).outcome).toBe('finished');
  });

  it('is refused for a run that has ended or that Redis does not have', async () => {
    const run = await new StoredRun(core).start(runs);
    for (const status of ENDED) {
      await run.set({ status });
      expect(await claims.claim(run.userId, run.runId)).toEqual({ outcome: 'finished' });
    }
    expect(await claims.claim(run.userId, 'run_unknown')).toEqual({ outcome: 'missing' });
  });

  it('does not count the time of earlier waits and of the current one as time of the run', async () => {
    const run = await new StoredRun(core).start(runs);
    await run.set({ accepted_at: Date.now() - 500_000 });
    expectAbout((await run.claim(claims)).waitedMs, 500_000);
    await run.set({ paused_ms: 100_000 });
    expectAbout((await run.claim(claims)).waitedMs, 400_000);
    await run.set({ waiting_since: Date.now() - 200_000 });
    expectAbout((await run.claim(claims)).waitedMs, 200_000);
  });
});

describe('a journal entry', () => {
  const entry = { field: 'tool:a', value: '{}' };

  it('is stored for the latest claim only, until the run ends', async () => {
    const run = await new StoredRun(core).start(runs);
    const first = await run.claim(claims);
    const second = await run.claim(claims);
    expect(await claims.journal(run, first.fencingToken, entry)).toBe('fenced');
    expect(await claims.journal(run, second.fencingToken + 1, entry)).toBe('behind');
    expect(await claims.journal({ ...run, runId: 'run_lost' }, 1, entry)).toBe('behind');
    for (const status of ENDED) {
      await run.set({ status });
      expect(await claims.journal(run, second.fencingToken, entry)).toBe('finished');
    }
    expect(await run.stored()).not.toHaveProperty('tool:a');
    await run.set({ status: 'running' });
    expect(await claims.journal(run, second.fencingToken, entry)).toBe('stored');
    expect(await run.stored()).toMatchObject({ 'tool:a': '{}' });
  });
});

describe('a run that is suspended', () => {
  const times = { expiresMs: 200_000, remainingMs: 40_000 };
  const suspend = (run: StoredRun, fencingToken: number, inputs = ['input_1', 'input_2']) =>
    claims.suspend(run, { fencingToken, ...times, inputs });

  it('has the expiry of its input request as deadline, and the rest of its time afterwards', async () => {
    const run = await new StoredRun(core).start(runs);
    const { fencingToken } = await run.claim(claims);
    const now = Date.now();
    expect(await suspend(run, fencingToken)).toBe('waiting');
    const stored = await run.stored();
    expect(stored).toMatchObject({ status: 'waiting', remaining_ms: '45000' });
    expectAbout(stored.waiting_since, now);
    const { activeRuns, runsInFlight } = run.keys;
    const sweptAt = await scoreOf(activeRuns, run.member);
    expectAbout(sweptAt, now + times.expiresMs);
    // It counts as in flight until the sweep has ended its wait and the rest of its time is over.
    expect(await scoreOf(runsInFlight, run.runId)).toBe(sweptAt + 45_000);
    expect(await expiryOf(runsInFlight)).toBe(sweptAt + 45_000);
    await expectKept(core, run.key, KEPT_MS + times.expiresMs);
    await core.redis.pexpire(run.key, 2 * KEPT_MS);
    await run.set({ waiting_since: 5 });
    expect(await suspend(run, fencingToken)).toBe('waiting');
    expect(await run.stored()).toMatchObject({ waiting_since: '5' });
    await expectKept(core, run.key, 2 * KEPT_MS);
  });

  it('keeps the expiry of other runs in flight that end later', async () => {
    const run = await new StoredRun(core).start(runs);
    const { fencingToken } = await run.claim(claims);
    const later = Date.now() + HOUR_MS;
    await core.redis.zadd(run.keys.runsInFlight, later, 'run_later');
    await suspend(run, fencingToken);
    expect(await expiryOf(run.keys.runsInFlight)).toBe(later);
  });

  it('must be owned, running, and without an answer or a cancellation', async () => {
    const run = await new StoredRun(core).start(runs);
    const first = await run.claim(claims);
    const { fencingToken } = await run.claim(claims);
    expect(await suspend(run, first.fencingToken)).toBe('fenced');
    expect(await suspend(run, fencingToken + 1)).toBe('behind');
    expect(await claims.suspend({ ...run, runId: 'run_lost' }, { fencingToken, ...times, inputs: [] })).toBe('behind');
    for (const input of ['input_1', 'input_2']) {
      await run.set({ [`answer:${input}`]: '{}' });
      expect(await suspend(run, fencingToken)).toBe('answered');
      await core.redis.hdel(run.key, `answer:${input}`);
    }
    await run.set({ cancel: 1 });
    expect(await suspend(run, fencingToken)).toBe('answered');
    await core.redis.hdel(run.key, 'cancel');
    for (const status of ENDED) {
      await run.set({ status });
      expect(await suspend(run, fencingToken)).toBe('finished');
    }
    expect(await run.stored()).not.toHaveProperty('waiting_since');
  });

  it('continues with the sum of its waits and the rest of its time when it is cancelled', async () => {
    const run = await new StoredRun(core).start(runs);
    await suspend(run, (await run.claim(claims)).fencingToken);
    await run.set({ waiting_since: Date.now() - 70_000, paused_ms: 30_000 });
    const now = Date.now();
    expect(await runs.cancel(run.userId, run.runId, LIMIT)).toBe('asked');
    const stored = await run.stored();
    expect(stored).toMatchObject({ status: 'queued', cancel: '1' });
    expectAbout(stored.paused_ms, 100_000);
    expect(stored).not.toHaveProperty('waiting_since');
    await run.expectDeadline(now + 45_000);
    // The wait has ended: another cancellation must not queue the run again.
    await run.claim(claims);
    await runs.cancel(run.userId, run.runId, LIMIT);
    expect(await run.stored()).toMatchObject({ status: 'running' });
  });
});

describe('a cancellation', () => {
  it('needs a message within the limit and a run that has not ended', async () => {
    const run = await new StoredRun(core).start(runs);
    const { messageRate } = run.keys;
    const cancel = () => runs.cancel(run.userId, run.runId, LIMIT);
    await core.redis.set(messageRate, 31);
    await expect(cancel()).rejects.toMatchObject({ code: 'RATE_LIMITED' });
    await core.redis.set(messageRate, 30);
    for (const status of ENDED) {
      await run.set({ status });
      expect(await cancel()).toBe('finished');
    }
    expect(await runs.cancel(run.userId, 'run_unknown', LIMIT)).toBe('missing');
    expect(await run.stored()).not.toHaveProperty('cancel');
    await run.set({ status: 'queued' });
    expect(await cancel()).toBe('asked');
    expect(await run.stored()).toMatchObject({ status: 'queued', cancel: '1' });
  });
});

describe('a run that Redis lost', () => {
  const ELAPSED_MS = 10_000;

  async function lose(run: StoredRun): Promise<void> {
    const { keys } = run;
    await core.redis.del(run.key, keys.request(run.requestId), keys.runs, keys.runsInFlight);
    await core.redis.zrem(keys.activeRuns, run.member);
  }

  it('is stored again by its gateway as it was, with the time of its acceptance', async () => {
    const run = await new StoredRun(core).start(runs);
    const { accepted_at: _, ...before } = await run.stored();
    const accepted = acceptedAs(await run.claim(claims));
    await lose(run);
    const now = Date.now();
    await claims.keep(accepted, ELAPSED_MS);
    const { accepted_at, ...stored } = await run.stored();
    expect(stored).toEqual(before);
    expectAbout(accepted_at, now - ELAPSED_MS);
    await run.expectDeadline(Number(accepted_at) + END_MS);
    const { keys } = run;
    expect(await scoreOf(keys.activeRuns, run.member)).toBe(Number(accepted_at) + END_MS);
    expect(await core.redis.zrange(keys.runs, 0, '-1', 'WITHSCORES')).toEqual([run.runId, accepted_at]);
    expect(await core.redis.get(keys.request(run.requestId))).toBe(`${run.runId} thread_1`);
    for (const key of [run.key, keys.runs, keys.runsInFlight, keys.request(run.requestId)])
      await expectKept(core, key, KEPT_MS);
  });

  it('keeps the request id of a run that was started since, and is not stored over one that exists', async () => {
    const run = await new StoredRun(core).start(runs);
    const accepted = acceptedAs(await run.claim(claims));
    await lose(run);
    await core.redis.set(run.keys.request(run.requestId), 'run_other thread_2');
    await claims.keep(accepted, ELAPSED_MS);
    expect(await core.redis.get(run.keys.request(run.requestId))).toBe('run_other thread_2');
    await run.set({ message: 'as stored', status: 'running', epoch: 7 });
    await claims.keep(accepted, ELAPSED_MS);
    expect(await run.stored()).toMatchObject({ message: 'as stored', status: 'running', epoch: '7' });
  });

  it('was lost only within half of the time that it is stored, and is not erased', async () => {
    const restored = async (run: StoredRun, accepted: AcceptedRun, elapsedMs: number) => {
      await lose(run);
      await claims.keep(accepted, elapsedMs);
      return core.redis.exists(run.key);
    };
    const run = await new StoredRun(core).start(runs);
    const accepted = acceptedAs(await run.claim(claims));
    expect(await restored(run, accepted, KEPT_MS / 2)).toBe(1);
    expect(await restored(run, accepted, KEPT_MS / 2 + 1)).toBe(0);
    await core.redis.hset(run.keys.account, 'erasure', 'erased_1');
    expect(await restored(run, accepted, ELAPSED_MS)).toBe(0);
  });

  it('is claimed again by its worker with its token, its journal and its events', async () => {
    const run = await new StoredRun(core).start(runs);
    await run.set({ 'tool:a': '{}', events: 3 });
    const claim = await run.claim(claims);
    await lose(run);
    const restored = { outcome: 'claimed', events: 3 };
    expect(await claims.restore(claim, ELAPSED_MS)).toEqual(restored);
    const stored = await run.stored();
    expect(stored).toMatchObject({ status: 'running', epoch: String(claim.fencingToken), events: '3', 'tool:a': '{}' });
    expect(await claims.restore(claim, ELAPSED_MS)).toEqual(restored);
    expect(await run.stored()).toEqual(stored);
  });

  it('keeps fields that Redis still has, and its state, while its claim is stored', async () => {
    const run = await new StoredRun(core).start(runs);
    const claim = { ...(await run.claim(claims)), events: 3 };
    for (const status of ['waiting', 'queued', 'running']) {
      await run.set({ events: 2, message: 'as stored', status });
      expect(await claims.restore(claim, ELAPSED_MS)).toEqual({ outcome: 'claimed', events: 3 });
      expect(await run.stored()).toMatchObject({ events: '3', message: 'as stored', status });
    }
  });

  it('belongs to a worker that has claimed it since, not to an earlier one', async () => {
    const run = await new StoredRun(core).start(runs);
    const claim = await run.claim(claims);
    const restore = () => claims.restore(claim, ELAPSED_MS);
    await run.set({ epoch: claim.previousToken + claim.fencingToken + 1 });
    expect(await restore()).toEqual({ outcome: 'fenced' });
    await run.set({ epoch: claim.previousToken, waiting_since: Date.now(), remaining_ms: 40_000, status: 'waiting' });
    expect(await restore()).toMatchObject({ outcome: 'claimed' });
    const stored = await run.stored();
    expect(stored).toMatchObject({ status: 'running', epoch: String(claim.fencingToken) });
    expect(stored).not.toHaveProperty('waiting_since');
    for (const status of ENDED) {
      await run.set({ status });
      expect(await restore()).toEqual({ outcome: 'finished' });
    }
  });
});
