import type { Account } from '../accounts/accounts.ts';
import type { Subject } from '../accounts/invalidations.ts';
import { subjectsOf } from '../accounts/revocations.ts';
import type { Identity } from '../protocol/identity.ts';

/** A session as those see it who carry out what operators decide. */
export interface LiveAttachment {
  readonly identity: Identity;
  revoke(): void;
  applyAccount(account: Account): void;
}

/** What operators name: a user, or something that can be revoked by itself. */
type SubjectName = Subject | `user:${string}`;

/**
 * The sessions of this node by what an operator may name, those included that are about to be admitted: a decision finds
 * the ones it is about without looking at the others.
 *
 * A session adds itself and then asks whether it is revoked; a revocation is made known and then looks for sessions.
 * Neither waits in between, so that whichever comes second sees the first.
 */
export class LiveAttachments {
  readonly #revoked: { has(identity: Identity): boolean };
  readonly #byName = new Map<SubjectName, Set<LiveAttachment>>();

  constructor({ revoked }: { readonly revoked: { has(identity: Identity): boolean } }) {
    this.#revoked = revoked;
  }

  isRevoked(identity: Identity): boolean {
    return this.#revoked.has(identity);
  }

  /** False when its token or session is revoked. */
  add(attachment: LiveAttachment): boolean {
    for (const name of namesOf(attachment)) {
      const attachments = this.#byName.get(name);
      if (attachments) attachments.add(attachment);
      else this.#byName.set(name, new Set([attachment]));
    }
    return !this.isRevoked(attachment.identity);
  }

  /** By the identity that it was added with. */
  remove(attachment: LiveAttachment): void {
    for (const name of namesOf(attachment)) {
      const attachments = this.#byName.get(name);
      attachments?.delete(attachment);
      if (attachments?.size === 0) this.#byName.delete(name);
    }
  }

  /** A copy: what is done to them removes them. */
  named(subject: Subject): LiveAttachment[] {
    return [...(this.#byName.get(subject) ?? [])];
  }

  ofUser(userId: string): LiveAttachment[] {
    return [...(this.#byName.get(`user:${userId}`) ?? [])];
  }

  /** The users that this node holds. */
  users(): string[] {
    return [...this.#byName.keys()]
      .filter((name) => name.startsWith('user:'))
      .map((name) => name.slice('user:'.length));
  }
}

function namesOf({ identity }: LiveAttachment): SubjectName[] {
  return [`user:${identity.userId}`, ...subjectsOf(identity)];
}
