import { beforeAll, describe, expect, it } from '@jest/globals';
import { AgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import type { Append, AppendResult } from '../../src/events/append.ts';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import type { UsageRecord } from '../../src/protocol/usage.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { Runs } from '../../src/runs/runs.ts';
import type { ClaimedRun } from '../../src/runs/stored-run.ts';
import { type Core, LOG_BYTES, NO_QUEUE, startCore, thinking } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';

let core: Core;
let runs: Runs;
let claims: RunClaims;

beforeAll(async () => {
  core = await startCore({ logLength: 50 });
  const agents = new AgentCatalogue([{ name: 'a', description: 'a', tools: ['t'] }], 'a');
  runs = new Runs({ ...core, queue: NO_QUEUE, agents, clock: systemClock }, { timeoutMs: 45_000 });
  claims = new RunClaims({ ...core, agents }, { timeoutMs: 45_000 });
});

async function acceptedRun(userId: string): Promise<string> {
  const runId = newId('run');
  const identity = { userId, plan: 'pro', permissions: [], roles: [], featureFlags: {} } as unknown as Identity;
  const request = { connectionId: 'c', requestId: newId('req'), threadId: 'thread_1', agent: undefined };
  const run = { ...request, identity, runId, message: 'hello', transport: 'websocket', degraded: false };
  await runs.start(run, { allowed: Promise.resolve(), messages: 30 });
  return runId;
}

async function claimed(userId: string, runId: string): Promise<ClaimedRun> {
  const claim = await claims.claim(userId, runId);
  if (claim.outcome !== 'claimed') throw new Error(`the run is ${claim.outcome}`);
  return claim.run;
}

function append(
  run: ClaimedRun,
  eventsInLog: number,
  options: Partial<Append> = {},
  log: Pick<UserLogWriter, 'append'> = core.log,
): Promise<AppendResult> {
  const { userId, runId, fencingToken } = run;
  return log.append({ userId, events: [thinking('x')], run: { runId, fencingToken, eventsInLog }, ...options });
}

describe('the event log', () => {
  it('gives parallel appends consecutive seq, the same in the stream and in the event', async () => {
    const userId = freshUserId();
    const results = await Promise.all(
      Array.from({ length: 40 }, (_, i) => core.log.append({ userId, events: [thinking(`${i}`)] })),
    );
    const given = results.map((result) => ('seq' in result ? result.seq : 0));
    expect(given.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
    const page = await core.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 100);
    const { entries } = await core.eventLog.read(userId, { epoch: page.epoch, after: 0, delivered: undefined }, 100);
    expect(entries.map(({ seq }) => seq)).toEqual(entries.map(({ json }) => JSON.parse(json).seq));
    expect(entries).toHaveLength(40);
  });

  it('keeps its bound and says what is the oldest that can be read', async () => {
    const userId = freshUserId();
    for (let i = 0; i < 10; i++) {
      await core.log.append({ userId, events: Array.from({ length: 30 }, (_, j) => thinking(`${i}.${j}`)) });
    }
    const { head, oldest } = await core.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    expect(head).toBe(300);
    // XTRIM ~ works on whole nodes of a hundred entries.
    expect(head - oldest + 1).toBeGreaterThanOrEqual(50);
    expect(head - oldest + 1).toBeLessThanOrEqual(150);
  });

  it('lets events go that are older than their greatest age', async () => {
    const short = await startCore({ maxAgeMs: 1 });
    const userId = freshUserId();
    await short.log.append({ userId, events: [thinking('old')] });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const { oldest, head } = await short.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    expect({ oldest, head }).toEqual({ oldest: 2, head: 1 });
  });

  it('begins a new epoch when the log was lost, and never gives a seq of the old one again', async () => {
    const userId = freshUserId();
    await core.log.append({ userId, events: [thinking('1'), thinking('2')] });
    const before = await core.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    const keys = core.keys.user(userId);
    await core.redis.del(keys.log, keys.logState);
    await core.log.append({ userId, events: [thinking('3')] });
    const after = await core.eventLog.read(userId, { epoch: before.epoch, after: 2, delivered: '' }, 10);
    expect(after.epoch).not.toBe(before.epoch);
    expect(after.entries).toEqual([]);
  });

  it('takes a node’s word, and not a client’s, that the log went back', async () => {
    const userId = freshUserId();
    await core.log.append({ userId, events: [thinking('1'), thinking('2'), thinking('3')] });
    const { epoch } = await core.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    // The effect of a failover to a lagging replica.
    await core.redis.hset(core.keys.user(userId).logState, 'seq', 1);
    const client = await core.eventLog.read(userId, { epoch, after: 3, delivered: undefined }, 1);
    expect(client.epoch).toBe(epoch);
    const node = await core.eventLog.read(userId, { epoch, after: 3, delivered: '' }, 1);
    expect(node.epoch).not.toBe(epoch);
  });
});

describe('a run’s appends', () => {
  it('are there once when they are sent twice', async () => {
    const userId = freshUserId();
    const run = await claimed(userId, await acceptedRun(userId));
    const first = await append(run, 0);
    const again = await append(run, 0);
    expect([first.outcome, again.outcome]).toEqual(['appended', 'repeated']);
    const { head } = await core.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
    expect(head).toBe(1);
  });

  it('are refused once another worker has claimed the run', async () => {
    const userId = freshUserId();
    const runId = await acceptedRun(userId);
    const [old, current] = [await claimed(userId, runId), await claimed(userId, runId)];
    expect(await append(old, 0)).toEqual({ outcome: 'fenced' });
    expect((await append(current, 0)).outcome).toBe('appended');
    expect(await append(old, 1)).toEqual({ outcome: 'fenced' });
  });

  it('are refused after the terminal event, of which there is one', async () => {
    const userId = freshUserId();
    const run = await claimed(userId, await acceptedRun(userId));
    expect((await append(run, 0, { ends: 'agent_failed' })).outcome).toBe('appended');
    expect(await append(run, 1)).toEqual({ outcome: 'finished' });
    expect(await append(run, 1, { ends: 'agent_failed' })).toEqual({ outcome: 'finished' });
    expect((await claims.claim(userId, run.runId)).outcome).toBe('finished');
  });

  it('tell the writer that the run is to be cancelled', async () => {
    const userId = freshUserId();
    const run = await claimed(userId, await acceptedRun(userId));
    expect(await runs.cancel(userId, run.runId, { allowed: Promise.resolve(), messages: 30 })).toBe('asked');
    expect(await append(run, 0)).toMatchObject({ outcome: 'appended', cancelRequested: true });
  });

  it('list a run that failed or was cancelled, with the code of its failure, and no other', async () => {
    const listed: boolean[] = [];
    for (const ends of ['agent_failed', 'agent_cancelled', 'agent_completed'] as const) {
      const userId = freshUserId();
      const run = await claimed(userId, await acceptedRun(userId));
      const { timestamp } = thinking('').fields;
      const terminal = { type: ends, fields: { timestamp, error: { code: 'RUN_TIMEOUT' } } };
      await append(run, 0, { ends, events: [terminal] });
      const members = await core.redis.zrange(core.keys.unsuccessfulRuns(partitionOf(userId)), '0', '-1');
      listed.push(members.includes(`${userId} ${run.runId}`));
      const failure = await core.redis.hget(core.keys.user(userId).run(run.runId), 'failure');
      expect(failure).toBe(ends === 'agent_completed' ? null : 'RUN_TIMEOUT');
    }
    expect(listed).toEqual([true, true, false]);
  });

  it('store a journal entry with its event, but none with the end of the run', async () => {
    const userId = freshUserId();
    const run = await claimed(userId, await acceptedRun(userId));
    const events = [{ ...thinking('x'), journal: { field: 'tool:call_1', value: 'result' } }];
    const stored = () => core.redis.hget(core.keys.user(userId).run(run.runId), 'tool:call_1');
    await append(run, 0, { events });
    expect(await stored()).toBe('result');
    await append(run, 1, { events, ends: 'agent_failed' });
    expect(await stored()).toBeNull();
    const other = await claimed(userId, await acceptedRun(userId));
    await append(other, 0, { events, ends: 'agent_failed', hasNoJournal: true });
    expect(await core.redis.hget(core.keys.user(userId).run(other.runId), 'tool:call_1')).toBeNull();
  });

  it('reserve quota for a call, or say which limit refuses it', async () => {
    const userId = freshUserId();
    const run = await claimed(userId, await acceptedRun(userId));
    const limits = [['one_per_hour', 'tool:one', 1, 3_600_000, 300_000]];
    const reserve = (member: string) => JSON.stringify({ member, concurrency: 5, forMs: 60_000, limits });
    expect(await append(run, 0, { reserve: reserve('call_1 one basic') })).toMatchObject({
      outcome: 'appended',
      reserved: { allowed: true, reply: [expect.any(Number), 1, expect.any(Number)] },
    });
    expect(await append(run, 1, { reserve: reserve('call_2 one basic') })).toMatchObject({
      outcome: 'appended',
      reserved: { allowed: false, reply: [expect.any(Number), 1, 1, expect.any(Number)] },
    });
    expect(await append(run, 2)).not.toHaveProperty('reserved');
  });

  it('count each event and record once, and report a record with each acknowledgement', async () => {
    const userId = freshUserId();
    const metrics = new Metrics();
    const acknowledged: string[] = [];
    const recordObserver = { onAcknowledged: ({ id }: UsageRecord) => void acknowledged.push(id) };
    const bounds = { length: 50, maxAgeMs: 60_000, maxBytes: LOG_BYTES };
    const log = new UserLogWriter({ ...core, metrics, recordObserver }, bounds);
    const run = await claimed(userId, await acceptedRun(userId));
    const usageRecord = { id: 'rec_1', user_id: userId, tool: 'count', status: 'success', units: 1 } as UsageRecord;
    const events = [{ ...thinking('x'), usageRecord }, thinking('y')];
    expect((await append(run, 0, { events }, log)).outcome).toBe('appended');
    expect((await append(run, 0, { events }, log)).outcome).toBe('repeated');
    expect(await append({ ...run, fencingToken: run.fencingToken - 1 }, 0, { events }, log)).toEqual({
      outcome: 'fenced',
    });
    expect(acknowledged).toEqual(['rec_1', 'rec_1']);
    const values = async (counter: { get(): Promise<{ values: { value: number; labels: object }[] }> }) => {
      return (await counter.get()).values.map(({ value, labels }) => ({ value, ...labels }));
    };
    expect(await values(metrics.appends)).toEqual([{ value: 2, type: 'agent_thinking' }]);
    expect(await values(metrics.usageRecords)).toEqual([{ value: 1, tool: 'count', status: 'success' }]);
  });
});
