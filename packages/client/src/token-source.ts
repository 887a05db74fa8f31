import type { Clock } from './clock.ts';

/** What a login returns. */
export interface Tokens {
  readonly token: string;
  /** A date, an ISO 8601 string, or milliseconds since the epoch. Default: as the gateway says. */
  readonly expiresAt?: Date | string | number | undefined;
  /**
   * Handed over to the gateway, which refreshes the access token from then on: the identity provider must be configured
   * for it (`refresh_token` mode), and the application must not use this refresh token itself.
   */
  readonly refreshToken?: string | undefined;
}

/**
 * Returns an access token, alone or with its refresh token, or null or undefined if the user has signed out.
 * @param context.previous the token that is no longer valid; undefined at the first call
 */
export type GetToken = (context: { readonly previous: string | undefined }) => Token | Promise<Token>;
type Token = string | Tokens | null | undefined;

/** A token is not used for a handshake in the last seconds of its life. */
const EXPIRY_MARGIN_MS = 5_000;

/** Caches the user's access token until it expires or is refused. Concurrent callers share one call of `getToken`. */
export class TokenSource {
  readonly #getToken: GetToken;
  readonly #clock: Clock;
  #token: string | undefined;
  #refreshToken: string | undefined;
  #previous: string | undefined;
  #expiresAt = Number.POSITIVE_INFINITY;
  /** Whether a handshake has succeeded with the cached token, or it came from the gateway. */
  #wasAccepted = false;
  #fetching: Promise<string | undefined> | undefined;

  constructor(getToken: GetToken, clock: Clock) {
    this.#getToken = getToken;
    this.#clock = clock;
  }

  /** The latest refresh token of the session; undefined if `getToken` returned none. */
  get refreshToken(): string | undefined {
    return this.#refreshToken;
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
  replace(token: string, expiresAt: unknown, refreshToken: unknown): void {
    this.#token = token;
    if (typeof refreshToken === 'string') this.#refreshToken = refreshToken;
    this.#expiresAt = Number.POSITIVE_INFINITY;
    this.accepted(expiresAt);
  }

  /** A handshake with the cached token has succeeded. */
  accepted(expiresAt: unknown): void {
    this.#wasAccepted = true;
    if (expiresAt !== undefined) this.#expiresAt = timeOf(expiresAt);
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
    const answer = await this.#getToken({ previous: this.#previous ?? this.#token });
    const { token, expiresAt, refreshToken } = typeof answer === 'string' ? { token: answer } : (answer ?? {});
    this.#token = token;
    this.#refreshToken = refreshToken;
    this.#expiresAt = timeOf(expiresAt);
    this.#wasAccepted = false;
    return token;
  }
}

/** An expiry that is missing or no time is none: the gateway refuses the token when it has expired. */
function timeOf(value: unknown): number {
  const time = value instanceof Date ? value.getTime() : typeof value === 'string' ? Date.parse(value) : value;
  return typeof time === 'number' && time > 0 ? time : Number.POSITIVE_INFINITY;
}
