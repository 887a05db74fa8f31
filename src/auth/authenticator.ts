import type { IncomingHttpHeaders } from 'node:http';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { hasJoseHeader, isCanonical } from '../lib/jws.ts';
import type { Logger } from '../lib/logger.ts';
import type { Tracing } from '../lib/tracing.ts';
import { type ErrorCode, TollgateError } from '../protocol/errors.ts';
import type { AuthMethod, Identity } from '../protocol/identity.ts';
import { UNNAMED_PLAN } from './claims.ts';
import {
  BEARER_FORM,
  type Credential,
  checkServiceNames,
  findCredential,
  findTicket,
  type InBandCredential,
  JWT_FORM,
  messageCredential,
  SERVICE_PREFIX,
  serviceCredential,
  type TokenCredential,
} from './credentials.ts';
import type { TokenIntrospection } from './introspection.ts';
import type { OperatorClient } from './services.ts';
import type { Tickets } from './tickets.ts';
import { refusedClaim, TokenFault } from './token-fault.ts';
import type { TokenSeal } from './token-refresh/token-seal.ts';
import { sessionMember, sessionOf } from './token-refresh/token-sessions.ts';
import { isJwt, type ServiceIdentity, type TokenVerifier } from './tokens.ts';

/** Lifetime of a development identity, about a working day. */
const BYPASS_SECONDS = 12 * 3_600;

/** Credentials of a handshake. */
export interface Handshake {
  readonly headers: IncomingHttpHeaders;
  /** Socket.IO's `auth.token`. */
  readonly handshakeToken?: unknown;
  /** Refresh token that the client hands over with its token. */
  readonly refreshToken?: string | undefined;
  /** All `ticket` parameters of the URL. */
  readonly tickets: readonly string[];
}

/** Reports whether this node has received a revocation of a token or its session. Costs no round trip. */
export interface RevokedCredentials {
  has(identity: Pick<Identity, 'tokenId' | 'sessionId'>): boolean;
}

interface AuthenticatorDeps {
  readonly tokens: TokenVerifier;
  readonly tickets: Tickets;
  readonly introspection: TokenIntrospection;
  readonly revoked: RevokedCredentials;
  readonly seal: TokenSeal;
  readonly clock: Clock;
  readonly tracing: Tracing;
  readonly logger: Pick<Logger, 'info'>;
}

/** Refusals of a presented token or ticket. An outage or a missing credential is none. */
const REFUSED: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'INVALID_FORMAT',
  'VALIDATION_FAILED',
  'TOKEN_EXPIRED',
  'TOKEN_REVOKED',
  'USER_MISMATCH',
  'CONFLICTING_CREDENTIALS',
]);

/** Authenticates clients and services: the only component that converts a credential to an identity. */
export class Authenticator {
  readonly #tokens: TokenVerifier;
  readonly #tickets: Tickets;
  readonly #introspection: TokenIntrospection;
  readonly #revoked: RevokedCredentials;
  readonly #clock: Clock;
  readonly #tracing: Tracing;
  readonly #logger: AuthenticatorDeps['logger'];
  readonly #seal: TokenSeal;
  readonly #developmentBypass: boolean;
  readonly #refreshTokenProviders: ReadonlySet<string>;
  readonly #operators: OperatorClient | undefined;
  /** Accepted syntax of a user's token. A token other than a JWT requires introspection. */
  readonly #form: RegExp;

  constructor(
    { tokens, tickets, introspection, revoked, seal, clock, tracing, logger }: AuthenticatorDeps,
    options: {
      readonly developmentBypass: boolean;
      /** Names of the providers whose refresh tokens are stored; others are ignored. */
      readonly refreshTokenProviders: ReadonlySet<string>;
      /** The client of the console, whose users can be operators; undefined for none. */
      readonly operators?: OperatorClient;
    },
  ) {
    this.#tokens = tokens;
    this.#tickets = tickets;
    this.#introspection = introspection;
    this.#revoked = revoked;
    this.#clock = clock;
    this.#tracing = tracing;
    this.#logger = logger;
    this.#seal = seal;
    this.#form = introspection.mode === 'never' ? JWT_FORM : BEARER_FORM;
    this.#developmentBypass = options.developmentBypass;
    this.#refreshTokenProviders = options.refreshTokenProviders;
    this.#operators = options.operators;
  }

  /**
   * Authenticates a handshake. A ticket costs one round trip to Redis and is consumed before any other check, so that
   * it cannot be presented again if a later check fails.
   * @returns undefined if the handshake has no credential
   * @throws TollgateError with a code of the authentication rows; OVERLOADED for a ticket while Redis is unavailable;
   *   the codes of an outage for a token that needs introspection while the auth service is unavailable
   */
  handshake(handshake: Handshake): Promise<Identity | undefined> {
    return this.#logged(() => this.#handshake(handshake));
  }

  async #handshake({ headers, handshakeToken, refreshToken, tickets }: Handshake): Promise<Identity | undefined> {
    const ticket = findTicket(tickets);
    const bought = ticket === undefined ? undefined : await this.#consume(ticket, headers.origin);
    const credential = findCredential(headers, handshakeToken, this.#form);
    if (!credential) {
      if (bought) return this.#handOver(bought, refreshToken);
      return this.#developmentBypass ? this.#developer() : undefined;
    }
    const identity = await this.#verify(credential);
    if (bought && !sameSession(bought, identity)) throw new TollgateError('CONFLICTING_CREDENTIALS');
    return this.#handOver(identity, refreshToken);
  }

  /**
   * Authenticates an in-band `auth` or `service_auth` message. @throws TollgateError as `handshake`
   * @param current the identity of the connection before this message
   */
  message(presented: InBandCredential, current: Identity | undefined): Promise<Identity> {
    return this.#logged(() => this.#message(presented, current));
  }

  async #message(presented: InBandCredential, current: Identity | undefined): Promise<Identity> {
    if (presented.kind === 'user') {
      const identity = await this.#verify(messageCredential(presented.token, this.#form));
      return this.#handOver(identity, presented.refreshToken);
    }
    // The handshake headers have already authenticated the service; the message only needs to name the same one.
    if (presented.token === undefined && current?.method === 'service') {
      checkServiceNames(presented, current.userId);
      return current;
    }
    return this.#verify(serviceCredential(presented));
  }

  /**
   * Authenticates a newer token of the same kind (user or service) as `current`.
   * @param refreshToken handed over with the token
   * @throws TollgateError as `handshake`
   */
  renewal(token: string, current: Identity, refreshToken?: string): Promise<Identity> {
    return this.#logged(async () => {
      const credential = messageCredential(token, this.#form);
      if (current.method !== 'service') return this.#handOver(await this.#verify(credential), refreshToken);
      return identityOf(await this.#verifyService(credential.token));
    });
  }

  /** Authenticates the user of an HTTP request. @throws TollgateError as `handshake` */
  bearer(authorization: string | undefined): Promise<Identity> {
    return this.#logged(async () => {
      const credential = findCredential({ authorization }, undefined, this.#form);
      if (!credential) throw new TollgateError('NO_TOKEN');
      return this.#verify(credential);
    });
  }

  /**
   * Authenticates the service or the operator of an HTTP request. The token of a service is sent as a bearer token or
   * as in a handshake. The caller checks the scopes.
   * @throws TollgateError as `handshake`
   */
  service(headers: IncomingHttpHeaders): Promise<ServiceIdentity> {
    return this.#logged(() => this.#service(headers));
  }

  async #service(headers: IncomingHttpHeaders): Promise<ServiceIdentity> {
    // Other headers of an HTTP request are not credentials.
    const { authorization, 'x-service-id': serviceId, 'x-user-context': context } = headers;
    const credential = findCredential({ authorization, 'x-service-id': serviceId, 'x-user-context': context });
    if (!credential) throw new TollgateError('NO_TOKEN');
    const service = await this.#verifyService(credential.token, this.#operators);
    if (credential.method === 'service') checkServiceNames(credential, identityOf(service).userId);
    return service;
  }

  /** Logs the reason of a refusal: the name of the claim, never its value. */
  async #logged<Found>(authenticate: () => Promise<Found>): Promise<Found> {
    try {
      return await authenticate();
    } catch (error) {
      if (error instanceof TollgateError && REFUSED.has(error.code)) {
        const { code, cause } = error;
        const fault = cause instanceof TokenFault ? { claim: cause.claim, reason: cause.message } : {};
        this.#logger.info({ code, ...fault }, 'credential refused');
      }
      throw error;
    }
  }

  #verify(credential: Credential): Promise<Identity> {
    const attributes = { 'tollgate.auth.method': credential.method };
    return this.#tracing.span('authenticate', { attributes }, () => this.#identityOf(credential));
  }

  async #identityOf(credential: Credential): Promise<Identity> {
    if (credential.method !== 'service') return this.#verifyUser(credential);
    const service = identityOf(await this.#verifyService(credential.token));
    // Checked after the token, so that only the service itself learns which names are expected.
    checkServiceNames(credential, service.userId);
    return service;
  }

  async #verifyUser({ token, method }: TokenCredential): Promise<Identity> {
    return { ...this.#notRevoked(await this.#userOf(token, method)), sealedToken: this.#seal.seal(token) };
  }

  async #userOf(token: string, method: AuthMethod): Promise<Identity> {
    if (this.#form === BEARER_FORM && !isJwt(token)) {
      // An encrypted token (RFC 7516) also consists of base64url parts, and its issuer may decode them leniently.
      if (hasJoseHeader(token) && !isCanonical(token)) throw refusedClaim('encoding', 'not canonical base64url');
      return this.#introspection.identify(token, method);
    }
    const identity = await this.#tokens.verifyAccess(token, method);
    await this.#introspection.confirm(token, identity.userId, identity.provider);
    return identity;
  }

  async #verifyService(token: string, operators?: OperatorClient): Promise<ServiceIdentity> {
    const service = await this.#tokens.verifyService(token, operators);
    const { operator } = service;
    if (operator) await this.#introspection.confirm(token, operator.userId, operator.provider);
    else await this.#introspection.confirm(token, `${SERVICE_PREFIX}${service.serviceId}`);
    this.#notRevoked({ tokenId: service.tokenId, sessionId: operator?.sessionId });
    return service;
  }

  /** Consumes a ticket. It is rejected if the token that bought it has been revoked in the meantime. */
  #consume(ticket: string, origin: string | undefined): Promise<Identity> {
    return this.#tracing.span('authenticate', { attributes: { 'tollgate.auth.method': 'ticket' } }, async () => {
      return this.#notRevoked(await this.#tickets.consume(ticket, origin));
    });
  }

  #notRevoked<Found extends { readonly tokenId: string; readonly sessionId?: string | undefined }>(
    found: Found,
  ): Found {
    const { tokenId, sessionId } = found;
    if (this.#revoked.has({ tokenId, sessionId })) throw new TollgateError('TOKEN_REVOKED');
    return found;
  }

  /** Adds the refresh token, sealed for the session of the identity. */
  #handOver(identity: Identity, refreshToken: string | undefined): Identity {
    if (refreshToken === undefined || !this.#refreshTokenProviders.has(identity.provider ?? '')) return identity;
    return { ...identity, handedOver: this.#seal.sealRefreshToken(refreshToken, sessionMember(sessionOf(identity))) };
  }

  #developer(): Identity {
    return {
      userId: 'dev_user',
      email: undefined,
      plan: 'developer',
      permissions: [],
      roles: ['developer'],
      featureFlags: {},
      sessionId: undefined,
      tokenId: newId('req'),
      tokenIssuedAt: this.#clock.now(),
      tokenExpiresAt: this.#clock.now() + BYPASS_SECONDS * 1000,
      method: 'development_bypass',
    };
  }
}

/**
 * Maps a service to an identity, so that caps, limits, logs and usage records treat it like a user. The token of a
 * service has no plan, so the plan for tokens without one applies unless an administrator stores another plan for
 * `service:<id>`. Its scopes become permissions of the same name, except scopes that would act as wildcards.
 */
function identityOf({ serviceId, scopes, ...token }: ServiceIdentity): Identity {
  return {
    userId: `${SERVICE_PREFIX}${serviceId}`,
    email: undefined,
    plan: UNNAMED_PLAN,
    permissions: scopes.filter((scope) => !scope.endsWith('*')),
    roles: [],
    featureFlags: {},
    sessionId: undefined,
    ...token,
    method: 'service',
  };
}

/** Whether a ticket and a token belong to the same session; the tokens of one session may differ. */
function sameSession(one: Identity, other: Identity): boolean {
  return one.userId === other.userId && one.sessionId === other.sessionId;
}
