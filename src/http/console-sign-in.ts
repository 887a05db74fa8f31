import { z } from 'zod';
import { metadataUrls } from '../auth/providers/discovery.ts';
import { fetchJson } from '../auth/providers/fetch-json.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { withoutTrailing } from '../lib/text.ts';

const CACHED_MS = 3_600_000;
/** A provider that is unavailable is tried again after this time. */
const RETRY_MS = 5_000;

const url = z.string().max(2_048).optional();
const Metadata = z.object({
  issuer: z.string(),
  authorization_endpoint: url,
  token_endpoint: url,
  revocation_endpoint: url,
  end_session_endpoint: url,
});

/** Endpoints of the issuer that the browser calls; null for those that it does not have, or while it is unavailable. */
export interface SignInEndpoints {
  readonly authorization: string | null;
  readonly token: string | null;
  readonly revocation: string | null;
  readonly end_session: string | null;
}

const NONE: SignInEndpoints = { authorization: null, token: null, revocation: null, end_session: null };

export interface SignInOptions {
  /** Issuer whose metadata is read. */
  readonly issuer: string;
  /** URL whose well-known paths have the metadata: that of the issuer, or the internal one of the auth service. */
  readonly metadataAt: string;
  /** Internal and public URL of the auth service: browsers reach its endpoints at the second one. */
  readonly internalUrl: string;
  readonly publicUrl: string;
}

/**
 * Reads the endpoints of the console's issuer from its metadata. One request at a time; the result is cached for an
 * hour.
 */
export class ConsoleSignIn {
  readonly #deps: { readonly clock: Clock; readonly logger: Pick<Logger, 'warn'> };
  readonly #options: SignInOptions;
  #reading: Promise<SignInEndpoints> | undefined;
  #endpoints = NONE;
  #validUntil = 0;

  constructor(deps: { readonly clock: Clock; readonly logger: Pick<Logger, 'warn'> }, options: SignInOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Never rejects. Takes up to four seconds while the issuer is unavailable. */
  endpoints(): Promise<SignInEndpoints> {
    if (this.#deps.clock.now() < this.#validUntil) return Promise.resolve(this.#endpoints);
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<SignInEndpoints> {
    const { clock, logger } = this.#deps;
    try {
      this.#endpoints = await this.#discover();
      this.#validUntil = clock.now() + CACHED_MS;
    } catch (error) {
      const reason = error instanceof Error ? error.message : 'unknown';
      logger.warn({ reason, issuer: this.#options.issuer }, 'metadata of the issuer of the console cannot be read');
      this.#validUntil = clock.now() + RETRY_MS;
    }
    return this.#endpoints;
  }

  async #discover(): Promise<SignInEndpoints> {
    const { issuer, metadataAt } = this.#options;
    let failure: unknown;
    for (const at of metadataUrls(metadataAt)) {
      try {
        const metadata = Metadata.parse(await fetchJson(at.href, this.#deps.clock));
        if (metadata.issuer !== issuer) throw new Error('the metadata is of another issuer');
        return {
          authorization: this.#public(metadata.authorization_endpoint),
          token: this.#public(metadata.token_endpoint),
          revocation: this.#public(metadata.revocation_endpoint),
          end_session: this.#public(metadata.end_session_endpoint),
        };
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  #public(endpoint: string | undefined): string | null {
    if (endpoint === undefined || !['http:', 'https:'].includes(URL.parse(endpoint)?.protocol ?? '')) return null;
    const { internalUrl, publicUrl } = this.#options;
    const internal = `${withoutTrailing(internalUrl, '/')}/`;
    return endpoint.startsWith(internal)
      ? `${withoutTrailing(publicUrl, '/')}/${endpoint.slice(internal.length)}`
      : endpoint;
  }
}
