import type { Account } from '../accounts/accounts.ts';
import type { Subject } from '../accounts/invalidations.ts';
import { subjectsOf } from '../accounts/revocations.ts';
import type { Identity } from '../protocol/identity.ts';

/** The part of an attachment that invalidations act on. */
export interface LiveAttachment {
  readonly identity: Identity;
  revoke(): void;
  applyAccount(account: Account): void;
}

/** Name under which an invalidation finds attachments: a user, a token or a login session. */
type SubjectName = Subject | `user:${string}`;

/**
 * Index of the attachments of this node by user, token and login session, including attachments with an admission in
 * flight. An invalidation finds its attachments without a scan.
 *
 * `add` inserts the attachment and then checks for a revocation; the invalidation handler adds the revocation to the
 * cache and then looks for attachments. Neither awaits in between, so the second of the two always sees the first.
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

  /** Returns false when the token or the login session is revoked. */
  add(attachment: LiveAttachment): boolean {
    for (const name of namesOf(attachment)) {
      const attachments = this.#byName.get(name);
      if (attachments) attachments.add(attachment);
      else this.#byName.set(name, new Set([attachment]));
    }
    return !this.isRevoked(attachment.identity);
  }

  /** The identity must be the one with which the attachment was added. */
  remove(attachment: LiveAttachment): void {
    for (const name of namesOf(attachment)) {
      const attachments = this.#byName.get(name);
      attachments?.delete(attachment);
      if (attachments?.size === 0) this.#byName.delete(name);
    }
  }

  /** Returns a copy, because a revocation removes attachments from the index. */
  named(subject: Subject): LiveAttachment[] {
    return [...(this.#byName.get(subject) ?? [])];
  }

  ofUser(userId: string): LiveAttachment[] {
    return [...(this.#byName.get(`user:${userId}`) ?? [])];
  }

  /** The users that this node serves. */
  users(): string[] {
    return [...this.#byName.keys()]
      .filter((name) => name.startsWith('user:'))
      .map((name) => name.slice('user:'.length));
  }
}

function namesOf({ identity }: LiveAttachment): SubjectName[] {
  return [`user:${identity.userId}`, ...subjectsOf(identity)];
}
