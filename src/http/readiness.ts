import { request } from 'undici';
import { type Clock, passedSince } from '../lib/clock.ts';
import { answers, type Redis } from '../redis/client.ts';

/** Answers are good for this long: anybody may ask, and must not cost Redis and the auth service a request each time. */
const CACHE_MS = 1_000;
const TIMEOUT_MS = 1_000;

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
    if (!this.#probed || passedSince(clock, this.#probed.at) >= CACHE_MS) {
      this.#probed = { at: clock.now(), answers: this.#probe() };
    }
    return { ...(await this.#probed.answers), draining: this.#draining };
  }

  async #probe(): Promise<Omit<ReadinessChecks, 'draining'>> {
    const { redis, subscriber } = this.#deps;
    const [commands, subscriptions, authService] = await Promise.all([
      answers(redis, TIMEOUT_MS),
      answers(subscriber, TIMEOUT_MS),
      probe(new URL('/auth/health', this.#authServiceUrl)),
    ]);
    return { redis: commands && subscriptions, authService };
  }
}

async function probe(url: URL): Promise<boolean> {
  try {
    const { statusCode, body } = await request(url, { headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
    await body.dump();
    return statusCode < 500;
  } catch {
    return false;
  }
}
