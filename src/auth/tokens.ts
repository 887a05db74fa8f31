import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import jwt from 'jsonwebtoken';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../lib/clock.ts';
import { hasJoseHeader, isCanonical, type JsonObject, jsonObject, withoutNulls } from '../lib/jws.ts';
import type { Logger } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { AuthMethod, Identity } from '../protocol/identity.ts';
import { bearerFault, headerFault, type TokenTypes, tokenTypes, userFault } from './access-token-rules.ts';
import { derivedTokenId, type IgnoredClaim, presented, readClaims, seconds } from './claims.ts';
import { type KeyCandidates, KeySet, type KeySetDeps } from './key-set.ts';
import { claimAt } from './providers/claim-mapping.ts';
import type { IdentityProvider, KeyAlgorithm } from './providers/identity-provider.ts';
import { type OperatorClient, readOperator, readService, type ServiceIdentity } from './services.ts';
import { refusedClaim } from './token-fault.ts';

export type { ServiceIdentity };

/** A token with valid signature, issuer, audience and times. */
interface VerifiedToken {
  readonly source: Source;
  readonly header: JsonObject;
  readonly claims: JsonObject;
}

/** A provider with what verification needs of it. */
interface Source {
  readonly provider: IdentityProvider;
  /** Key objects, because jsonwebtoken first tries a string as a public key, at fifty times the cost. */
  readonly secrets: readonly KeyObject[];
  readonly keySet: KeySet | undefined;
  readonly types: TokenTypes;
}

export interface TokenVerifierDeps extends KeySetDeps {
  readonly clock: Clock;
  readonly logger: Pick<Logger, 'error' | 'info' | 'warn'>;
}

/** Interval between attempts to fetch the keys of a provider that has none. */
const PREFETCH_MS = 10_000;

/**
 * Verifies tokens of several issuers: encoding, header, signature, issuer, audience, times and kind; then reads the
 * claims as the provider maps them. An HS256 token is verified without network access.
 */
export class TokenVerifier {
  readonly #clock: Clock;
  readonly #logger: TokenVerifierDeps['logger'];
  readonly #sources: readonly Source[];
  readonly #headers = new TokenHeaders();

  constructor(deps: TokenVerifierDeps, providers: readonly IdentityProvider[]) {
    this.#clock = deps.clock;
    this.#logger = deps.logger;
    this.#sources = providers.map((provider) => ({
      provider,
      secrets: provider.secrets.map((secret) => createSecretKey(Buffer.from(secret))),
      keySet: provider.keys && new KeySet(deps, { name: provider.name, source: provider.keys }),
      types: tokenTypes(provider.acceptedTypes),
    }));
  }

  /** Fetches the keys of all providers in the background until each has some. @returns a function that stops it */
  start(): () => void {
    const prefetch = () => {
      for (const { keySet } of this.#sources) void keySet?.prefetch();
    };
    prefetch();
    return this.#clock.every(PREFETCH_MS, prefetch);
  }

  /** The providers whose keys have not been fetched yet. */
  get withoutKeys(): readonly string[] {
    return this.#sources.filter((source) => !isAble(source)).map(({ provider }) => provider.name);
  }

  /** Whether the tokens of at least one provider can be verified. */
  get ready(): boolean {
    return this.#sources.length === 0 || this.#sources.some(isAble);
  }

  /**
   * @throws TollgateError TOKEN_EXPIRED, VALIDATION_FAILED with a TokenFault as cause; AUTH_SERVICE_UNAVAILABLE if keys
   *   cannot be fetched
   */
  async verifyAccess(token: string, method: AuthMethod): Promise<Identity> {
    const { source, header, claims } = await this.#verify(token);
    const { provider } = source;
    refuseFor(bearerFault(claims, header, provider) ?? userFault(claims, provider));
    const { identity, ignored } = readClaims(provider, claims, () => derivedTokenId(token));
    if (ignored.length > 0) this.#report(provider, ignored);
    return presented(identity, method);
  }

  /**
   * @param client also accepts the tokens of its operators
   * @throws TollgateError as `verifyAccess`
   */
  async verifyService(token: string, client?: OperatorClient): Promise<ServiceIdentity> {
    const { source, header, claims } = await this.#verify(token);
    refuseFor(bearerFault(claims, header, source.provider));
    const derivedId = derivedTokenId(token);
    const operator = client && readOperator(source.provider, claims, { client, derivedId });
    return operator ?? readService(source.provider, claims, derivedId);
  }

  /**
   * Verifies a token with which the issuer reports an event: signature, issuer, type and times. Its audience is that of
   * access tokens or a client, because a provider addresses the relying party.
   * @throws TollgateError as `verifyAccess`
   */
  async verifyEvent(
    token: string,
    type: 'logout+jwt' | 'secevent+jwt',
  ): Promise<{ readonly provider: IdentityProvider; readonly claims: JsonObject }> {
    const header = this.#headers.of(token);
    const source = this.#sourceOf(token);
    const { provider } = source;
    refuseFor(headerFault(header, tokenTypes([type, 'JWT', 'none'])));
    await this.#checkSignature(token, header, source);
    const claims = claimsOf(token);
    const clients = [...(provider.userClients ?? []), ...(provider.client ? [provider.client.id] : [])];
    const audiences = provider.audiences && [...provider.audiences, ...clients];
    this.#checkClaims(claims, { ...provider, audiences, audienceClaims: ['aud'] });
    return { provider, claims };
  }

  #report({ name }: IdentityProvider, ignored: readonly IgnoredClaim[]): void {
    const claims = Object.fromEntries(ignored.map(({ claim, ignored: count }) => [claim, count]));
    this.#logger.info({ provider: name, ignored: claims }, 'values of claims ignored');
  }

  async #verify(token: string): Promise<VerifiedToken> {
    const header = this.#headers.of(token);
    const source = this.#sourceOf(token);
    refuseFor(headerFault(header, source.types));
    await this.#checkSignature(token, header, source);
    const claims = claimsOf(token);
    this.#checkClaims(claims, source.provider);
    return { source, header, claims };
  }

  /** Returns the provider that the unverified `iss` names; the only one if there is one. */
  #sourceOf(token: string): Source {
    const [only, ...others] = this.#sources;
    const issuer = only && others.length === 0 ? only.provider.issuer : claimsOf(token).iss;
    const source = this.#sources.find(({ provider }) => provider.issuer === issuer);
    if (!source) throw refusedClaim('iss', 'no identity provider has this issuer');
    return source;
  }

  async #checkSignature(token: string, header: JsonObject, { secrets, keySet, provider }: Source): Promise<void> {
    const { alg } = header;
    if (alg === 'HS256' && secrets.length > 0) return verifyMac(token, secrets);
    const algorithm = provider.algorithms.find((name) => name === alg);
    if (algorithm === undefined || !keySet) throw refusedClaim('header alg', 'an algorithm that is not configured');
    const kid = kidOf(header);
    const candidates = await keySet.get(kid, algorithm);
    try {
      verifyWithAny(token, candidates.keys, algorithm);
    } catch (error) {
      const renewed = await renewedKeys(keySet, { kid, algorithm, candidates });
      if (!renewed) throw error;
      verifyWithAny(token, renewed.keys, algorithm);
    }
  }

  /** The order is that of jsonwebtoken: an expired token of another audience is an expired one. */
  #checkClaims(claims: JsonObject, provider: IdentityProvider): void {
    const now = Math.floor(this.#clock.now() / 1000);
    const { clockSkewSeconds: skew } = provider;
    if ((seconds(claims, 'nbf') ?? 0) > now + skew) throw refusedClaim('nbf', 'not valid yet');
    const { exp, iss } = claims;
    if (typeof exp === 'number' && exp + skew <= now) throw new TollgateError('TOKEN_EXPIRED');
    checkAudience(claims, provider);
    if (iss !== provider.issuer) throw refusedClaim('iss', 'another issuer');
    if ((seconds(claims, 'iat') ?? 0) > now + skew) throw refusedClaim('iat', 'issued in the future');
  }
}

/**
 * Whether the gateway can verify a bearer token itself: it has three parts, and the first is a JOSE header. Any other
 * token can be read only by its issuer.
 */
export function isJwt(token: string): boolean {
  return token.split('.').length === 3 && hasJoseHeader(token);
}

/** @throws TollgateError VALIDATION_FAILED if no audience claim names an accepted audience */
export function checkAudience(claims: JsonObject, { audiences, audienceClaims }: IdentityProvider): void {
  if (audiences === undefined) return;
  const isNamed = audienceClaims.some((claim) => {
    const value = claimAt(claims, claim);
    const named: readonly unknown[] = Array.isArray(value) ? value : [value];
    return named.some((one) => typeof one === 'string' && audiences.includes(one));
  });
  if (!isNamed) throw refusedClaim(audienceClaims.join(' or '), 'names none of the accepted audiences');
}

function isAble({ secrets, keySet }: Source): boolean {
  return secrets.length > 0 || keySet?.hasKeys === true;
}

/** @param fault result of a rule in `access-token-rules.ts` */
function refuseFor(fault: { readonly claim: string; readonly reason: string } | undefined): void {
  if (fault !== undefined) throw refusedClaim(fault.claim, fault.reason);
}

/** Headers that are remembered, the latest ones, because senders choose them. The tokens of an issuer have one per key. */
const KNOWN_HEADERS = 32;
/** Characters of a remembered header; that of an access token has some 50 to 150. */
const KNOWN_HEADER_LENGTH = 512;

/** Reads the headers of tokens. The same few headers occur in all tokens of an issuer, so each is decoded once. */
class TokenHeaders {
  readonly #known = new LRUCache<string, JsonObject>({ max: KNOWN_HEADERS });

  /** Returns the header of a canonically encoded token. @throws TollgateError VALIDATION_FAILED */
  of(token: string): JsonObject {
    if (!isCanonical(token)) throw refusedClaim('encoding', 'not canonical base64url');
    const part = token.slice(0, token.indexOf('.'));
    const known = this.#known.get(part);
    if (known) return known;
    const header = jsonObject(part);
    if (header === undefined) throw refusedClaim('header', 'not a JSON object with unique names');
    if (part.length <= KNOWN_HEADER_LENGTH) this.#known.set(part, header);
    return header;
  }
}

/** Returns the claims of a token without those that are null. @throws TollgateError VALIDATION_FAILED */
function claimsOf(token: string): JsonObject {
  const claims = jsonObject(token.slice(token.indexOf('.') + 1, token.lastIndexOf('.')));
  if (claims === undefined) throw refusedClaim('payload', 'not a JSON object with unique names');
  return withoutNulls(claims);
}

function kidOf({ kid }: JsonObject): string | undefined {
  if (kid === undefined || kid === null) return undefined;
  if (typeof kid !== 'string') throw refusedClaim('header kid', 'not a string');
  return kid;
}

/**
 * Verifies an HS256 signature (RFC 7515 section 5.2, RFC 7518 section 3.2). jsonwebtoken would decode and check header
 * and payload again, at twice the cost of the signature.
 * @param token its header names HS256, and its encoding is canonical
 */
function verifyMac(token: string, secrets: readonly KeyObject[]): void {
  const [header, payload, signature, ...rest] = token.split('.');
  const presentedMac = Buffer.from(signature ?? '', 'base64url');
  const isValid = secrets.some((secret) => {
    const mac = createHmac('sha256', secret).update(`${header}.${payload}`).digest();
    return mac.length === presentedMac.length && timingSafeEqual(mac, presentedMac);
  });
  if (!isValid || rest.length > 0) throw refusedClaim('signature', 'does not match a key of the issuer');
}

function verifyWithAny(token: string, keys: readonly KeyObject[], algorithm: jwt.Algorithm): void {
  let failure: unknown;
  for (const key of keys) {
    try {
      jwt.verify(token, key, { algorithms: [algorithm], ignoreExpiration: true, ignoreNotBefore: true });
      return;
    } catch (error) {
      failure = error;
    }
  }
  throw refusedClaim('signature', 'does not match a key of the issuer', failure);
}

function renewedKeys(
  keySet: KeySet,
  { kid, algorithm, candidates }: { kid: string | undefined; algorithm: KeyAlgorithm; candidates: KeyCandidates },
): Promise<KeyCandidates | undefined> {
  return keySet.renewed(kid, algorithm, candidates.version);
}
