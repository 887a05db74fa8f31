import type { Clock } from './clock.ts';

/**
 * Returns an access token, or null or undefined if the user has signed out.
 * @param context.previous the token that is no longer valid; undefined at the first call
 */
export type GetToken = (context: { readonly previous: string | undefined }) => Token | Promise<Token>;
type Token = string | null | undefined;

/** A token is not used for a handshake in the last seconds of its life. */
const EXPIRY_MARGIN_MS = 5_000;

/** Caches the user's access token until it expires or is refused. Concurrent callers share one call of `getToken`. */
export class TokenSource {
  readonly #getToken: GetToken;
  readonly #clock: Clock;
  #token: string | undefined;
  #previous: string | undefined;
  #expiresAt = Number.POSITIVE_INFINITY;
  /** Whether a handshake has succeeded with the cached token, or it came from the gateway. */
  #wasAccepted = false;
  #fetching: Promise<string | undefined> | undefined;

  constructor(getToken: GetToken, clock: Clock) {
    this.#getToken = getToken;
    this.#clock = clock;
  }

  /** Returns undefined if the user has signed out. */
  async current(): Promise<string | undefined> {
    if (this.#token !== undefined && this.#clock.now() < this.#expiresAt - EXPIRY_MARGIN_MS) return this.#token;
    return this.fresh();
  }

  fresh(): Promise<string | undefined> {
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  /** The gateway has refreshed the token of the session. */
  replace(token: string, expiresAt: unknown): void {
    this.#token = token;
    this.accepted(expiresAt);
  }

  /** A handshake with the cached token has succeeded. */
  accepted(expiresAt: unknown): void {
    this.#wasAccepted = true;
    this.#expiresAt =
      typeof expiresAt === 'string' ? Date.parse(expiresAt) || Number.POSITIVE_INFINITY : Number.POSITIVE_INFINITY;
  }

  /** Forgets a refused token. @returns whether a fresh one may be accepted, since this one had been before */
  invalidate(): boolean {
    const mayHelp = this.#wasAccepted;
    this.#previous = this.#token;
    this.#token = undefined;
    this.#wasAccepted = false;
    return mayHelp;
  }

  async #fetch(): Promise<string | undefined> {
    const token = (await this.#getToken({ previous: this.#previous ?? this.#token })) ?? undefined;
    this.#token = token;
    this.#expiresAt = Number.POSITIVE_INFINITY;
    this.#wasAccepted = false;
    return token;
  }
}
