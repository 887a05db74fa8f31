import { Seal } from '../../lib/seal.ts';

/** An access token as it may be stored and sent through Redis: only a process that has `SERVICE_SECRET` can read it. */
export type SealedToken = string;

/** Seals access tokens for the way from a gateway through Redis to the worker that refreshes them, and back. */
export class TokenSeal {
  readonly #seal: Seal;

  /** @param secret `SERVICE_SECRET`: what the processes of one installation share */
  constructor(secret: string) {
    this.#seal = new Seal(secret, 'tollgate access token at rest');
  }

  seal(token: string): SealedToken {
    return this.#seal.seal(token);
  }

  /** Undefined for what was sealed with another secret, or is damaged. */
  open(sealed: SealedToken): string | undefined {
    return this.#seal.open(sealed);
  }
}
