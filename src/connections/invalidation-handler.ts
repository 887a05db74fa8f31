import type { Account, Accounts } from '../accounts/accounts.ts';
import type { InvalidationListener, TimedInvalidation } from '../accounts/invalidation-reader.ts';
import type { Invalidation } from '../accounts/invalidations.ts';
import type { RevocationCache } from '../accounts/revocation-cache.ts';
import type { Revocations } from '../accounts/revocations.ts';
import type { RevokedNames, TokenIntrospection } from '../auth/introspection.ts';
import type { Catalogues } from '../catalogue/catalogues.ts';
import type { ConnectionRegistry } from '../cluster/connection-registry.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import { RedisUnavailable } from '../redis/errors.ts';
import type { LiveAttachment, LiveAttachments } from './live-attachments.ts';

/** Accounts read in one round trip. */
const ACCOUNT_BATCH = 200;
const CLEANUP_MS = 60_000;

export interface InvalidationHandlerDeps {
  readonly liveAttachments: LiveAttachments;
  readonly revocationCache: RevocationCache;
  /** Its cached answers become stale when a token is revoked. */
  readonly introspection: Pick<TokenIntrospection, 'invalidate' | 'forget'>;
  readonly revocations: Pick<Revocations, 'all'>;
  readonly accounts: Pick<Accounts, 'read'>;
  readonly registry: Pick<ConnectionRegistry, 'enforceCap'>;
  readonly catalogues: Pick<Catalogues, 'plans' | 'reload'>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
}

/** Applies invalidations (accounts, revocations, catalogues) to the attachments and caches of this node. */
export class InvalidationHandler implements InvalidationListener {
  readonly #deps: InvalidationHandlerDeps;
  readonly #stop: () => void;

  constructor(deps: InvalidationHandlerDeps) {
    this.#deps = deps;
    this.#stop = deps.clock.every(CLEANUP_MS, () => deps.revocationCache.removeExpired());
  }

  stop(): void {
    this.#stop();
  }

  /** Applies revocations before the first `await`. @throws TollgateError OVERLOADED while Redis is unavailable */
  onInvalidations(page: readonly TimedInvalidation[]): Promise<void> {
    const links = page.map(({ invalidation }) => invalidation.traceparent);
    const attributes = { 'messaging.batch.message_count': page.length };
    // No request causes this work, so it has a trace only if it can link to the trace of an admin action.
    if (links.every((link) => link === undefined)) return this.#apply(page);
    return this.#deps.tracing.root('process announcements', { kind: 'consumer', links, attributes }, () =>
      this.#apply(page),
    );
  }

  async #apply(page: readonly TimedInvalidation[]): Promise<void> {
    const { revocationCache, introspection, liveAttachments, clock, metrics } = this.#deps;
    const users = new Set<string>();
    if (page.some(({ invalidation }) => invalidation.kind === 'catalogues')) this.#deps.catalogues.reload();
    for (const { invalidation } of page) {
      if (invalidation.kind === 'catalogues') continue;
      introspection.invalidate(namedBy(invalidation));
      if (invalidation.kind === 'account') users.add(invalidation.userId);
      else {
        revocationCache.add(invalidation.subject, invalidation.untilMs);
        for (const attachment of liveAttachments.named(invalidation.subject)) attachment.revoke();
      }
    }
    await this.#applyAccounts([...users]);
    for (const { invalidation, atMs } of page) {
      metrics.announcements.inc({ kind: invalidation.kind });
      // Difference between the clocks of Redis and this node: a negative value only means that they deviate.
      metrics.announcementLagSeconds.observe(Math.max(0, clock.now() - atMs) / 1000);
    }
  }

  /** Applies all stored state to all attachments of this node. @throws TollgateError as `onInvalidations` */
  async reload(): Promise<void> {
    const { revocationCache, introspection, revocations, liveAttachments, catalogues } = this.#deps;
    catalogues.reload();
    introspection.forget();
    for await (const [subject, untilMs] of revocations.all()) {
      revocationCache.add(subject, untilMs);
      for (const attachment of liveAttachments.named(subject)) attachment.revoke();
    }
    await this.#applyAccounts(liveAttachments.users());
  }

  async #applyAccounts(userIds: readonly string[]): Promise<void> {
    const served = userIds.filter((userId) => this.#deps.liveAttachments.ofUser(userId).length > 0);
    for (let from = 0; from < served.length; from += ACCOUNT_BATCH) {
      const batch = served.slice(from, from + ACCOUNT_BATCH);
      await Promise.all(batch.map((userId) => this.#applyAccount(userId)));
    }
  }

  /**
   * Damaged data of one user must not keep the node from the invalidations of others. The attachments of that user end,
   * because the user may be blocked.
   */
  async #applyAccount(userId: string): Promise<void> {
    const { liveAttachments, logger } = this.#deps;
    try {
      await this.#applyStored(userId);
    } catch (error) {
      if (error instanceof RedisUnavailable) throw error;
      logger.error(
        { user: userHash(userId), err: error },
        'the account cannot be read, the connections of the user end',
      );
      for (const attachment of liveAttachments.ofUser(userId)) attachment.revoke();
    }
  }

  async #applyStored(userId: string): Promise<void> {
    const { accounts, liveAttachments, registry } = this.#deps;
    const account = await accounts.read(userId);
    // The cap first: if it fails, the attachments keep their old plan, and the next attempt detects the change again.
    if (liveAttachments.ofUser(userId).some((attachment) => this.#planChanges(attachment, account))) {
      await registry.enforceCap(userId);
    }
    for (const attachment of liveAttachments.ofUser(userId)) attachment.applyAccount(account);
  }

  #planChanges({ identity }: LiveAttachment, { plan }: Account): boolean {
    return plan !== undefined && this.#deps.catalogues.plans.effective(plan).name !== identity.plan;
  }
}

function namedBy(invalidation: Exclude<Invalidation, { kind: 'catalogues' }>): RevokedNames {
  if (invalidation.kind === 'account') return { userId: invalidation.userId };
  const id = invalidation.subject.slice(invalidation.subject.indexOf(':') + 1);
  return invalidation.subject.startsWith('sid:') ? { sessionId: id } : { tokenId: id };
}
