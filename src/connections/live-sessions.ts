import type { Account } from '../policy/accounts.ts';
import type { Subject } from '../policy/announcements.ts';
import { subjectsOf } from '../policy/revocations.ts';
import type { Identity } from '../protocol/identity.ts';

/** A session as those see it who carry out what operators decide. */
export interface LiveSession {
  readonly identity: Identity;
  revoke(): void;
  applyAccount(account: Account): void;
}

/** What operators name: a user, or something that can be revoked by itself. */
type Name = Subject | `user:${string}`;

/**
 * The sessions of this node by what an operator may name, those included that are about to be admitted: a decision finds
 * the ones it is about without looking at the others.
 *
 * A session adds itself and then asks whether it is revoked; a revocation is made known and then looks for sessions.
 * Neither waits in between, so that whichever comes second sees the first.
 */
export class LiveSessions {
  readonly #revoked: { has(identity: Identity): boolean };
  readonly #byName = new Map<Name, Set<LiveSession>>();

  constructor({ revoked }: { readonly revoked: { has(identity: Identity): boolean } }) {
    this.#revoked = revoked;
  }

  isRevoked(identity: Identity): boolean {
    return this.#revoked.has(identity);
  }

  /** False when its token or session is revoked. */
  add(session: LiveSession): boolean {
    for (const name of namesOf(session)) {
      const known = this.#byName.get(name);
      if (known) known.add(session);
      else this.#byName.set(name, new Set([session]));
    }
    return !this.isRevoked(session.identity);
  }

  /** By the identity that it was added with. */
  remove(session: LiveSession): void {
    for (const name of namesOf(session)) {
      const known = this.#byName.get(name);
      known?.delete(session);
      if (known?.size === 0) this.#byName.delete(name);
    }
  }

  /** A copy: what is done to them removes them. */
  named(subject: Subject): LiveSession[] {
    return [...(this.#byName.get(subject) ?? [])];
  }

  ofUser(userId: string): LiveSession[] {
    return [...(this.#byName.get(`user:${userId}`) ?? [])];
  }

  /** The users that this node holds. */
  users(): string[] {
    return [...this.#byName.keys()]
      .filter((name) => name.startsWith('user:'))
      .map((name) => name.slice('user:'.length));
  }
}

function namesOf({ identity }: LiveSession): Name[] {
  return [`user:${identity.userId}`, ...subjectsOf(identity)];
}
