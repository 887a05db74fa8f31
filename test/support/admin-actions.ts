import { Accounts } from '../../src/accounts/accounts.ts';
import { InvalidationReader } from '../../src/accounts/invalidation-reader.ts';
import { RevocationCache } from '../../src/accounts/revocation-cache.ts';
import { Revocations } from '../../src/accounts/revocations.ts';
import type { Plans } from '../../src/catalogue/plans.ts';
import { ConnectionRegistry } from '../../src/cluster/connection-registry.ts';
import { InvalidationHandler } from '../../src/connections/invalidation-handler.ts';
import { LiveAttachments } from '../../src/connections/live-attachments.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { type Core, silentLogger, startTail } from './core.ts';
import { closeAfter } from './open-resources.ts';

/** The components of a node that process an admin action, without sockets. */
export async function startAdminActions(core: Core, plans: Plans) {
  const { redis, keys, metrics } = core;
  const { tail, subscriber } = await startTail(core);
  const registry = new ConnectionRegistry({ redis, keys, plans }, { leaseMs: 30_000, maxConnectionsPerUser: 2 });
  const revocationCache = new RevocationCache({ clock: systemClock, logger: silentLogger });
  const liveAttachments = new LiveAttachments({ revoked: revocationCache });
  const [accounts, revocations] = [new Accounts(core), new Revocations(core)];
  // These tests introspect nothing, so there is nothing cached to invalidate.
  const introspection = { invalidate: () => undefined, forget: () => undefined };
  const accountStatus = {
    liveAttachments,
    revocationCache,
    introspection,
    revocations,
    accounts,
    registry,
    catalogues: { plans, reload: () => ({ reloaded: true, version: '' }) as const },
  };
  const listener = new InvalidationHandler({
    ...{ ...accountStatus, clock: systemClock, logger: silentLogger, metrics, tracing: core.tracing },
  });
  closeAfter('test', () => listener.stop());
  const reader = new InvalidationReader({
    redis,
    subscriber,
    keys,
    clock: systemClock,
    logger: silentLogger,
    listener,
  });
  closeAfter('test', () => reader.stop());
  await reader.start();
  return { tail, registry, liveAttachments, listener };
}
