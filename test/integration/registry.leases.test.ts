import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { type AdmissionRequest, ConnectionRegistry } from '../../src/cluster/connection-registry.ts';
import { LOG_STATE_SECONDS } from '../../src/events/event-log.ts';
import { newId } from '../../src/lib/ids.ts';
import { type Core, messagesOn, startCore, startTail } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODE = 'node_a';
const LEASE_MS = 30_000;
const CAP = 3;
/** Keys are kept for two leases, so that one missed renewal loses nothing. */
const KEPT_MS = 2 * LEASE_MS;

let core: Core;
let registry: ConnectionRegistry;

beforeAll(async () => {
  core = await startCore();
  const { tail } = await startTail(core);
  await tail.attend(core.keys.nodeChannels(NODE));
  registry = new ConnectionRegistry(core, { leaseMs: LEASE_MS, maxConnectionsPerUser: CAP });
});

async function admit(
  userId: string,
  request: Partial<AdmissionRequest> & { readonly stream?: string } = {},
  by = registry,
) {
  const { connectionId = newId('ws'), stream, ...others } = request;
  const details = { node: NODE, endpoint: '/ws', opened_at: new Date().toISOString(), stream };
  const admission = { userId, connectionId, plan: 'free', tokenIssuedAt: Date.now(), details, ...others };
  return { connectionId, ...(await by.admit(admission)) };
}

/** Redis and this process share one clock. */
function expectAbout(at: number | string | null, from: number): void {
  expect(Number(at)).toBeGreaterThanOrEqual(from - 1);
  expect(Number(at)).toBeLessThan(from + 10_000);
}

async function expectKept(key: string): Promise<void> {
  const left = await core.redis.pttl(key);
  expect(left).toBeGreaterThan(KEPT_MS - 10_000);
  expect(left).toBeLessThanOrEqual(KEPT_MS);
}

async function leased(userId: string): Promise<string[]> {
  return core.redis.zrange(core.keys.user(userId).leases, 0, '-1');
}

describe('an admission', () => {
  it('grants a lease of the configured duration, and keeps its keys for two leases', async () => {
    const userId = freshUserId();
    const { leases, connections } = core.keys.user(userId);
    const now = Date.now();
    const { connectionId } = await admit(userId);
    expectAbout(await core.redis.zscore(leases, connectionId), now + LEASE_MS);
    await expectKept(leases);
    await expectKept(connections);
    const left = await core.redis.ttl(core.keys.user(userId).logState);
    expect(left).toBeGreaterThan(LOG_STATE_SECONDS - 10);
    expect(left).toBeLessThanOrEqual(LOG_STATE_SECONDS);
  });

  it('is refused for a blocked user and for a token from before the revocation, not at its time', async () => {
    const blocked = freshUserId();
    await core.redis.hset(core.keys.user(blocked).account, 'blocked', '1');
    await expect(admit(blocked)).rejects.toMatchObject({ code: 'USER_BLOCKED' });
    const erased = freshUserId();
    await core.redis.hset(core.keys.user(erased).account, 'erasure', '1');
    await expect(admit(erased)).rejects.toMatchObject({ code: 'USER_BLOCKED' });
    const revoked = freshUserId();
    await core.redis.hset(core.keys.user(revoked).account, 'revoked_before', '5000');
    await expect(admit(revoked, { tokenIssuedAt: 4_999 })).rejects.toMatchObject({ code: 'TOKEN_REVOKED' });
    expect(await admit(revoked, { tokenIssuedAt: 5_000 })).toMatchObject({ revokedBefore: 5_000 });
    expect(await Promise.all([blocked, erased].map(leased))).toEqual([[], []]);
  });

  it('removes expired leases with their details, and evictions whose time is over', async () => {
    const userId = freshUserId();
    const { leases, connections, evicted } = core.keys.user(userId);
    await admit(userId, { connectionId: 'ws_dead' });
    await core.redis.zadd(leases, Date.now() - 1, 'ws_dead');
    await core.redis.zadd(evicted, Date.now() - 1, 'ws_over', Date.now() + KEPT_MS, 'ws_recent');
    const { connectionId } = await admit(userId);
    expect(await leased(userId)).toEqual([connectionId]);
    expect((await core.redis.hkeys(connections)).toSorted()).toEqual(['#', connectionId]);
    expect(await core.redis.zrange(evicted, 0, '-1')).toEqual(['ws_recent']);
  });

  it('of a connection that was evicted keeps its order, and ends the eviction', async () => {
    const userId = freshUserId();
    const first = await admit(userId);
    const second = await admit(userId);
    for (let at = 0; at < CAP - 1; at += 1) await admit(userId);
    const { evicted } = core.keys.user(userId);
    expectAbout(await core.redis.zscore(evicted, first.connectionId), Date.now() + KEPT_MS - 5_000);
    await expectKept(evicted);
    await registry.release(userId, [second.connectionId]);
    const again = await admit(userId, { connectionId: first.connectionId, order: first.order });
    expect(again.order).toBe(first.order);
    expect(await core.redis.zscore(evicted, first.connectionId)).toBeNull();
    expect((await admit(userId)).order).toBeGreaterThan(again.order + CAP - 1);
  });

  it('evicts no connection at the cap, and only the excess above it', async () => {
    const userId = freshUserId();
    const admitted = [];
    for (let at = 0; at < CAP; at += 1) admitted.push((await admit(userId)).connectionId);
    expect(await core.redis.exists(core.keys.user(userId).evicted)).toBe(0);
    admitted.push((await admit(userId)).connectionId);
    expect((await leased(userId)).toSorted()).toEqual(admitted.slice(1).toSorted());
  });

  it('replaces an earlier connection with the same stream, and no other', async () => {
    const userId = freshUserId();
    const plain = await admit(userId);
    const first = await admit(userId, { stream: 'run_1' });
    const second = await admit(userId, { stream: 'run_1' });
    expect((await leased(userId)).toSorted()).toEqual([plain.connectionId, second.connectionId].toSorted());
    const { evicted, connections } = core.keys.user(userId);
    expect(await core.redis.zrange(evicted, 0, '-1')).toEqual([first.connectionId]);
    expect(await core.redis.hexists(connections, first.connectionId)).toBe(0);
    const other = await admit(userId, { stream: 'run_2' });
    const all = [plain, second, other].map(({ connectionId }) => connectionId);
    expect((await leased(userId)).toSorted()).toEqual(all.toSorted());
  });

  it('replaces the connection of its stream among many others', async () => {
    const userId = freshUserId();
    const wide = new ConnectionRegistry(core, { leaseMs: LEASE_MS, maxConnectionsPerUser: 100 });
    const streams = Array.from({ length: 12 }, (_, at) => `run_${at}`);
    const open = async (stream: string) => (await admit(userId, { stream }, wide)).connectionId;
    for (const stream of streams) await open(stream);
    const again: string[] = [];
    for (const stream of streams) again.push(await open(stream));
    expect((await leased(userId)).toSorted()).toEqual(again.toSorted());
  });
});

describe('the nodes of a user', () => {
  it('receive on the channel of the user which connections are evicted and closed', async () => {
    const userId = freshUserId();
    const { channel, account } = core.keys.user(userId);
    const messages = await messagesOn(channel);
    const ids: string[] = [];
    const open = async (stream?: string) => {
      ids.push((await admit(userId, stream === undefined ? {} : { stream })).connectionId);
    };
    for (let at = 0; at < CAP; at += 1) await open();
    await open('run_1');
    await open('run_1');
    await registry.close(userId, [String(ids[1])]);
    await core.redis.hset(account, 'plan', 'free');
    await open();
    await core.redis.zadd(core.keys.user(userId).leases, Date.now() + LEASE_MS, 'ws_old');
    await registry.enforceCap(userId);
    await until(() => messages.length === 4);
    expect(messages.map((message) => JSON.parse(message.slice(1)))).toEqual([
      { control: 'evict', connection_ids: [ids[0]] },
      { control: 'evict', connection_ids: [ids[3]] },
      { control: 'close', connection_ids: [ids[1]] },
      { control: 'evict', connection_ids: ['ws_old'] },
    ]);
  });
});

describe('the token of a connection', () => {
  it('is registered with the admission, and its session ends with the release', async () => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    const [session, member] = [randomUUID(), `member_${randomUUID()}`];
    const ends = Date.now() + 60_000;
    const args = [ends, ends - 15_000, 5_000, session, 'sealed refresh token', 'digest'];
    const token = { session, member, sealed: 'sealed token', args };
    const { connectionId } = await admit(userId, { token });
    const stored = await core.redis.hgetall(keys.tokenSession(session));
    const refresh = { refresh_token: 'sealed refresh token', refresh_digest: 'digest' };
    expect(stored).toMatchObject({ token: 'sealed token', expires_at: String(ends), refreshes: '0', ...refresh });
    expect(await core.redis.zscore(keys.tokenDue, member)).toBe(String(ends - 15_000));
    expect(await core.redis.smembers(keys.tokenConnections(session))).toEqual([connectionId]);
    expect(await core.redis.pexpiretime(keys.tokenSession(session))).toBe(ends + 5_000);
    await registry.release(userId, [connectionId], token);
    expect(await core.redis.exists(keys.tokenConnections(session))).toBe(0);
    expect(await core.redis.zscore(keys.tokenDue, member)).toBeNull();
  });
});

describe('a release', () => {
  it('removes lease, details, and the notes of an eviction or a close, of these connections only', async () => {
    const userId = freshUserId();
    const { connections, evicted } = core.keys.user(userId);
    const [a, b, c] = [await admit(userId), await admit(userId), await admit(userId)];
    const notes = [a.connectionId, `closed:${a.connectionId}`, c.connectionId];
    await core.redis.zadd(evicted, ...notes.flatMap((note) => [Date.now() + KEPT_MS, note]));
    await registry.release(userId, [a.connectionId, b.connectionId]);
    expect(await leased(userId)).toEqual([c.connectionId]);
    expect((await core.redis.hkeys(connections)).toSorted()).toEqual(['#', c.connectionId]);
    expect(await core.redis.zrange(evicted, 0, '-1')).toEqual([c.connectionId]);
  });
});

describe('a renewal', () => {
  it('extends the lease and the keys, and says what became of each other connection', async () => {
    const userId = freshUserId();
    const { leases, connections, evicted, logState } = core.keys.user(userId);
    const { connectionId, epoch } = await admit(userId);
    await core.redis.hset(logState, 'seq', 41);
    await core.redis.zadd(leases, Date.now() + 100_000, connectionId);
    await core.redis.zadd(evicted, Date.now() + KEPT_MS, 'ws_evicted', Date.now() + KEPT_MS, 'closed:ws_closed');
    for (const key of [leases, connections]) await core.redis.pexpire(key, 1_000);
    const now = Date.now();
    const ids = [connectionId, 'ws_evicted', 'ws_closed', 'ws_unknown'];
    const states = ['renewed', 'evicted', 'closed', 'missing'];
    const expected = new Map(ids.map((id, at) => [id, states[at]]));
    expect(await registry.renew(new Map([[userId, ids]]))).toEqual([{ userId, epoch, seq: 41, leases: expected }]);
    expectAbout(await core.redis.zscore(leases, connectionId), now + LEASE_MS);
    await expectKept(leases);
    await expectKept(connections);
    expect(await leased(userId)).toEqual([connectionId]);
  });

  it('of a user without an event log reports the start of none', async () => {
    const userId = freshUserId();
    const renewed = await registry.renew(new Map([[userId, ['ws_unknown']]]));
    expect(renewed).toEqual([{ userId, epoch: '', seq: 0, leases: new Map([['ws_unknown', 'missing']]) }]);
  });
});

describe('a close by an administrator', () => {
  it('ends the named live connections, and notes them for nodes that miss the message', async () => {
    const userId = freshUserId();
    const { leases, connections, evicted } = core.keys.user(userId);
    const [a, b, c] = [await admit(userId), await admit(userId), await admit(userId)];
    await core.redis.zadd(leases, Date.now() - 1, c.connectionId);
    const now = Date.now();
    expect(await registry.close(userId, [a.connectionId, c.connectionId, 'ws_unknown'])).toEqual([a.connectionId]);
    expect((await leased(userId)).toSorted()).toEqual([b.connectionId, c.connectionId].toSorted());
    expect(await core.redis.hexists(connections, a.connectionId)).toBe(0);
    expect(await core.redis.zrange(evicted, 0, '-1')).toEqual([`closed:${a.connectionId}`]);
    expectAbout(await core.redis.zscore(evicted, `closed:${a.connectionId}`), now + KEPT_MS);
    await expectKept(evicted);
  });

  it('without names ends all live connections, and nothing for a user who has none', async () => {
    const userId = freshUserId();
    const ids = [(await admit(userId)).connectionId, (await admit(userId)).connectionId];
    expect((await registry.close(userId)).toSorted()).toEqual(ids.toSorted());
    expect(await registry.close(userId)).toEqual([]);
  });
});

describe('the cap of a stored plan', () => {
  it('evicts nothing while no plan is stored', async () => {
    const userId = freshUserId();
    const { leases, connections } = core.keys.user(userId);
    const ids = Array.from({ length: CAP + 2 }, (_, at) => `ws_${at}`);
    for (const id of ids) await core.redis.zadd(leases, Date.now() + LEASE_MS, id);
    for (const [at, id] of ids.entries()) await core.redis.hset(connections, id, `${at} {"node":"${NODE}"}`);
    await registry.enforceCap(userId);
    expect(await leased(userId)).toHaveLength(CAP + 2);
    await core.redis.hset(core.keys.user(userId).account, 'plan', 'free');
    await registry.enforceCap(userId);
    expect((await leased(userId)).toSorted()).toEqual(ids.slice(2));
  });

  it('evicts the connection of a node that Redis does not reach before older ones', async () => {
    const userId = freshUserId();
    const { leases, connections, account } = core.keys.user(userId);
    const ids = Array.from({ length: CAP + 1 }, (_, at) => `ws_${at}`);
    for (const [at, id] of ids.entries()) {
      const node = at === CAP ? 'node_unreachable' : NODE;
      await core.redis.zadd(leases, Date.now() + LEASE_MS, id);
      await core.redis.hset(connections, id, `${at} {"node":"${node}"}`);
    }
    await core.redis.hset(account, 'plan', 'free');
    await registry.enforceCap(userId);
    expect((await leased(userId)).toSorted()).toEqual(ids.slice(0, CAP));
  });
});
