import type { KeyObject } from 'node:crypto';
import { type Clock, elapsedSince } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import { discoverKeys } from './providers/discovery.ts';
import { fetchJson } from './providers/fetch-json.ts';
import type { KeyAlgorithm, KeySource } from './providers/identity-provider.ts';
import { type PublishedKey, readKeySet } from './providers/jwks.ts';
import { refusedClaim } from './token-fault.ts';

/** Age after which the set is fetched again in the background, while requests use the cached keys. */
const FRESH_MS = 10 * 60_000;
/** Minimum interval between two fetches, so that invented `kid` values cause no load. */
const COOL_DOWN_MS = 10_000;
/** For this long after its first appearance, an unknown `kid` may belong to a key that is not published yet. */
const ROTATION_MS = 60_000;
/** Unknown `kid` values that are remembered. A rotation has one or two; further ones are invented. */
const MAX_ROTATING = 16;
/** Keys that are tried for one token. */
const MAX_CANDIDATES = 8;
/** Minimum interval between log lines about failed fetches. */
const LOG_EVERY_MS = 60_000;

export interface KeySetDeps {
  readonly clock: Clock;
  readonly logger: Pick<Logger, 'error' | 'info' | 'warn'>;
  readonly metrics: Pick<Metrics, 'identityKeys' | 'identityKeyFetches'>;
}

/** Counts the keys that were given to a token, to detect that a later fetch changed them. */
export interface KeyCandidates {
  readonly keys: readonly KeyObject[];
  /** Changes with each fetched set. */
  readonly version: number;
}

/**
 * Public keys of an issuer (RFC 7517). The set is fetched and cached as a whole, so the `kid` of one token cannot
 * affect the keys of others. If a fetch fails, the last fetched keys remain in use.
 */
export class KeySet {
  readonly #deps: KeySetDeps;
  readonly #name: string;
  readonly #source: KeySource;
  #keys: readonly PublishedKey[] | undefined;
  #version = 0;
  /** Discovered URL; discovered again after a failed fetch. */
  #discovered: string | undefined;
  #fetchedAt = Number.NEGATIVE_INFINITY;
  /** A failed prefetch does not delay the fetch for a token, so each has a cool-down of its own. */
  readonly #triedAt = { prefetch: Number.NEGATIVE_INFINITY, token: Number.NEGATIVE_INFINITY };
  #loggedAt = Number.NEGATIVE_INFINITY;
  #lastFailure: unknown;
  #fetching: Promise<void> | undefined;
  /** Unknown `kid` → time of its first appearance. */
  readonly #rotating = new Map<string, number>();

  /** @param options name of the provider, for logs and metrics */
  constructor(deps: KeySetDeps, options: { readonly name: string; readonly source: KeySource }) {
    this.#deps = deps;
    this.#name = options.name;
    this.#source = options.source;
    deps.metrics.identityKeys.set({ provider: this.#name }, 0);
  }

  /** Whether a key has been fetched. */
  get hasKeys(): boolean {
    return (this.#keys?.length ?? 0) > 0;
  }

  /** Fetches the set if it has never been fetched, subject to the cool-down. Never rejects. */
  async prefetch(): Promise<void> {
    if (!this.hasKeys) await this.#fetch('prefetch');
  }

  /**
   * Returns the keys that may have signed a token: those with its `kid` and algorithm. RFC 7515 section 4.1.4: `kid` is
   * optional. A token without one may be signed with any key of the algorithm, and a token with one with a key that has
   * none.
   * @throws TollgateError VALIDATION_FAILED for a key that the issuer does not publish; AUTH_SERVICE_UNAVAILABLE if the
   *   key set cannot be fetched, or while the issuer may be about to publish the key
   */
  async get(kid: string | undefined, algorithm: KeyAlgorithm): Promise<KeyCandidates> {
    const cached = this.#candidates(kid, algorithm);
    if (cached.keys.length > 0) {
      if (elapsedSince(this.#deps.clock, this.#fetchedAt) >= FRESH_MS) void this.#fetch('token');
      return cached;
    }
    await this.#fetch('token');
    const fetched = this.#candidates(kid, algorithm);
    if (fetched.keys.length > 0) return fetched;
    const retryAfterMs = Math.max(COOL_DOWN_MS - elapsedSince(this.#deps.clock, this.#triedAt.token), 1_000);
    if (!this.hasKeys || this.#lastFailure !== undefined || (kid !== undefined && this.#mayRotate(kid))) {
      throw new TollgateError('AUTH_SERVICE_UNAVAILABLE', { cause: this.#unavailable(), retryAfterMs });
    }
    throw refusedClaim('header kid', 'the issuer publishes no such key');
  }

  /**
   * Fetches the set after the signature of a token did not match its keys: an issuer can publish a new key under an old
   * `kid`. Returns undefined if the set has not changed.
   */
  async renewed(kid: string | undefined, algorithm: KeyAlgorithm, version: number): Promise<KeyCandidates | undefined> {
    if (this.#version === version) await this.#fetch('token');
    return this.#version === version ? undefined : this.#candidates(kid, algorithm);
  }

  #candidates(kid: string | undefined, algorithm: KeyAlgorithm): KeyCandidates {
    const usable = (this.#keys ?? []).filter(({ algorithms }) => algorithms.includes(algorithm));
    const named = kid === undefined ? usable : usable.filter((key) => key.kid === kid);
    const chosen = named.length > 0 ? named : usable.filter((key) => key.kid === undefined);
    return { keys: chosen.slice(0, MAX_CANDIDATES).map(({ key }) => key), version: this.#version };
  }

  /** Whether an unknown key may be published soon. Invented values above the bound are not remembered. */
  #mayRotate(kid: string): boolean {
    const { clock } = this.#deps;
    // The issuer publishes this key, for other algorithms.
    if (this.#keys?.some((key) => key.kid === kid)) return false;
    for (const [known, since] of this.#rotating) {
      if (known !== kid && elapsedSince(clock, since) >= 2 * ROTATION_MS) this.#rotating.delete(known);
    }
    const since = this.#rotating.get(kid);
    if (since !== undefined) return elapsedSince(clock, since) < ROTATION_MS;
    if (this.#rotating.size >= MAX_ROTATING || kid.length > 256) return false;
    this.#rotating.set(kid, clock.now());
    return true;
  }

  #unavailable(): Error {
    if (this.#lastFailure !== undefined)
      return new Error('the key set cannot be fetched', { cause: this.#lastFailure });
    return new Error(this.hasKeys ? 'the key may have been rotated just now' : 'the key set has no usable key');
  }

  /** Never rejects. During the cool-down it only waits for a fetch in flight. */
  async #fetch(purpose: 'prefetch' | 'token'): Promise<void> {
    const { clock } = this.#deps;
    const joined = this.#fetching;
    if (joined !== undefined) {
      await joined;
      if (this.#lastFailure === undefined) return;
      // Another caller that waited for the same failed fetch may have started the next one.
      if (this.#fetching !== undefined) return this.#fetching;
    }
    if (elapsedSince(clock, this.#triedAt[purpose]) < COOL_DOWN_MS) return;
    this.#triedAt[purpose] = clock.now();
    this.#fetching = this.#read().finally(() => {
      this.#fetching = undefined;
    });
    await this.#fetching;
  }

  async #read(): Promise<void> {
    const { clock, logger, metrics } = this.#deps;
    try {
      const { keys, ignored } = readKeySet(await fetchJson(await this.#url(), clock));
      if (keys.length === 0) throw new Error('the key set has no usable key');
      if (this.#lastFailure !== undefined || !this.#keys || ignored > 0) {
        logger.info({ provider: this.#name, keys: keys.length, ignored }, 'keys of the identity provider fetched');
      }
      this.#keys = keys;
      this.#version += 1;
      this.#fetchedAt = clock.now();
      this.#lastFailure = undefined;
      metrics.identityKeys.set({ provider: this.#name }, keys.length);
      metrics.identityKeyFetches.inc({ provider: this.#name, result: 'ok' });
    } catch (error) {
      this.#lastFailure = error;
      this.#discovered = undefined;
      metrics.identityKeyFetches.inc({ provider: this.#name, result: 'failed' });
      if (elapsedSince(clock, this.#loggedAt) < LOG_EVERY_MS) return;
      this.#loggedAt = clock.now();
      const text = this.hasKeys
        ? 'the keys of the identity provider cannot be fetched, the known ones remain in use'
        : 'the keys of the identity provider cannot be fetched, its tokens are not accepted';
      logger.error({ provider: this.#name, err: error }, text);
    }
  }

  async #url(): Promise<string> {
    if ('url' in this.#source) return this.#source.url;
    this.#discovered ??= await discoverKeys(this.#source.discover, this.#deps.clock);
    return this.#discovered;
  }
}
