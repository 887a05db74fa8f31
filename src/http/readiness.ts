import { request } from 'undici';
import { type Clock, elapsedSince } from '../lib/clock.ts';
import { withDeadline } from '../lib/with-deadline.ts';
import { isResponsive, type Redis } from '../redis/client.ts';

/**
 * Lifetime of a result. The routes are public, so a check must not cost a request to Redis and the auth service each
 * time.
 */
const CACHE_MS = 1_000;
const TIMEOUT_MS = 1_000;
/** Bound of the response of the auth service, which is discarded. */
const MAX_BODY_BYTES = 16 * 1024;

export interface ReadinessChecks {
  readonly redis: boolean;
  /** Whether the keys of at least one identity provider are known. */
  readonly identityKeys: boolean;
  /** Names of the identity providers whose keys have not been fetched yet. */
  readonly withoutKeys: readonly string[];
  readonly authService: boolean;
  readonly draining: boolean;
}

/** State of the keys with which this node verifies tokens. */
export interface TokenKeys {
  readonly ready: boolean;
  readonly withoutKeys: readonly string[];
}

type Probed = Pick<ReadinessChecks, 'redis' | 'authService'>;

/** Determines whether this node should receive new connections. */
export class Readiness {
  readonly #deps: { redis: Redis; subscriber: Redis; clock: Clock; tokens: TokenKeys };
  readonly #authServiceUrl: string;
  #drainingSince: number | undefined;
  #probed: { readonly at: number; readonly answers: Promise<Probed> } | undefined;

  constructor(
    deps: { redis: Redis; subscriber: Redis; clock: Clock; tokens: TokenKeys },
    options: { readonly authServiceUrl: string },
  ) {
    this.#deps = deps;
    this.#authServiceUrl = options.authServiceUrl;
  }

  get draining(): boolean {
    return this.#drainingSince !== undefined;
  }

  /** Milliseconds since the drain began; undefined unless this node is draining. */
  get drainingForMs(): number | undefined {
    return this.#drainingSince === undefined ? undefined : elapsedSince(this.#deps.clock, this.#drainingSince);
  }

  drain(): void {
    this.#drainingSince ??= this.#deps.clock.now();
  }

  async check(): Promise<ReadinessChecks> {
    const { clock } = this.#deps;
    if (!this.#probed || elapsedSince(clock, this.#probed.at) >= CACHE_MS) {
      this.#probed = { at: clock.now(), answers: this.#probe() };
    }
    const { ready: identityKeys, withoutKeys } = this.#deps.tokens;
    return { ...(await this.#probed.answers), identityKeys, withoutKeys, draining: this.draining };
  }

  async #probe(): Promise<Probed> {
    const { redis, subscriber } = this.#deps;
    const [commands, subscriptions, authService] = await Promise.all([
      isResponsive(redis, TIMEOUT_MS),
      isResponsive(subscriber, TIMEOUT_MS),
      this.#answersHttp(new URL('/auth/health', this.#authServiceUrl)),
    ]);
    return { redis: commands && subscriptions, authService };
  }

  /**
   * Whether the URL responds without a server error within `TIMEOUT_MS`, connecting included. An unreachable host would
   * otherwise delay the result beyond the timeout of a load balancer's probe, which would take this node out of
   * service.
   */
  async #answersHttp(url: URL): Promise<boolean> {
    const timeoutError = () => new Error(`no response within ${TIMEOUT_MS} ms`);
    const deadline = { clock: this.#deps.clock, timeoutMs: TIMEOUT_MS, timeoutError, signal: undefined };
    try {
      return await withDeadline(deadline, async (signal) => {
        const { statusCode, body } = await request(url, { signal });
        await body.dump({ limit: MAX_BODY_BYTES, signal });
        return statusCode < 500;
      });
    } catch {
      return false;
    }
  }
}
