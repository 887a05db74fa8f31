import type { IncomingHttpHeaders } from 'node:http';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { hasJoseHeader, isCanonical } from '../lib/jws.ts';
import type { Tracing } from '../lib/tracing.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { AuthMethod, Identity } from '../protocol/identity.ts';
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
import type { Tickets } from './tickets.ts';
import type { TokenSeal } from './token-refresh/token-seal.ts';
import { isJwt, type ServiceIdentity, type TokenVerifier, UNNAMED_PLAN } from './tokens.ts';

/** A development identity lives as long as a working day. */
const BYPASS_SECONDS = 12 * 3_600;

/** What a handshake brings along to prove who speaks. */
export interface Handshake {
  readonly headers: IncomingHttpHeaders;
  /** Socket.IO's `auth.token`. */
  readonly handshakeToken?: unknown;
  /** The `ticket` parameters of the URL, all of them. */
  readonly tickets: readonly string[];
}

/** Whether a token or its session was revoked, as far as this node has heard; asked without a round trip. */
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
}

/** Decides who speaks: the one place where a credential turns into an identity. */
export class Authenticator {
  readonly #tokens: TokenVerifier;
  readonly #tickets: Tickets;
  readonly #introspection: TokenIntrospection;
  readonly #revoked: RevokedCredentials;
  readonly #clock: Clock;
  readonly #tracing: Tracing;
  readonly #seal: TokenSeal;
  readonly #developmentBypass: boolean;
  /** What a user's token may look like: one that is no JWT can only be asked about. */
  readonly #form: RegExp;

  constructor(
    { tokens, tickets, introspection, revoked, seal, clock, tracing }: AuthenticatorDeps,
    options: { readonly developmentBypass: boolean },
  ) {
    this.#tokens = tokens;
    this.#tickets = tickets;
    this.#introspection = introspection;
    this.#revoked = revoked;
    this.#clock = clock;
    this.#tracing = tracing;
    this.#seal = seal;
    this.#form = introspection.mode === 'never' ? JWT_FORM : BEARER_FORM;
    this.#developmentBypass = options.developmentBypass;
  }

  /**
   * The identity of a handshake, undefined when it brought no credential. A ticket costs one round trip to Redis, and
   * is spent before anything else is looked at: what is refused for another reason cannot be presented again.
   * @throws TollgateError with a code of the authentication rows, OVERLOADED for a ticket while Redis is away, those of
   *   an outage for a token that only the auth service knows while that is away
   */
  async handshake({ headers, handshakeToken, tickets }: Handshake): Promise<Identity | undefined> {
    const ticket = findTicket(tickets);
    const bought = ticket === undefined ? undefined : await this.#consume(ticket, headers.origin);
    const credential = findCredential(headers, handshakeToken, this.#form);
    if (!credential) return bought ?? (this.#developmentBypass ? this.#developer() : undefined);
    const identity = await this.#verify(credential);
    if (bought && !sameSession(bought, identity)) throw new TollgateError('CONFLICTING_CREDENTIALS');
    return identity;
  }

  /**
   * The identity of an in-band `auth` or `service_auth` message. @throws TollgateError as `handshake`
   * @param current who speaks on the connection so far
   */
  async message(presented: InBandCredential, current: Identity | undefined): Promise<Identity> {
    if (presented.kind === 'user') return this.#verify(messageCredential(presented.token, this.#form));
    // The handshake proved it by its headers; the message has only to name the same service.
    if (presented.token === undefined && current?.method === 'service') {
      checkServiceNames(presented, current.userId);
      return current;
    }
    return this.#verify(serviceCredential(presented));
  }

  /** The identity of a newer token for `current`: a user's for a user, a service's for a service. @throws as `handshake` */
  async renewal(token: string, current: Identity): Promise<Identity> {
    const credential = messageCredential(token, this.#form);
    if (current.method !== 'service') return this.#verify(credential);
    return identityOf(await this.#verifyService(credential.token));
  }

  /** A user that calls an HTTP route. @throws TollgateError as `handshake` */
  async bearer(authorization: string | undefined): Promise<Identity> {
    const credential = findCredential({ authorization }, undefined, this.#form);
    if (!credential) throw new TollgateError('NO_TOKEN');
    return this.#verify(credential);
  }

  /**
   * A service that calls an HTTP route, with its token as a bearer or in the form of the handshake.
   * @throws TollgateError as `handshake`, PERMISSION_DENIED without the scope
   */
  async service(headers: IncomingHttpHeaders, scope: string): Promise<ServiceIdentity> {
    // What else is in the headers of a request is no credential here.
    const { authorization, 'x-service-id': serviceId, 'x-user-context': context } = headers;
    const credential = findCredential({ authorization, 'x-service-id': serviceId, 'x-user-context': context });
    if (!credential) throw new TollgateError('NO_TOKEN');
    const service = await this.#verifyService(credential.token);
    if (credential.method === 'service') checkServiceNames(credential, identityOf(service).userId);
    if (!service.scopes.includes(scope)) {
      throw new TollgateError('PERMISSION_DENIED', {
        fields: { required_permissions: [scope], missing_permissions: [scope] },
      });
    }
    return service;
  }

  #verify(credential: Credential): Promise<Identity> {
    const attributes = { 'tollgate.auth.method': credential.method };
    return this.#tracing.span('authenticate', { attributes }, () => this.#identityOf(credential));
  }

  async #identityOf(credential: Credential): Promise<Identity> {
    if (credential.method !== 'service') return this.#verifyUser(credential);
    const service = identityOf(await this.#verifyService(credential.token));
    // After the token: what a name would have had to be is told to nobody who is not that service.
    checkServiceNames(credential, service.userId);
    return service;
  }

  async #verifyUser({ token, method }: TokenCredential): Promise<Identity> {
    return { ...this.#notRevoked(await this.#userOf(token, method)), sealedToken: this.#seal.seal(token) };
  }

  async #userOf(token: string, method: AuthMethod): Promise<Identity> {
    if (this.#form === BEARER_FORM && !isJwt(token)) {
      // An encrypted token (RFC 7516) has base64url parts as well, which its issuer decodes leniently, perhaps.
      if (hasJoseHeader(token) && !isCanonical(token)) throw new TollgateError('VALIDATION_FAILED');
      return this.#introspection.identify(token, method);
    }
    const identity = await this.#tokens.verifyAccess(token, method);
    await this.#introspection.confirm(token, identity.userId);
    return identity;
  }

  async #verifyService(token: string): Promise<ServiceIdentity> {
    const service = await this.#tokens.verifyService(token);
    await this.#introspection.confirm(token, `${SERVICE_PREFIX}${service.serviceId}`);
    return this.#notRevoked(service);
  }

  /** A ticket is as good as the token that it was bought with, at the time it is used. */
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
 * A service as the user that caps, limits, logs and bills know. It is no customer and its token names no plan: it has the
 * plan of a token that names none, and more only by what an operator stores for `service:<id>`. Its scopes are
 * permissions of the same name, save those that would be wildcards there.
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

/** Tokens of one session may differ; a ticket and a token agree when they are of the same one. */
function sameSession(one: Identity, other: Identity): boolean {
  return one.userId === other.userId && one.sessionId === other.sessionId;
}
