import { Enforcement } from '../../src/connections/enforcement.ts';
import { LiveSessions } from '../../src/connections/live-sessions.ts';
import { Registry } from '../../src/connections/registry.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Accounts } from '../../src/policy/accounts.ts';
import { AnnouncementReader } from '../../src/policy/announcement-reader.ts';
import { KnownRevocations } from '../../src/policy/known-revocations.ts';
import type { Plans } from '../../src/policy/plans.ts';
import { Revocations } from '../../src/policy/revocations.ts';
import { type Core, silentLogger, startTail } from './core.ts';
import { closeAfter } from './open-resources.ts';

/** The parts of a node that a decision passes through, without sockets. */
export async function startDecisions(core: Core, plans: Plans) {
  const { redis, keys, metrics } = core;
  const { tail, subscriber } = await startTail(core);
  const registry = new Registry({ redis, keys, plans }, { leaseMs: 30_000, maxConnectionsPerUser: 2 });
  const known = new KnownRevocations({ clock: systemClock, logger: silentLogger });
  const liveSessions = new LiveSessions({ revoked: known });
  const [accounts, revocations] = [new Accounts(core), new Revocations(core)];
  // Nothing is introspected here, so that nothing is remembered either.
  const introspection = { invalidate: () => undefined, forget: () => undefined };
  const standing = {
    liveSessions,
    known,
    introspection,
    revocations,
    accounts,
    registry,
    catalogues: { plans, reload: () => ({ reloaded: true, version: '' }) as const },
  };
  const listener = new Enforcement({ ...standing, clock: systemClock, metrics, tracing: core.tracing });
  closeAfter('test', () => listener.stop());
  const reader = new AnnouncementReader({
    redis,
    subscriber,
    keys,
    clock: systemClock,
    logger: silentLogger,
    listener,
  });
  closeAfter('test', () => reader.stop());
  await reader.start();
  return { tail, registry, liveSessions, listener };
}
