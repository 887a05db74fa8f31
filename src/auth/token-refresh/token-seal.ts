import { createHash } from 'node:crypto';
import { Seal } from '../../lib/seal.ts';
import type { HandedOverToken } from '../../protocol/identity.ts';

/** An access token encrypted for Redis. Only a process with `SERVICE_SECRET` can decrypt it. */
export type SealedToken = string;

/**
 * Encrypts the tokens that gateways and workers exchange through Redis for token refreshes. Refresh tokens have a key
 * of their own and are bound to their login session: no access token and no token of another session can replace one.
 */
export class TokenSeal {
  readonly #seal: Seal;
  readonly #refreshSeal: Seal;

  /** @param secret `SERVICE_SECRET`, shared by all processes of a deployment */
  constructor(secret: string) {
    this.#seal = new Seal(secret, 'tollgate access token at rest');
    this.#refreshSeal = new Seal(secret, 'tollgate refresh token at rest');
  }

  seal(token: string): SealedToken {
    return this.#seal.seal(token);
  }

  /** Returns undefined if the token was sealed with another secret or is damaged. */
  open(sealed: SealedToken): string | undefined {
    return this.#seal.open(sealed);
  }

  /** @param session user and session, as `sessionMember` returns them */
  sealRefreshToken(token: string, session: string): HandedOverToken {
    const digest = createHash('sha256').update(token).digest('base64url');
    return { sealed: this.#refreshSeal.seal(token, session), digest };
  }

  /** Returns undefined as `open`, and for a token of another session. */
  openRefreshToken(sealed: string, session: string): string | undefined {
    return this.#refreshSeal.open(sealed, session);
  }
}
