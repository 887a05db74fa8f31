import { describe, expect, it } from '@jest/globals';
import type { ConnectionRegistry } from '../../src/cluster/connection-registry.ts';
import type { Connection } from '../../src/connections/connection.ts';
import { Hub } from '../../src/connections/hub.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';

const LEASE_MS = 30_000;
const INTERVAL_MS = LEASE_MS / 3;
const USERS = 500;

function connectionOf(userId: string): Connection {
  const attachment = { identity: { userId, plan: 'free' }, token: { state: 'active' }, leaseRenewed: () => undefined };
  const fields = { connectionId: `ws_${userId}`, endpoint: '/ws', disconnected: false, attachment };
  return { ...fields, tick: () => undefined } as unknown as Connection;
}

/** A hub, and the times at which it renewed each user, in milliseconds since its start. */
function startHub() {
  const clock = new ManualClock();
  const startedAt = clock.now();
  const renewals = new Map<string, number[]>();
  const rounds: number[] = [];
  const registry = {
    renew: async (users: ReadonlyMap<string, readonly string[]>) => {
      if (users.size > 0) rounds.push(users.size);
      for (const userId of users.keys()) {
        renewals.set(userId, [...(renewals.get(userId) ?? []), clock.now() - startedAt]);
      }
      return [];
    },
  } as unknown as ConnectionRegistry;
  const hub = new Hub({ registry, clock, metrics: new Metrics(), logger: silentLogger }, { leaseMs: LEASE_MS });
  const pass = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 50) {
      clock.advance(50);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { hub, renewals, rounds, pass };
}

describe('the leases of a node', () => {
  it('are renewed once per third of a lease each, spread over that time, however the users come', async () => {
    const { hub, renewals, rounds, pass } = startHub();
    const users = Array.from({ length: USERS }, (_, at) => `user-${at}`);
    for (const userId of users.slice(0, USERS / 2)) hub.update(connectionOf(userId));
    await pass(INTERVAL_MS / 2);
    for (const userId of users.slice(USERS / 2)) hub.update(connectionOf(userId));
    await pass(3.5 * INTERVAL_MS);
    for (const userId of users) {
      const times = renewals.get(userId) ?? [];
      expect(times.length).toBeGreaterThanOrEqual(3);
      for (let i = 1; i < times.length; i++) expect((times[i] ?? 0) - (times[i - 1] ?? 0)).toBe(INTERVAL_MS);
    }
    expect(Math.max(...rounds)).toBeLessThan(USERS / 10);
    hub.stop();
  });

  it('are not renewed for connections that have closed', async () => {
    const { hub, renewals, pass } = startHub();
    const connection = connectionOf('user');
    hub.update(connection);
    hub.update(Object.assign(connection, { disconnected: true }));
    await pass(INTERVAL_MS);
    expect(renewals.size).toBe(0);
    hub.stop();
  });
});
