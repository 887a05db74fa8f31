import { beforeAll, describe, expect, it } from '@jest/globals';
import { ConnectionRegistry } from '../../src/cluster/connection-registry.ts';
import { newId } from '../../src/lib/ids.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import { catalogues, planRow } from '../support/catalogues.ts';
import { type Core, startCore, startTail } from '../support/core.ts';
import { Leases } from '../support/leases.ts';
import { freshUserId } from '../support/tokens.ts';

const NODES = ['node_a', 'node_b', 'node_c'] as const;
const DEFAULT_CAP = 3;
const CAPS: Readonly<Record<string, number | undefined>> = { free: undefined, small: 2, large: 7 };

let core: Core;
let leases: Leases;
let registries: readonly { readonly node: string; readonly registry: ConnectionRegistry }[];

/** A plan per cap; the first one sets no cap. */
function plansWithCaps() {
  const rows = Object.entries(CAPS).map(([name, connections], rank) => [name, planRow({ rank, connections })]);
  return catalogues({ plans: Object.fromEntries(rows) as Record<string, object> }, 'file').plans;
}

beforeAll(async () => {
  core = await startCore();
  leases = new Leases(core.redis, core.keys);
  const plans = plansWithCaps();
  const { tail } = await startTail(core);
  registries = await Promise.all(
    NODES.map(async (node) => {
      await tail.attend(core.keys.nodeChannels(node));
      const options = { leaseMs: 30_000, maxConnectionsPerUser: DEFAULT_CAP };
      return { node, registry: new ConnectionRegistry({ redis: core.redis, keys: core.keys, plans }, options) };
    }),
  );
});

async function admit(userId: string, plan: string, at: number) {
  const { node, registry } = registries[at % registries.length] ?? {};
  if (!node || !registry) throw new Error('there is no node');
  const connectionId = newId('ws');
  const details = { node, endpoint: '/ws', opened_at: new Date().toISOString() };
  const { order } = await registry.admit({ userId, connectionId, plan, tokenIssuedAt: Date.now(), details });
  return { connectionId, order };
}

/** Opens twenty connections at once over all nodes. @returns their ids by admission order, the newest last */
async function admitTwenty(userId: string, plan: string): Promise<string[]> {
  const admitted = await Promise.all(Array.from({ length: 20 }, (_, at) => admit(userId, plan, at)));
  expect(new Set(admitted.map(({ order }) => order)).size).toBe(20);
  return admitted.toSorted((a, b) => a.order - b.order).map(({ connectionId }) => connectionId);
}

describe('connections that lost their place', () => {
  it('are remembered in a bounded number, the latest ones, however many come and go', async () => {
    const userId = freshUserId();
    const { evicted } = core.keys.user(userId);
    // Before the expiry of a new entry, which is two leases away.
    const soon = Date.now() + 40_000;
    const older = Array.from({ length: 2_100 }, (_, at) => [`${soon + at}`, `ws_${at}`]).flat();
    await core.redis.zadd(evicted, ...older);
    const [first] = await admitTwenty(userId, 'free');
    expect(await core.redis.zcard(evicted)).toBe(2_000);
    expect(await core.redis.zscore(evicted, first ?? '')).not.toBeNull();
    expect(await core.redis.zscore(evicted, 'ws_0')).toBeNull();
  });
});

describe('the cap of a plan', () => {
  it.each([
    ['is the installation’s, where the plan names none', 'free', DEFAULT_CAP],
    ['is the plan’s, where that is smaller', 'small', 2],
    ['is the plan’s, where that is greater', 'large', 7],
    ['is the installation’s for a plan that is not in the catalogue', 'renamed', DEFAULT_CAP],
  ])('B12 %s', async (_is, plan, cap) => {
    const userId = freshUserId();
    const newest = (await admitTwenty(userId, plan)).slice(-cap);
    expect((await leases.live(userId)).toSorted()).toEqual(newest.toSorted());
  });

  it('B12 follows the operator’s word, not the token’s, from the next connect on', async () => {
    const userId = freshUserId();
    await admitTwenty(userId, 'large');
    expect(await leases.live(userId)).toHaveLength(7);
    await core.redis.hset(core.keys.user(userId).account, 'plan', 'small');
    const { connectionId } = await admit(userId, 'large', 0);
    const live = await leases.live(userId);
    expect(live).toHaveLength(2);
    expect(live).toContain(connectionId);
  });
});

describe('a connection on a node that Redis has lost', () => {
  it('B12 goes before any on a node that lives, and the newest never goes', async () => {
    const userId = freshUserId();
    const { registry } = registries[0] ?? {};
    const oldest = await admit(userId, 'free', 0);
    const details = { node: 'node_lost', endpoint: '/ws', opened_at: new Date().toISOString() };
    const request = { userId, plan: 'free', tokenIssuedAt: Date.now(), details };
    const lost = [newId('ws'), newId('ws')];
    for (const connectionId of lost) await registry?.admit({ ...request, connectionId });
    const kept = [oldest.connectionId];
    for (const left of [1, 0]) {
      kept.push((await admit(userId, 'free', 1)).connectionId);
      const live = await leases.live(userId);
      expect(live.toSorted()).toEqual([...kept, ...lost.slice(2 - left)].toSorted());
    }
    const alone = newId('ws');
    await registry?.admit({ ...request, connectionId: alone });
    expect((await leases.live(userId)).toSorted()).toEqual([...kept.slice(1), alone].toSorted());
  });
});

describe('connections whose details are gone', () => {
  it('B12 B124 go before any that is known: the newest never does, and the cap holds', async () => {
    const userId = freshUserId();
    const { connections, account } = core.keys.user(userId);
    for (const at of [0, 1, 2]) await admit(userId, 'free', at);
    await core.redis.del(connections);
    const fourth = await admit(userId, 'free', 0);
    expect(await leases.live(userId)).toHaveLength(DEFAULT_CAP);
    expect(await leases.live(userId)).toContain(fourth.connectionId);
    await core.redis.del(connections);
    await core.redis.hset(account, 'plan', 'small');
    await registries[0]?.registry.enforceCap(userId);
    expect(await leases.live(userId)).toHaveLength(2);
  });
});

describe('the leases of a node', () => {
  it('are renewed for every user of a partition, also beside a user whose data is damaged', async () => {
    const inPartition = (userId: string) => partitionOf(userId) === 7;
    const users = Array.from({ length: 4_000 }, () => freshUserId())
      .filter(inPartition)
      .slice(0, 40);
    const opened = await Promise.all(
      users.map(async (userId) => [userId, (await admit(userId, 'free', 0)).connectionId]),
    );
    const [damaged = '', ...others] = users;
    await core.redis.del(core.keys.user(damaged).leases);
    await core.redis.set(core.keys.user(damaged).leases, 'not a sorted set');
    const ids = new Map(opened.map(([userId = '', id = '']) => [userId, [id, 'ws_unknown']]));
    const renewed = (await registries[0]?.registry.renew(ids)) ?? [];
    expect(renewed.map(({ userId }) => userId).toSorted()).toEqual(others.toSorted());
    for (const { userId, leases: states, epoch } of renewed) {
      expect([...states.values()]).toEqual(['renewed', 'missing']);
      expect(epoch).toBe(await core.redis.hget(core.keys.user(userId).logState, 'epoch'));
    }
  });
});
