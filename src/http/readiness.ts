import { request } from 'undici';
import type { Clock } from '../lib/clock.ts';
import { answers, type Redis } from '../redis/client.ts';

/** An answer is good for this long: probes of many callers cost the auth service one request. */
const CACHE_MS = 2_000;
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
  #authService: { readonly at: number; readonly answer: Promise<boolean> } | undefined;

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
    const { redis, subscriber } = this.#deps;
    const [commands, subscriptions, authService] = await Promise.all([
      answers(redis, TIMEOUT_MS),
      answers(subscriber, TIMEOUT_MS),
      this.#authServiceAnswers(),
    ]);
    return { redis: commands && subscriptions, authService, draining: this.#draining };
  }

  #authServiceAnswers(): Promise<boolean> {
    const now = this.#deps.clock.now();
    if (!this.#authService || now - this.#authService.at > CACHE_MS) {
      this.#authService = { at: now, answer: probe(new URL('/auth/health', this.#authServiceUrl)) };
    }
    return this.#authService.answer;
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
