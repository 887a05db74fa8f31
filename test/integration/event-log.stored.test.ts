import { beforeAll, describe, expect, it } from '@jest/globals';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import type { Append, NewEvent } from '../../src/events/append.ts';
import { renewEpochs } from '../../src/events/renew-epochs.ts';
import type { UsageRecord } from '../../src/protocol/usage.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import { integer } from '../../src/redis/replies.ts';
import { LuaScript } from '../../src/redis/scripts.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import type { Runs } from '../../src/runs/runs.ts';
import type { ClaimedRun } from '../../src/runs/stored-run.ts';
import { type Core, messagesOn, startCore, thinking } from '../support/core.ts';
import { RUN_AGENTS, runNodes } from '../support/run-nodes.ts';
import { expectAbout, expectKept, notAtTheEndOf, StoredRun } from '../support/stored-runs.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** The greatest age of an event, and the time after which the expiry of a log is renewed: a 64th of it. */
const MAX_AGE_MS = 3_600_000;
const RENEWAL_MS = MAX_AGE_MS / 64;
const STATE_MS = 90 * 24 * 3_600_000;
const RECORDS_MS = 30 * MAX_AGE_MS;
const BEGINNING = { epoch: undefined, after: 0, delivered: undefined };

let core: Core;
let runs: Runs;
let claims: RunClaims;

beforeAll(async () => {
  core = await startCore({ maxAgeMs: MAX_AGE_MS });
  const [node] = await runNodes(core, new Catalogues().plans, { nodes: 1, timeoutMs: 60_000 });
  if (!node) throw new Error('one node');
  runs = node;
  claims = new RunClaims({ ...core, agents: RUN_AGENTS }, { timeoutMs: 60_000 });
});

const append = (userId: string, ...texts: string[]) => core.log.append({ userId, events: texts.map(thinking) });
const entriesOf = (userId: string) => core.redis.xrange(core.keys.user(userId).log, '-', '+');
const seqs = async (userId: string) => (await entriesOf(userId)).map(([id]) => Number.parseInt(id, 10));

async function claimedRun(): Promise<{ run: StoredRun; claim: ClaimedRun }> {
  const run = await new StoredRun(core).start(runs);
  return { run, claim: await run.claim(claims) };
}

function appendTo(claim: ClaimedRun, events: readonly NewEvent[], more: Partial<Append> = {}, eventsInLog = 0) {
  const { userId, runId, fencingToken } = claim;
  return core.log.append({ userId, events, run: { runId, fencingToken, eventsInLog }, ...more });
}

describe('an event log', () => {
  it('is stored with its epoch, its head and its bytes, and expires after the greatest age', async () => {
    await notAtTheEndOf(RENEWAL_MS);
    const userId = freshUserId();
    const { log, logState } = core.keys.user(userId);
    const now = Date.now();
    expect(await append(userId, 'first')).toEqual({ outcome: 'appended', seq: 1, cancelRequested: false });
    await append(userId, 'second');
    const entries = await entriesOf(userId);
    expect(entries.map(([id]) => id)).toEqual(['1-0', '2-0']);
    const fields = entries.map(([, flat]) =>
      Object.fromEntries(flat.flatMap((_, i) => (i % 2 ? [] : [[flat[i], flat[i + 1]]]))),
    );
    const sizes = fields.map(({ t, s, f }) => 64 + `${t}${s}${f}`.length);
    expect(fields.map(({ t, b }) => [t, b])).toEqual([
      ['agent_thinking', '0'],
      ['agent_thinking', String(sizes[0])],
    ]);
    expect(JSON.parse(String(fields[1]?.f))).toMatchObject({ seq: 2, thought: 'second', timestamp: fields[1]?.s });
    expectAbout(fields[0]?.a, now);
    const state = await core.redis.hgetall(logState);
    expect(state).toEqual({
      epoch: expect.stringMatching(/^epoch_/),
      seq: '2',
      bytes: String(sizes.reduce((sum, size) => sum + size, 0)),
      kept: String(Math.floor(now / RENEWAL_MS)),
    });
    await expectKept(core, log, MAX_AGE_MS + RENEWAL_MS);
    await expectKept(core, logState, STATE_MS + RENEWAL_MS);
  });

  it('renews its expiry once per 64th of the greatest age', async () => {
    await notAtTheEndOf(RENEWAL_MS);
    const userId = freshUserId();
    const { log, logState } = core.keys.user(userId);
    await append(userId, 'first');
    for (const key of [log, logState]) await core.redis.pexpire(key, 500_000);
    await append(userId, 'second');
    for (const key of [log, logState]) await expectKept(core, key, 500_000);
    await core.redis.hincrby(logState, 'kept', -1);
    await append(userId, 'third');
    await expectKept(core, log, MAX_AGE_MS + RENEWAL_MS);
    await expectKept(core, logState, STATE_MS + RENEWAL_MS);
  });

  it('removes at most 32 expired events on every 16th append, and none that has its age', async () => {
    const userId = freshUserId();
    const { log, logState } = core.keys.user(userId);
    const add = (seq: number, age: number) =>
      core.redis.xadd(log, `${seq}-0`, 't', 'x', 's', 's', 'a', Date.now() - age, 'f', '{}', 'b', 0);
    for (let seq = 1; seq <= 40; seq += 1) await add(seq, MAX_AGE_MS + 1);
    for (let seq = 41; seq <= 45; seq += 1) await add(seq, MAX_AGE_MS - 60_000);
    await core.redis.hset(logState, 'epoch', 'epoch_1', 'seq', 45);
    await append(userId, '46', '47');
    expect((await seqs(userId)).at(0)).toBe(1);
    await append(userId, '48');
    expect((await seqs(userId)).at(0)).toBe(33);
    await append(userId, '49');
    expect((await seqs(userId)).at(0)).toBe(33);
    // The 16th event need not be the last of its append.
    await append(userId, ...Array.from({ length: 17 }, (_, at) => `${50 + at}`));
    expect((await seqs(userId)).at(0)).toBe(41);
  });

  it('loses the oldest events beyond its bytes, and no event at exactly its bytes', async () => {
    const sized = freshUserId();
    const event = { ...thinking('x'), fields: { thought: 'x', timestamp: new Date(0).toISOString() } };
    await core.log.append({ userId: sized, events: [event] });
    const bytes = Number(await core.redis.hget(core.keys.user(sized).logState, 'bytes'));
    const small = await startCore({ logBytes: 3 * bytes });
    const userId = freshUserId();
    const oldest = async () => (await small.eventLog.read(userId, BEGINNING, 1)).oldest;
    for (const expected of [1, 1, 1, 2, 3]) {
      await small.log.append({ userId, events: [event] });
      expect(await oldest()).toBe(expected);
    }
    const state = await small.redis.hgetall(small.keys.user(userId).logState);
    expect(state).toMatchObject({ bytes: String(5 * bytes), trimmed: String(2 * bytes) });
  });

  it('loses at most 256 events per append, so that none takes long', async () => {
    const bounded = await startCore({ logBytes: 200_000 });
    const userId = freshUserId();
    const add = (chars: number, events = 1) =>
      bounded.log.append({ userId, events: Array.from({ length: events }, () => thinking('x'.repeat(chars))) });
    await add(300, 400);
    await add(195_000);
    const oldest = async () => (await bounded.eventLog.read(userId, BEGINNING, 1)).oldest;
    expect(await oldest()).toBe(257);
    await add(300);
    expect(await oldest()).toBeGreaterThan(385);
  });

  it('publishes each event with its epoch, as it is stored', async () => {
    const userId = freshUserId();
    const messages = await messagesOn(core.keys.user(userId).channel);
    await append(userId, 'first', 'second');
    await until(() => messages.length === 2);
    const epoch = await core.redis.hget(core.keys.user(userId).logState, 'epoch');
    const stored = (await entriesOf(userId)).map(
      ([id, [, t, , s, , , , f]]) => `e${epoch} ${id.slice(0, -2)} ${t} ${s} ${f}`,
    );
    expect(messages).toEqual(stored);
  });
});

describe('a page of an event log', () => {
  it('has the events after the position, no more than asked for', async () => {
    const userId = freshUserId();
    await append(userId, '1', '2', '3', '4');
    const { epoch } = await core.eventLog.read(userId, BEGINNING, 1);
    const read = async (after: number, limit: number) => {
      const page = await core.eventLog.read(userId, { ...BEGINNING, epoch, after }, limit);
      return page.entries.map(({ seq }) => seq);
    };
    expect(await read(0, 2)).toEqual([1, 2]);
    expect(await read(2, 10)).toEqual([3, 4]);
    expect(await read(4, 10)).toEqual([]);
  });

  it('of a log that does not exist begins an epoch, which is kept like that of an unused log', async () => {
    const userId = freshUserId();
    const { logState } = core.keys.user(userId);
    const page = await core.eventLog.read(userId, BEGINNING, 10);
    expect(page).toMatchObject({ head: 0, oldest: 1, entries: [] });
    expect(await core.redis.hgetall(logState)).toEqual({ epoch: page.epoch, seq: '0' });
    await expectKept(core, logState, STATE_MS);
    expect((await core.eventLog.read(userId, BEGINNING, 10)).epoch).toBe(page.epoch);
  });

  it('has a new epoch if the node delivered another event at its position, and only then', async () => {
    const userId = freshUserId();
    await append(userId, '1', '2');
    const first = await core.eventLog.read(userId, BEGINNING, 1);
    const timestamp = String((await entriesOf(userId))[1]?.[1][3]);
    const read = (after: number, delivered: string | undefined, epoch = first.epoch) =>
      core.eventLog.read(userId, { epoch, after, delivered }, 10);
    for (const delivered of [timestamp, '', undefined]) expect((await read(2, delivered)).epoch).toBe(first.epoch);
    expect((await read(2, 'another', 'epoch_other')).epoch).toBe(first.epoch);
    expect((await read(2, undefined)).head).toBe(2);
    // An event that has left the log proves nothing.
    await core.redis.xdel(core.keys.user(userId).log, '1-0');
    expect((await read(1, 'another')).epoch).toBe(first.epoch);
    const changed = await read(2, 'another');
    expect(changed.epoch).not.toBe(first.epoch);
    expect(changed).toMatchObject({ head: 2, oldest: 2, entries: [] });
  });
});

describe('renewed epochs', () => {
  it('are new for each log, and leave its head and its expiry as they are', async () => {
    const own = await startCore();
    const users = [freshUserId(), freshUserId()];
    for (const userId of users) await own.log.append({ userId, events: [thinking('x')] });
    const states = users.map((userId) => own.keys.user(userId).logState);
    const read = () => Promise.all(states.map((key) => own.redis.hgetall(key)));
    const before = await read();
    for (const key of states) await own.redis.pexpire(key, 500_000);
    expect(await renewEpochs(own)).toBe(2);
    const after = await read();
    expect(after.map(({ epoch: _, ...rest }) => rest)).toEqual(before.map(({ epoch: _, ...rest }) => rest));
    expect(after.filter(({ epoch }, at) => epoch === before[at]?.epoch || !epoch)).toEqual([]);
    for (const key of states) await expectKept(own, key, 500_000);
  });

  it('begin no log that has expired since it was found', async () => {
    const { logState } = core.keys.user(freshUserId());
    expect(await LuaScript.load('renewEpoch-1', integer).run(core.redis, [logState], [])).toBe(0);
    expect(await core.redis.exists(logState)).toBe(0);
  });
});

describe('the end of a run', () => {
  it('is stored with its last event, and removes what only its execution needs', async () => {
    const { run, claim } = await claimedRun();
    const { keys } = run;
    await run.set({ 'tool:a': '1', 'step:a': '1', 'input:a': '1', 'answer:a': '1', 'other:a': '1', job: 'job_1' });
    await core.redis.zadd(keys.activeRuns, Date.now(), 'other');
    await core.redis.zadd(keys.runsInFlight, Date.now(), 'other');
    await appendTo(claim, [thinking('1'), thinking('2')]);
    const now = Date.now();
    await appendTo(claim, [thinking('3')], { ends: 'agent_completed' }, 2);
    const stored = await run.stored();
    expect(stored).toMatchObject({ status: 'completed', events: '3', first_seq: '1', last_seq: '3', 'other:a': '1' });
    expectAbout(stored.ended_at, now);
    for (const field of ['message', 'caller', 'job', 'tool:a', 'step:a', 'input:a', 'answer:a', 'failure'])
      expect(stored).not.toHaveProperty(field);
    expect(await core.redis.zscore(keys.activeRuns, run.member)).toBeNull();
    expect(await core.redis.zrange(keys.runsInFlight, 0, '-1')).toEqual(['other']);
    expect(await core.redis.zscore(keys.activeRuns, 'other')).not.toBeNull();
    expect(await core.redis.zscore(keys.unsuccessfulRuns, run.member)).toBeNull();
  });

  it('removes a journal of any length', async () => {
    const { run, claim } = await claimedRun();
    await run.set(Object.fromEntries(Array.from({ length: 2_500 }, (_, at) => [`tool:${at}`, '1'])));
    await appendTo(claim, [thinking('1')], { ends: 'agent_completed' });
    expect((await core.redis.hkeys(run.key)).filter((field) => field.startsWith('tool:'))).toEqual([]);
  });

  it('of a writer that has no journal removes message and caller only', async () => {
    const { run, claim } = await claimedRun();
    await run.set({ 'tool:a': '1' });
    await appendTo(claim, [thinking('1')], { ends: 'agent_completed', hasNoJournal: true });
    const stored = await run.stored();
    expect(stored).toMatchObject({ status: 'completed', 'tool:a': '1' });
    for (const field of ['message', 'caller', 'job']) expect(stored).not.toHaveProperty(field);
  });

  it('by a failure or a cancellation is listed, with the code of a failure, the latest 200 for 25 hours', async () => {
    const { run, claim } = await claimedRun();
    const { unsuccessfulRuns } = run.keys;
    await core.redis.del(unsuccessfulRuns);
    const failed = {
      type: 'agent_failed',
      fields: { ...thinking('1').fields, error: { code: 'RUN_TIMEOUT' } },
    } as const;
    const earlier = Array.from({ length: 200 }, (_, at) => [at, `earlier_${at}`]).flat();
    await core.redis.zadd(unsuccessfulRuns, ...earlier);
    const now = Date.now();
    await appendTo(claim, [failed], { ends: 'agent_failed' });
    expect(await run.stored()).toMatchObject({ status: 'failed', failure: 'RUN_TIMEOUT' });
    expectAbout(await core.redis.zscore(unsuccessfulRuns, run.member), now);
    expect(await core.redis.zcard(unsuccessfulRuns)).toBe(200);
    expect(await core.redis.zrange(unsuccessfulRuns, 0, '0')).toEqual(['earlier_1']);
    await expectKept(core, unsuccessfulRuns, 25 * 3_600_000);
    const second = await claimedRun();
    await appendTo(second.claim, [thinking('1')], { ends: 'agent_cancelled' });
    expect(await second.run.stored()).not.toHaveProperty('failure');
    expect(await core.redis.zscore(second.run.keys.unsuccessfulRuns, second.run.member)).not.toBeNull();
  });

  it('adds the answer to its thread, if the thread still has a message', async () => {
    const answer = { threadId: 'thread_1', message: { role: 'agent', text: 'done' } };
    const { run, claim } = await claimedRun();
    const thread = run.keys.thread('thread_1');
    await appendTo(claim, [thinking('1')], { ends: 'agent_completed', threadMessage: answer });
    const messages = await core.redis.xrange(thread, '-', '+');
    const [question, reply] = messages.map(([, [, m, , b]]) => ({
      ...JSON.parse(String(m)),
      bytes: Number(b),
      json: m,
    }));
    expect([question, reply]).toMatchObject([{ text: 'hello', bytes: 0 }, { text: 'done' }]);
    expect(reply.bytes).toBe(64 + question.json.length);
    const expired = await claimedRun();
    await core.redis.del(expired.run.keys.thread('thread_1'));
    await appendTo(expired.claim, [thinking('1')], { ends: 'agent_completed', threadMessage: answer });
    expect(await core.redis.exists(expired.run.keys.thread('thread_1'))).toBe(0);
  });
});

describe('what is written with an event', () => {
  const usageRecord = { id: 'usage_1', tool: 't', status: 'success', units: 1 } as unknown as UsageRecord;

  it('is a usage record in the outbox and in the recent records, which are kept for 30 times the age', async () => {
    await notAtTheEndOf(RENEWAL_MS);
    const userId = freshUserId();
    const { outbox, recentUsage } = core.keys.user(userId);
    const write = () => core.log.append({ userId, events: [{ ...thinking('1'), usageRecord }] });
    await write();
    const json = JSON.stringify(usageRecord);
    const written = async () => (await core.redis.xrevrange(outbox, '+', '-', 'COUNT', 1)).map(([, fields]) => fields);
    expect(await written()).toEqual([['r', json]]);
    expect(await core.redis.lrange(recentUsage, 0, '-1')).toEqual([json]);
    await expectKept(core, recentUsage, RECORDS_MS + RENEWAL_MS);
    await core.redis.pexpire(recentUsage, 500_000);
    await write();
    await expectKept(core, recentUsage, 500_000);
    await core.redis.hincrby(core.keys.user(userId).logState, 'kept', -1);
    await write();
    await expectKept(core, recentUsage, RECORDS_MS + RENEWAL_MS);
  });

  it('are the latest 1,000 records of the user, and no fewer', async () => {
    const userId = freshUserId();
    const { recentUsage } = core.keys.user(userId);
    await core.redis.rpush(recentUsage, ...Array.from({ length: 999 }, (_, at) => `${at}`));
    const write = () => core.log.append({ userId, events: [{ ...thinking('1'), usageRecord }] });
    await write();
    expect(await core.redis.llen(recentUsage)).toBe(1_000);
    await write();
    expect(await core.redis.llen(recentUsage)).toBe(1_000);
    expect(await core.redis.lindex(recentUsage, -1)).toBe('997');
  });

  it('is a refusal in the outbox, and no record', async () => {
    const userId = freshUserId();
    const { outbox, recentUsage } = core.keys.user(userId);
    const refusal = { user_id: userId, tool: 't' } as unknown as NonNullable<NewEvent['refusal']>;
    await core.log.append({ userId, events: [{ ...thinking('1'), refusal }] });
    const [last] = await core.redis.xrevrange(core.keys.outbox(partitionOf(userId)), '+', '-', 'COUNT', 1);
    expect(outbox).toBe(core.keys.outbox(partitionOf(userId)));
    expect(last?.[1]).toEqual(['x', JSON.stringify(refusal)]);
    expect(await core.redis.exists(recentUsage)).toBe(0);
  });

  it('is a journal entry of the run, one per event that has one', async () => {
    const { run, claim } = await claimedRun();
    const journal = (field: string) => ({ ...thinking(field), journal: { field, value: `value of ${field}` } });
    await appendTo(claim, [journal('tool:a'), thinking('plain'), { ...journal('tool:b'), usageRecord }]);
    expect(await run.stored()).toMatchObject({ 'tool:a': 'value of tool:a', 'tool:b': 'value of tool:b', events: '3' });
    expect(await core.redis.lrange(run.keys.recentUsage, 0, '-1')).toEqual([JSON.stringify(usageRecord)]);
  });

  it('is the reservation of a tool call, within the counted uses of its limits', async () => {
    const { run, claim } = await claimedRun();
    const { quota, reservations } = run.keys;
    const reserve = (most: number) => {
      const limits = [['used', 'tool:t', most, 3_600_000, 300_000]];
      return JSON.stringify({ member: 'call_1 t basic', concurrency: 10, forMs: 60_000, limits });
    };
    await core.redis.hset(quota, 'used', `${Math.floor(Date.now() / 300_000)} 1`);
    const refused = await appendTo(claim, [thinking('1')], { reserve: reserve(1) });
    expect(refused).toMatchObject({
      reserved: { allowed: false, reply: [expect.any(Number), 1, 1, expect.any(Number)] },
    });
    expect(await core.redis.zcard(reservations)).toBe(0);
    const reserved = await appendTo(claim, [thinking('2')], { reserve: reserve(2) }, 1);
    expect(reserved).toMatchObject({ reserved: { allowed: true, reply: [expect.any(Number), 2, expect.any(Number)] } });
    expect(await core.redis.zrange(reservations, 0, '-1')).toEqual(['call_1 t basic']);
  });
});
