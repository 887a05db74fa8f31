import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { systemClock } from '../../src/lib/clock.ts';
import type { LedgerRecord } from '../../src/protocol/usage.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { RedisUnavailable } from '../../src/redis/errors.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import { integer } from '../../src/redis/replies.ts';
import { LuaScript } from '../../src/redis/scripts.ts';
import { pseudonymsInUse } from '../../src/usage/erasures-in-progress.ts';
import { hourOf } from '../../src/usage/hours.ts';
import { chained } from '../../src/usage/ledger/ledger.ts';
import { Verifier } from '../../src/usage/ledger/verifier.ts';
import { contentDigest, erasedDigest, erasedForm, erasedJson } from '../../src/usage/redaction.ts';
import { silentLogger } from '../support/core.ts';
import { erasureFixture, everythingUnder } from '../support/erasure.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { EVERYTHING_PASSED, HOUR, NEXT_HOUR, type UsageFixture, usageFixture } from '../support/usage.ts';

const eraseRecords = LuaScript.load('eraseRecords-3', integer);
const USER = 'user_erased@example.test';
const OTHER = 'user_b';
/** The redaction entries are in the hour of the erasure. */
const hours = () => [HOUR, NEXT_HOUR, hourOf(Date.now() - 3_600_000), hourOf(Date.now())];

let redis: Redis;
let usage: UsageFixture;
let erasing: ReturnType<typeof erasureFixture>;
let verifier: Verifier;

beforeAll(async () => {
  redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
});

beforeEach(async () => {
  usage = usageFixture(redis);
  erasing = erasureFixture(usage);
  verifier = new Verifier({ ...usage, clock: systemClock, pseudonymsInUse: () => pseudonymsInUse(usage) });
});

/** Records of two users in two hours: a closed window with late records, an open one, refusals, a correction. */
async function fill(): Promise<void> {
  const mine = { userId: USER, requestId: 'request of user_erased' };
  await usage.execute(mine, { userId: OTHER, units: 2 }, mine, { ...mine, tool: 'list_agents' });
  await usage.refuse(USER);
  await usage.ingestAll();
  await usage.windows.closeDue(EVERYTHING_PASSED);
  await usage.execute({ ...mine, hour: NEXT_HOUR }, { userId: OTHER, hour: NEXT_HOUR });
  await usage.ingestAll();
  await usage.execute({ ...mine, units: 11 }, { ...mine, hour: NEXT_HOUR, units: 1 });
  await usage.ingestAll();
  const [first] = await usage.records();
  const key = { serviceId: 'billing', idempotencyKey: 'refund of user_erased' };
  await usage.corrections.record(key, {
    recordId: first?.id ?? '',
    sequence: 1,
    units: -2,
    reason: 'user_erased complained',
  });
  await usage.ingestAll();
}

/** As an earlier version wrote it: without salt and content digest. */
async function fillAsBefore(): Promise<void> {
  await fill();
  let previous = '';
  const records = (await usage.records()).map(({ hash: _, salt: __, content_before: ___, ...record }) => {
    const link = chained(previous, record);
    previous = link.record.hash;
    return link;
  });
  const entries = await redis.xrange(usage.keys.ledger, '-', '+');
  await redis.del(usage.keys.ledger);
  for (const [at, { json }] of records.entries()) {
    const [id, [, , , appended = '']] = entries[at] ?? ['', []];
    await redis.xadd(usage.keys.ledger, id, 'r', json, 'a', appended);
  }
  await redis.hset(usage.keys.ledgerState, 'hash', previous);
}

const verified = () => verifier.verify(hours());
const problem = async () => (await verified()).problem;
const begin = async () => (await erasing.erasures.begin(USER, 'test', Date.now())).erasure_id;

async function erase(between: () => Promise<unknown> = async () => undefined): Promise<string> {
  const id = await begin();
  await erasing.finish(id, async () => {
    await usage.ingestAll();
    await between();
  });
  return id;
}

async function erasedRecords(): Promise<{ member: string; record: LedgerRecord }[]> {
  const members = await redis.zrange(usage.keys.erasedRecords, 0, '-1');
  return members.map((member) => ({ member, record: JSON.parse(member.slice(member.indexOf('{'))) as LedgerRecord }));
}

/** Replaces an erased record with another one, like an attacker with access to Redis. */
async function forge(member: string, record: LedgerRecord): Promise<void> {
  await redis.zrem(usage.keys.erasedRecords, member);
  await redis.zadd(usage.keys.erasedRecords, record.sequence, `${record.sequence} 1 ${JSON.stringify(record)}`);
}

describe.each([
  ['written by this version', fill],
  ['written before there were erasures', fillAsBefore],
])('the ledger of an erased user, %s', (_name, write) => {
  beforeEach(write);

  it('verifies before, between the steps and after, with the totals, windows and tallies that it had', async () => {
    expect(await verified()).toMatchObject({ ok: true, checked_records: 9 });
    const windows = await usage.windows.read([HOUR, NEXT_HOUR]);
    const tallies = await usage.tallies.query({ hours: [HOUR, NEXT_HOUR], groupBy: ['tool', 'plan', 'hour'] });
    const id = await erase(async () => expect(await problem()).toBeNull());
    expect(await verified()).toMatchObject({ ok: true, checked_records: 10, unsettled: [] });
    expect(await usage.windows.read([HOUR, NEXT_HOUR])).toEqual(windows);
    expect(await usage.tallies.query({ hours: [HOUR, NEXT_HOUR], groupBy: ['tool', 'plan', 'hour'] })).toEqual(tallies);
    const own = await usage.tallies.query({ hours: [HOUR], userId: id, groupBy: ['user'] });
    expect(own).toMatchObject([{ user: id, executions: 4, units: 26, refusals: 1 }]);
  });

  it('keeps the bytes of all other records, and of its own everything that is not personal', async () => {
    const before = await usage.records();
    const id = await erase();
    const after = await usage.records();
    expect(after.slice(0, before.length).map(({ hash }) => hash)).toEqual(before.map(({ hash }) => hash));
    for (const [at, record] of before.entries()) {
      const now = after[at] as LedgerRecord;
      if (record.user_id === OTHER) expect(JSON.stringify(now)).toBe(JSON.stringify(record));
      else {
        expect(now).toMatchObject({
          user_id: id,
          request_id: null,
          run_id: null,
          units: record.units,
          tool: record.tool,
        });
        expect(contentDigest(now)).toBe(contentDigest(record));
      }
    }
    expect(after.at(-1)).toMatchObject({ user_id: id, units: 0, reason: 'erasure', corrects: before[0]?.id });
  });

  it('has the user’s name and what the user chose in no key of Redis any more', async () => {
    const there = async () => [...(await everythingUnder(redis, usage.keys.prefix)).values()];
    expect((await there()).filter((text) => /user_erased/.test(text)).length).toBeGreaterThan(3);
    await erase();
    expect((await there()).filter((text) => /user_erased/.test(text))).toEqual([]);
  });

  it('shows when a unit, a tool or the pseudonym of an erased record is changed, or the record removed', async () => {
    await erase();
    const records = await erasedRecords();
    expect(records).toHaveLength(7);
    for (const { member, record } of records) {
      for (const change of [{ units: record.units + 1 }, { tool: 'x' }, { user_id: 'erased_x' }, { erasure: 1 }]) {
        const changed = { ...record, ...change };
        await forge(member, changed);
        expect(await problem()).toMatchObject({ kind: 'chain', sequence: record.sequence });
        await redis.zrem(usage.keys.erasedRecords, `${record.sequence} 1 ${JSON.stringify(changed)}`);
        // Without the preceding record neither the entry nor what it covers can be proved.
        expect(await problem()).toMatchObject({ kind: 'chain' });
        await redis.zadd(usage.keys.erasedRecords, record.sequence, member);
      }
    }
    expect(await problem()).toBeNull();
  });

  it('detects a record that is marked as erased without an entry', async () => {
    await erase();
    const other = (await usage.records()).find(({ user_id }) => user_id === OTHER)?.sequence ?? 0;
    const id = `${other}-0`;
    const [[, [, json = '']] = ['', []]] = await redis.xrange(usage.keys.ledger, id, id);
    const { hash, ...record } = JSON.parse(json) as LedgerRecord;
    await redis.xdel(usage.keys.ledger, id);
    await redis.zadd(
      usage.keys.erasedRecords,
      other,
      `${other} 1 ${JSON.stringify({ ...record, units: 0, erasure: 10, hash })}`,
    );
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: other });
  });

  it('answers the correction that is repeated as before, under the pseudonym, and makes no second one', async () => {
    const [first] = await usage.records();
    const id = await erase();
    const request = { recordId: first?.id ?? '', sequence: 1, units: -2, reason: 'user_erased complained' };
    const key = { serviceId: 'billing', idempotencyKey: 'refund of user_erased' };
    const repeated = await usage.corrections.record(key, request);
    expect(repeated).toMatchObject({ outcome: 'repeated', record: { user_id: id, units: -2 } });
    await usage.ingestAll();
    expect(await usage.records()).toHaveLength(10);
  });

  it('is trimmed like any other, without a gap', async () => {
    await erase();
    const records = await usage.records();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    const to = records[6] as LedgerRecord;
    await usage.consumers.confirm('billing', 'billing', to);
    expect(await usage.consumers.trim(-1)).toBe(7);
    expect((await usage.ledger.head()).trimmed).toEqual({ sequence: 7, hash: to.hash });
    expect((await erasedRecords()).map(({ record }) => record.sequence)).toEqual([8, 9]);
    const page = await usage.ledger.read({ after: to, limit: 10 });
    expect(page).toMatchObject({ gapDetected: false, hasMore: false });
    expect(page.records.map(({ sequence }) => sequence)).toEqual([8, 9, 10]);
    expect(await problem()).toBeNull();
  });
});

describe('an erasure that changes more than personal fields', () => {
  it('is found out by the record after it, although its own entry covers what it wrote', async () => {
    await fill();
    const pseudonym = 'erased_by-somebody-dishonest';
    const original = (await usage.records()).find(({ user_id }) => user_id === USER) as LedgerRecord;
    const form = { ...erasedForm(original, pseudonym), units: original.units + 1 };
    const { id, plan, started_at, completed_at, period } = original;
    const entry = { ...original, id: `${id}x`, user_id: pseudonym, plan, started_at, completed_at, period, units: 0 };
    const { sequence: _, hash: __, salt: ___, content_before: ____, ...record } = entry;
    const erases = [[original.sequence, erasedDigest(form)]];
    await redis.xadd(
      usage.keys.corrections,
      '*',
      'r',
      JSON.stringify({ ...record, corrects: id, reason: 'erasure', erases }),
    );
    await usage.ingestAll();
    const { sequence } = (await usage.records()).at(-1) as LedgerRecord;
    const key = usage.keys.erasure(pseudonym);
    const { ledger, erasedRecords } = usage.keys;
    const args = [original.sequence, erasedJson(form, sequence)];
    expect(await eraseRecords.run(redis, [ledger, erasedRecords, key], args)).toBe(1);
    expect(await problem()).toMatchObject({
      kind: 'chain',
      sequence: original.sequence,
      what: 'The next record contains another content digest for this erased record.',
    });
  });
});

describe('an erasure', () => {
  it('ingests the outbox records before it replaces any record', async () => {
    await fill();
    const [waiting] = await usage.execute({ userId: USER, units: 40, hour: NEXT_HOUR });
    const id = await begin();
    await erasing.step();
    expect(await erasing.erasures.read(id)).toMatchObject({ phase: 'ingesting', waiting_for: 'ledger_writer' });
    expect(await redis.xlen(usage.keys.outbox(partitionOf(USER)))).toBe(1);
    await erasing.finish(id, usage.ingestAll);
    const record = (await usage.records()).find((one) => one.id === waiting?.id);
    expect(record).toMatchObject({ user_id: id, units: 40 });
    expect(await problem()).toBeNull();
  });

  it('continues after an interruption at any command, made or not, and comes to the same end', async () => {
    await fill();
    const before = await usage.records();
    const id = await begin();
    let left = 0;
    const flaky = new Proxy(redis, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target) as unknown;
        if (typeof value !== 'function') return value;
        if (['defineCommand', 'multi', 'pipeline', 'on', 'once', 'off'].includes(String(name)))
          return value.bind(target);
        return (...args: unknown[]) => {
          left -= 1;
          // Half of the time the command is executed and only its reply lost.
          const made = left < 0 && left % 2 !== 0 ? Promise.resolve(value.apply(target, args)) : undefined;
          if (left >= 0) return value.apply(target, args);
          const lost = () => Promise.reject(new RedisUnavailable());
          return made ? made.then(lost) : lost();
        };
      },
    });
    const interrupted = erasureFixture({ ...usage, redis: flaky });
    let interruptions = 0;
    for (let attempt = 1; attempt < 150; attempt++) {
      left = 3 + attempt;
      await interrupted.step().catch((error: unknown) => {
        if (!(error instanceof RedisUnavailable)) throw error;
        interruptions += 1;
      });
      await usage.ingestAll();
      if (attempt % 4 === 0) expect(await problem()).toBeNull();
      if ((await erasing.erasures.read(id))?.status === 'done') break;
    }
    expect(interruptions).toBeGreaterThan(10);
    expect(await erasing.finish(id, usage.ingestAll)).toMatchObject({ counts: { records: 7 } });
    const after = await usage.records();
    expect(after.slice(0, 9).map(({ hash }) => hash)).toEqual(before.map(({ hash }) => hash));
    expect(after).toHaveLength(10);
    const texts = [...(await everythingUnder(redis, usage.keys.prefix)).values()];
    expect(texts.filter((text) => /user_erased/.test(text))).toEqual([]);
  });

  it('of more records than an entry lists, with two workers at once, erases each once', async () => {
    await usage.execute(...Array.from({ length: 1_150 }, (_, at) => ({ userId: at % 23 < 20 ? OTHER : USER })));
    await usage.ingestAll();
    const id = await begin();
    const second = erasureFixture(usage);
    const state = await erasing.finish(id, () => Promise.all([usage.ingestAll(), second.step()]));
    expect(state).toMatchObject({ counts: { records: 150 }, finished_at: expect.any(String) });
    const records = await usage.records();
    expect(records.filter(({ user_id }) => user_id === OTHER)).toHaveLength(1_000);
    expect(records.filter(({ erases }) => erases)).toHaveLength(2);
    expect(await problem()).toBeNull();
  });

  it('stops at a record that does not follow from the one before, which it would hide', async () => {
    await fill();
    const [[, [, json = '', , appended = '']] = ['', []]] = await redis.xrange(usage.keys.ledger, '9-0', '9-0');
    await redis.xdel(usage.keys.ledger, '9-0');
    const forged = json.replace('"units":-2', '"units":-1');
    await redis.zadd(usage.keys.erasedRecords, 9, `9 ${appended} ${forged}`);
    expect(forged).not.toBe(json);
    const id = await begin();
    for (let jobs = 0; jobs < 5; jobs++) {
      await erasing.step();
      await usage.ingestAll();
    }
    expect(await erasing.erasures.read(id)).toMatchObject({ phase: 'listing', waiting_for: 'operator' });
    expect(await problem()).toMatchObject({ kind: 'chain', sequence: 9 });
  });

  it('that a stopped worker continues after its end deletes nothing of the user who has begun anew', async () => {
    await fill();
    const id = await erase();
    const key = usage.keys.user(USER).quota;
    await redis.hset(key, 'tool:x', '1 1');
    expect(await erasing.deps.userData.erase(USER, id)).toBe(0);
    expect(await redis.exists(key)).toBe(1);
    const finished = { id, userId: USER, phase: 'deleting' as const, notes: {} };
    await erasing.erasures.enter(finished, 'finishing');
    expect(await erasing.erasures.read(id)).toMatchObject({ status: 'done' });
    await usage.execute({ userId: USER });
    await usage.ingestAll();
    await erasing.deps.ledgerErasure.renameTallies(
      { userId: USER, pseudonym: id },
      Date.parse(`${HOUR}:00:00Z`),
      Date.now(),
    );
    expect(await problem()).toBeNull();
    expect(await usage.tallies.query({ hours: [HOUR], userId: USER, groupBy: ['user'] })).toHaveLength(1);
  });

  it('that cannot go on keeps no other waiting', async () => {
    await fill();
    await redis.xadd(usage.keys.outbox(partitionOf(USER)), '*', 'r', 'no record');
    const stuck = await begin();
    const other = (await erasing.erasures.begin(OTHER, 'test', Date.now())).erasure_id;
    if (partitionOf(OTHER) === partitionOf(USER)) throw new Error('take other names');
    await erasing.finish(other, () => usage.writer.ingest(Date.now()));
    expect(await erasing.erasures.read(stuck)).toMatchObject({ phase: 'ingesting', waiting_for: 'ledger_writer' });
  });

  it('leaves a user alone who has begun anew since', async () => {
    await fill();
    await erase();
    await usage.execute({ userId: USER });
    await usage.ingestAll();
    expect((await usage.records()).filter(({ user_id }) => user_id === USER)).toHaveLength(1);
    expect(await erasing.erasures.inProgress(10)).toEqual([]);
  });
});
