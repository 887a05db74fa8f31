import { Seal } from '../../lib/seal.ts';

/** An access token encrypted for Redis. Only a process with `SERVICE_SECRET` can decrypt it. */
export type SealedToken = string;

/** Encrypts access tokens that gateways and workers exchange through Redis for token refreshes. */
export class TokenSeal {
  readonly #seal: Seal;

  /** @param secret `SERVICE_SECRET`, shared by all processes of a deployment */
  constructor(secret: string) {
    this.#seal = new Seal(secret, 'tollgate access token at rest');
  }

  seal(token: string): SealedToken {
    return this.#seal.seal(token);
  }

  /** Returns undefined if the token was sealed with another secret or is damaged. */
  open(sealed: SealedToken): string | undefined {
    return this.#seal.open(sealed);
  }
}
