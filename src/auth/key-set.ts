import { createPublicKey, type KeyObject } from 'node:crypto';
import { type JSONWebKey, JwksClient } from 'jwks-rsa';
import { request } from 'undici';
import { type Clock, elapsedSince } from '../lib/clock.ts';
import { withDeadline } from '../lib/with-deadline.ts';
import { TollgateError } from '../protocol/errors.ts';

/** After this the set is fetched again, beside the requests that go on with the keys there are. */
const FRESH_MS = 10 * 60_000;
/**
 * Between two fetches, whoever asks: a made-up `kid` costs its sender a refusal, and nobody else anything. It is also the
 * time a rotated key may be unknown for, where an issuer signs with it before it publishes it.
 */
const COOL_DOWN_MS = 10_000;
/** Of a fetch, to the last byte. */
const TIMEOUT_MS = 2_000;
/** A key has some 500 bytes, with a chain of certificates ten times as many. */
const MAX_DOCUMENT_CHARS = 256 * 1024;

/**
 * The public keys of an issuer (RFC 7517), fetched as a set and kept as one: what one token names decides nothing about
 * the keys of the others. While they cannot be fetched the last ones that could serve on.
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
      // Its own go by single keys.
      cache: false,
      rateLimit: false,
      // Its own never settles when an answer breaks off.
      fetcher: () => this.#download(options.url),
    });
  }

  /**
   * @throws TollgateError VALIDATION_FAILED for a key that the issuer does not publish, AUTH_SERVICE_UNAVAILABLE while that
   *   cannot be known
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

  /** Never rejects; does nothing within the cool-down, except to wait for a fetch that is under way. */
  async #fetch(): Promise<void> {
    if (this.#fetching) return this.#fetching;
    if (elapsedSince(this.#clock, this.#triedAt) < COOL_DOWN_MS) return;
    this.#triedAt = this.#clock.now();
    this.#fetching = this.#read().finally(() => {
      this.#fetching = undefined;
    });
    await this.#fetching;
  }

  /** @throws Error for whatever is no document, or not one in time */
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
