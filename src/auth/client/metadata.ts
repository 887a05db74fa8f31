import { z } from 'zod';
import { type Clock, remainingUntil } from '../../lib/clock.ts';
import type { Logger } from '../../lib/logger.ts';
import { withoutTrailing } from '../../lib/text.ts';
import { unusable, usable } from './fault.ts';
import type { HttpAnswer } from './http.ts';

const FRESH_MS = 3_600_000;
/** Between attempts to renew what is known already. */
const RENEW_AGAIN_MS = 60_000;

/** Asks for a document and reads it; what `read` throws counts against the service. @throws Fault, BreakerOpenError */
export type Fetch = (url: URL, read: (answer: HttpAnswer) => Endpoints) => Promise<Endpoints>;

/** Of RFC 8414 section 2, what is used here. */
const Document = z.object({
  issuer: z.string(),
  token_endpoint: z.string(),
  introspection_endpoint: z.string().optional(),
});

export interface Endpoints {
  readonly token: URL;
  /** Undefined where the service offers none. */
  readonly introspection: URL | undefined;
}

export interface MetadataOptions {
  /** Where the service is reached, which may be inside the network. */
  readonly url: string;
  /** Who it says to be; also the issuer of tokens. */
  readonly issuer: string;
}

/**
 * The endpoints of an OAuth 2.0 server (RFC 8414), asked for when first needed and once an hour from then on. Nobody waits
 * for the renewal, and while the service is away the endpoints known last go on being used.
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

  /** @throws as `fetch`, when they have never been known */
  async endpoints(): Promise<Endpoints> {
    const { clock, logger } = this.#deps;
    if (!this.#cached) return this.#fetch();
    if (remainingUntil(clock, this.#renewAt, FRESH_MS) === 0) {
      this.#renewAt = clock.now() + RENEW_AGAIN_MS;
      this.#fetch().catch((error) => logger.warn({ err: error }, 'metadata of the auth service not renewed'));
    }
    return this.#cached;
  }

  /** Any number of callers, one request. */
  #fetch(): Promise<Endpoints> {
    this.#fetching ??= this.#request().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  async #request(): Promise<Endpoints> {
    this.#cached = await this.#deps.fetch(metadataUrl(this.#options.url), (answer) => this.#read(answer));
    this.#renewAt = this.#deps.clock.now() + FRESH_MS;
    return this.#cached;
  }

  /** @throws Fault INVALID_RESPONSE_FORMAT */
  #read({ status, ok, json }: HttpAnswer): Endpoints {
    if (!ok) throw unusable(`status ${status} for the metadata`);
    const document = usable(Document, json);
    // RFC 8414 section 3.3. The document of another server must not be used: its endpoints would get our secret.
    if (document.issuer !== this.#options.issuer) throw unusable('the metadata is of another issuer than JWT_ISSUER');
    const introspection = document.introspection_endpoint;
    return {
      token: this.#endpoint(document.token_endpoint),
      introspection: introspection === undefined ? undefined : this.#endpoint(introspection),
    };
  }

  /** Where the secret of this client may be sent: where the service is reached, or where its issuer is, encrypted. */
  #endpoint(value: string): URL {
    const url = URL.parse(value);
    const { url: serviceUrl, issuer } = this.#options;
    const issuerOrigin = URL.parse(issuer)?.origin;
    const ours = url?.origin === new URL(serviceUrl).origin;
    const issuers = url?.protocol === 'https:' && url.origin === issuerOrigin;
    if (url && (ours || issuers) && url.username === '' && url.password === '') return url;
    throw unusable('the metadata names an endpoint that is neither at AUTH_SERVICE_URL nor, by https, at JWT_ISSUER');
  }
}

/** RFC 8414 section 3.1: between the host and the path, not behind it. */
function metadataUrl(serviceUrl: string): URL {
  const url = new URL(serviceUrl);
  const path = withoutTrailing(url.pathname, '/');
  return new URL(`/.well-known/oauth-authorization-server${path}`, url.origin);
}
