import type { Introspection, Revoked } from '../auth/introspection.ts';
import type { Clock } from '../lib/clock.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import type { Account, Accounts } from '../policy/accounts.ts';
import type { Announced, AnnouncementListener } from '../policy/announcement-reader.ts';
import type { Announcement } from '../policy/announcements.ts';
import type { Catalogues } from '../policy/catalogues.ts';
import type { KnownRevocations } from '../policy/known-revocations.ts';
import type { Revocations } from '../policy/revocations.ts';
import type { LiveSession, LiveSessions } from './live-sessions.ts';
import type { Registry } from './registry.ts';

/** Accounts asked for in one round trip. */
const ACCOUNT_BATCH = 200;
const FORGET_MS = 60_000;

export interface EnforcementDeps {
  readonly liveSessions: LiveSessions;
  readonly known: KnownRevocations;
  /** What it remembers of tokens is out of date with their revocation. */
  readonly introspection: Pick<Introspection, 'invalidate' | 'forget'>;
  readonly revocations: Pick<Revocations, 'all'>;
  readonly accounts: Pick<Accounts, 'read'>;
  readonly registry: Pick<Registry, 'enforceCap'>;
  readonly catalogues: Pick<Catalogues, 'plans' | 'reload'>;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
}

/** Carries out on this node's sessions what operators and the auth service have decided. */
export class Enforcement implements AnnouncementListener {
  readonly #deps: EnforcementDeps;
  readonly #stop: () => void;

  constructor(deps: EnforcementDeps) {
    this.#deps = deps;
    this.#stop = deps.clock.every(FORGET_MS, () => deps.known.forgetEnded());
  }

  stop(): void {
    this.#stop();
  }

  /** Revocations take effect before anything is waited for. @throws TollgateError OVERLOADED while Redis is away */
  take(page: readonly Announced[]): Promise<void> {
    const links = page.map(({ announcement }) => announcement.traceparent);
    const attributes = { 'messaging.batch.message_count': page.length };
    // Nobody asks this node for it: seen where one of the decisions is seen, as theirs.
    if (links.every((link) => link === undefined)) return this.#take(page);
    return this.#deps.tracing.root('process announcements', { kind: 'consumer', links, attributes }, () =>
      this.#take(page),
    );
  }

  async #take(page: readonly Announced[]): Promise<void> {
    const { known, introspection, liveSessions, clock, metrics } = this.#deps;
    const users = new Set<string>();
    if (page.some(({ announcement }) => announcement.kind === 'catalogues')) this.#deps.catalogues.reload();
    for (const { announcement } of page) {
      if (announcement.kind === 'catalogues') continue;
      introspection.invalidate(namedBy(announcement));
      if (announcement.kind === 'account') users.add(announcement.userId);
      else {
        known.add(announcement.subject, announcement.untilMs);
        for (const session of liveSessions.named(announcement.subject)) session.revoke();
      }
    }
    await this.#applyAccounts([...users]);
    for (const { announcement, atMs } of page) {
      metrics.announcements.inc({ kind: announcement.kind });
      // Two clocks: below zero only says that they differ.
      metrics.announcementLagSeconds.observe(Math.max(0, clock.now() - atMs) / 1000);
    }
  }

  /** Everything that is stored, against everything that this node holds. @throws as `take` */
  async reload(): Promise<void> {
    const { known, introspection, revocations, liveSessions, catalogues } = this.#deps;
    catalogues.reload();
    introspection.forget();
    for await (const [subject, untilMs] of revocations.all()) {
      known.add(subject, untilMs);
      for (const session of liveSessions.named(subject)) session.revoke();
    }
    await this.#applyAccounts(liveSessions.users());
  }

  async #applyAccounts(userIds: readonly string[]): Promise<void> {
    const held = userIds.filter((userId) => this.#deps.liveSessions.ofUser(userId).length > 0);
    for (let from = 0; from < held.length; from += ACCOUNT_BATCH) {
      const batch = held.slice(from, from + ACCOUNT_BATCH);
      await Promise.all(batch.map((userId) => this.#applyAccount(userId)));
    }
  }

  async #applyAccount(userId: string): Promise<void> {
    const { accounts, liveSessions, registry } = this.#deps;
    const account = await accounts.read(userId);
    // The cap first: a failure leaves the sessions as they are, so that the next try finds the change again.
    if (liveSessions.ofUser(userId).some((session) => this.#planChanges(session, account))) {
      await registry.enforceCap(userId);
    }
    for (const session of liveSessions.ofUser(userId)) session.applyAccount(account);
  }

  #planChanges({ identity }: LiveSession, { plan }: Account): boolean {
    return plan !== undefined && this.#deps.catalogues.plans.effective(plan).name !== identity.plan;
  }
}

function namedBy(announcement: Exclude<Announcement, { kind: 'catalogues' }>): Revoked {
  if (announcement.kind === 'account') return { userId: announcement.userId };
  const id = announcement.subject.slice(announcement.subject.indexOf(':') + 1);
  return announcement.subject.startsWith('sid:') ? { sessionId: id } : { tokenId: id };
}
