import { request } from 'undici';
import { type Clock, elapsedSince } from '../lib/clock.ts';
import { withDeadline } from '../lib/with-deadline.ts';
import { isResponsive, type Redis } from '../redis/client.ts';

/** Answers are good for this long: anybody may ask, and must not cost Redis and the auth service a request each time. */
const CACHE_MS = 1_000;
const TIMEOUT_MS = 1_000;
/** Nobody reads what an auth service says of its health. */
const MAX_BODY_BYTES = 16 * 1024;

export interface ReadinessChecks {
  readonly redis: boolean;
  readonly authService: boolean;
  readonly draining: boolean;
}

/** Whether this node should get new connections. */
export class Readiness {
  readonly #deps: { redis: Redis; subscriber: Redis; clock: Clock };
  readonly #authServiceUrl: string;
  #draining = false;
  #probed: { readonly at: number; readonly answers: Promise<Omit<ReadinessChecks, 'draining'>> } | undefined;

  constructor(deps: { redis: Redis; subscriber: Redis; clock: Clock }, options: { readonly authServiceUrl: string }) {
    this.#deps = deps;
    this.#authServiceUrl = options.authServiceUrl;
  }

  get draining(): boolean {
    return this.#draining;
  }

  drain(): void {
    this.#draining = true;
  }

  async check(): Promise<ReadinessChecks> {
    const { clock } = this.#deps;
    if (!this.#probed || elapsedSince(clock, this.#probed.at) >= CACHE_MS) {
      this.#probed = { at: clock.now(), answers: this.#probe() };
    }
    return { ...(await this.#probed.answers), draining: this.#draining };
  }

  async #probe(): Promise<Omit<ReadinessChecks, 'draining'>> {
    const { redis, subscriber } = this.#deps;
    const [commands, subscriptions, authService] = await Promise.all([
      isResponsive(redis, TIMEOUT_MS),
      isResponsive(subscriber, TIMEOUT_MS),
      this.#answersHttp(new URL('/auth/health', this.#authServiceUrl)),
    ]);
    return { redis: commands && subscriptions, authService };
  }

  /**
   * All of it in time: a host that does not even refuse connections would hold the answer for longer than whoever probes this
   * node waits, and take it out of use.
   */
  async #answersHttp(url: URL): Promise<boolean> {
    const timeoutError = () => new Error(`no answer within ${TIMEOUT_MS} ms`);
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
