import { z } from 'zod';
import { type Clock, remainingUntil } from '../../lib/clock.ts';
import type { Logger } from '../../lib/logger.ts';
import { metadataUrls } from '../providers/discovery.ts';
import { unusable, usable } from './fault.ts';
import type { HttpAnswer } from './http.ts';

const FRESH_MS = 3_600_000;
/** Interval between attempts to renew cached metadata. */
const RENEW_AGAIN_MS = 60_000;

/**
 * Requests a document and reads it; errors that `read` throws count for the breaker.
 * @throws Fault, BreakerOpenError
 */
export type Fetch = (url: URL, read: (answer: HttpAnswer) => Endpoints | undefined) => Promise<Endpoints | undefined>;

/** The fields of RFC 8414 section 2 that are used. */
const Document = z.object({
  issuer: z.string(),
  token_endpoint: z.string(),
  introspection_endpoint: z.string().optional(),
  grant_types_supported: z.array(z.string()).optional(),
});

export interface Endpoints {
  readonly token: URL;
  /** Undefined if the service has no introspection endpoint. */
  readonly introspection: URL | undefined;
  /** Supported grant types; undefined if the metadata does not list them. */
  readonly grants: readonly string[] | undefined;
}

export interface MetadataOptions {
  /** Base URL of the service, which may be an internal address. */
  readonly url: string;
  /** Expected `issuer` of the metadata and of tokens. */
  readonly issuer: string;
  /**
   * Whether endpoints at any host are accepted over HTTPS: Google's token endpoint is not at the host of its issuer.
   */
  readonly anyHost?: boolean;
}

/**
 * Endpoints of an OAuth 2.0 server (RFC 8414), fetched on first use and renewed hourly in the background. The cached
 * endpoints remain in use while the service is unavailable.
 */
export class Metadata {
  readonly #deps: { clock: Clock; logger: Logger; fetch: Fetch };
  readonly #options: MetadataOptions;
  #cached: Endpoints | undefined;
  #renewAt = 0;
  #fetching: Promise<Endpoints> | undefined;

  constructor(deps: { clock: Clock; logger: Logger; fetch: Fetch }, options: MetadataOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** @throws as `fetch`, if no earlier fetch has succeeded */
  async endpoints(): Promise<Endpoints> {
    const { clock, logger } = this.#deps;
    if (!this.#cached) return this.#fetch();
    if (remainingUntil(clock, this.#renewAt, FRESH_MS) === 0) {
      this.#renewAt = clock.now() + RENEW_AGAIN_MS;
      this.#fetch().catch((error) => logger.warn({ err: error }, 'renewal of the auth service metadata failed'));
    }
    return this.#cached;
  }

  /** Concurrent callers share one request. */
  #fetch(): Promise<Endpoints> {
    this.#fetching ??= this.#request().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  async #request(): Promise<Endpoints> {
    this.#cached = await this.#discover();
    this.#renewAt = this.#deps.clock.now() + FRESH_MS;
    return this.#cached;
  }

  /** RFC 8414 first, because it is the document of OAuth servers; providers with OpenID Connect may have no other. */
  async #discover(): Promise<Endpoints> {
    const [openId, oauth] = metadataUrls(this.#options.url);
    const ofOAuth = await this.#deps.fetch(oauth, (answer) => (isMissing(answer) ? undefined : this.#read(answer)));
    if (ofOAuth) return ofOAuth;
    const found = await this.#deps.fetch(openId, (answer) => this.#read(answer));
    if (!found) throw unusable('no metadata');
    return found;
  }

  /** @throws Fault INVALID_RESPONSE_FORMAT */
  #read({ status, ok, json }: HttpAnswer): Endpoints {
    if (!ok) throw unusable(`status ${status} for the metadata`);
    const document = usable(Document, json);
    // RFC 8414 section 3.3: metadata of another server must not be used. Its endpoints would receive the client's
    // secret.
    if (document.issuer !== this.#options.issuer) throw unusable('the metadata is of another issuer than JWT_ISSUER');
    const introspection = document.introspection_endpoint;
    return {
      token: this.#endpoint(document.token_endpoint),
      introspection: introspection === undefined ? undefined : this.#endpoint(introspection),
      grants: document.grant_types_supported,
    };
  }

  /** Accepts only endpoints that may receive the client's secret: at `url`, or at the origin of `issuer` over HTTPS. */
  #endpoint(value: string): URL {
    const url = URL.parse(value);
    const { url: serviceUrl, issuer, anyHost = false } = this.#options;
    const issuerOrigin = URL.parse(issuer)?.origin;
    const ours = url?.origin === new URL(serviceUrl).origin;
    const issuers = url?.protocol === 'https:' && (anyHost || url.origin === issuerOrigin);
    if (url && (ours || issuers) && url.username === '' && url.password === '') return url;
    throw unusable('the metadata names an endpoint that is neither at AUTH_SERVICE_URL nor, by https, at JWT_ISSUER');
  }
}

/** Whether the service has no document at this path. */
function isMissing({ status }: HttpAnswer): boolean {
  return status === 404 || status === 400 || status === 403 || status === 405 || status === 410;
}
