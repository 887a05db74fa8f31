import type { Account } from '../accounts/accounts.ts';
import type { Subject } from '../accounts/invalidations.ts';
import { MultiMap } from '../lib/multi-map.ts';
import type { Identity } from '../protocol/identity.ts';

/** The part of an attachment that invalidations act on. */
export interface LiveAttachment {
  readonly identity: Identity;
  revoke(): void;
  applyAccount(account: Account): void;
}

/**
 * Index of the attachments of this node by user, token and login session, including attachments with an admission in
 * flight. An invalidation finds its attachments without a scan.
 *
 * `add` inserts the attachment and then checks for a revocation; the invalidation handler adds the revocation to the
 * cache and then looks for attachments. Neither awaits in between, so the second of the two always sees the first.
 */
export class LiveAttachments {
  readonly #revoked: { has(identity: Identity): boolean };
  readonly #byUser = new MultiMap<string, LiveAttachment>();
  readonly #byToken = new MultiMap<string, LiveAttachment>();
  readonly #bySession = new MultiMap<string, LiveAttachment>();

  constructor({ revoked }: { readonly revoked: { has(identity: Identity): boolean } }) {
    this.#revoked = revoked;
  }

  isRevoked(identity: Identity): boolean {
    return this.#revoked.has(identity);
  }

  /** Returns false when the token or the login session is revoked. */
  add(attachment: LiveAttachment): boolean {
    const { userId, tokenId, sessionId } = attachment.identity;
    this.#byUser.add(userId, attachment);
    this.#byToken.add(tokenId, attachment);
    if (sessionId !== undefined) this.#bySession.add(sessionId, attachment);
    return !this.isRevoked(attachment.identity);
  }

  /** The identity must be the one with which the attachment was added. */
  remove(attachment: LiveAttachment): void {
    const { userId, tokenId, sessionId } = attachment.identity;
    this.#byUser.delete(userId, attachment);
    this.#byToken.delete(tokenId, attachment);
    if (sessionId !== undefined) this.#bySession.delete(sessionId, attachment);
  }

  /** Returns a snapshot, because a revocation removes attachments from the index. */
  named(subject: Subject): readonly LiveAttachment[] {
    const id = subject.slice('sid:'.length);
    return subject.startsWith('sid:') ? this.#bySession.get(id) : this.#byToken.get(id);
  }

  ofUser(userId: string): readonly LiveAttachment[] {
    return this.#byUser.get(userId);
  }

  /** The users that this node serves. */
  users(): string[] {
    return [...this.#byUser.keys()];
  }
}
