import { createPublicKey, type KeyObject } from 'node:crypto';
import { type JSONWebKey, JwksClient } from 'jwks-rsa';
import { request } from 'undici';
import { type Clock, elapsedSince } from '../lib/clock.ts';
import { withDeadline } from '../lib/with-deadline.ts';
import { TollgateError } from '../protocol/errors.ts';

/** Age after which the set is fetched again in the background, while requests use the cached keys. */
const FRESH_MS = 10 * 60_000;
/**
 * Minimum interval between two fetches, so that invented `kid` values cause no load. If an issuer signs with a
 * rotated key before it publishes the key, the key may be unknown for this long.
 */
const COOL_DOWN_MS = 10_000;
/** Timeout of a fetch, to the last byte. */
const TIMEOUT_MS = 2_000;
/** A key has about 500 bytes, and ten times as many with a certificate chain. */
const MAX_DOCUMENT_CHARS = 256 * 1024;

/**
 * Public keys of an issuer (RFC 7517). The set is fetched and cached as a whole, so the `kid` of one token cannot
 * affect the keys of others. If a fetch fails, the last fetched keys remain in use.
 */
export class KeySet {
  readonly #client: JwksClient;
  readonly #clock: Clock;
  #keys: ReadonlyMap<string, KeyObject> | undefined;
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #triedAt = Number.NEGATIVE_INFINITY;
  #lastFailure: unknown;
  #fetching: Promise<void> | undefined;

  constructor({ clock }: { clock: Clock }, options: { readonly url: string }) {
    this.#clock = clock;
    this.#client = new JwksClient({
      jwksUri: options.url,
      // The built-in cache and rate limit work per key.
      cache: false,
      rateLimit: false,
      // The built-in fetcher never settles if a response ends prematurely.
      fetcher: () => this.#download(options.url),
    });
  }

  /**
   * @throws TollgateError VALIDATION_FAILED for a key that the issuer does not publish; AUTH_SERVICE_UNAVAILABLE if the
   *   key set cannot be fetched
   */
  async get(kid: string): Promise<KeyObject> {
    const cached = this.#keys?.get(kid);
    if (cached) {
      if (elapsedSince(this.#clock, this.#fetchedAt) >= FRESH_MS) void this.#fetch();
      return cached;
    }
    await this.#fetch();
    const key = this.#keys?.get(kid);
    if (key) return key;
    if (this.#lastFailure !== undefined || !this.#keys) {
      throw new TollgateError('AUTH_SERVICE_UNAVAILABLE', { cause: this.#lastFailure });
    }
    throw new TollgateError('VALIDATION_FAILED');
  }

  /** Never rejects. During the cool-down it only waits for a fetch in flight. */
  async #fetch(): Promise<void> {
    if (this.#fetching) return this.#fetching;
    if (elapsedSince(this.#clock, this.#triedAt) < COOL_DOWN_MS) return;
    this.#triedAt = this.#clock.now();
    this.#fetching = this.#read().finally(() => {
      this.#fetching = undefined;
    });
    await this.#fetching;
  }

  /** @throws Error for an invalid document, another status than 200, or a timeout */
  #download(url: string): Promise<{ keys: JSONWebKey[] }> {
    const timeoutError = () => new Error(`no key set within ${TIMEOUT_MS} ms`);
    const deadline = { clock: this.#clock, timeoutMs: TIMEOUT_MS, timeoutError, signal: undefined };
    return withDeadline(deadline, async (signal) => {
      const { statusCode, body } = await request(url, { signal, headers: { accept: 'application/json' } });
      let text = '';
      for await (const piece of body.setEncoding('utf8')) {
        text += piece;
        if (text.length > MAX_DOCUMENT_CHARS) throw new Error(`more than ${MAX_DOCUMENT_CHARS} characters`);
      }
      if (statusCode !== 200) throw new Error(`status ${statusCode} for the key set`);
      return JSON.parse(text);
    });
  }

  async #read(): Promise<void> {
    try {
      const keys = await this.#client.getSigningKeys();
      this.#keys = new Map(keys.map((key) => [key.kid, createPublicKey(key.getPublicKey())]));
      this.#fetchedAt = this.#clock.now();
      this.#lastFailure = undefined;
    } catch (error) {
      this.#lastFailure = error;
    }
  }
}
