import type { IncomingHttpHeaders } from 'node:http';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { findCredential, messageCredential } from './credentials.ts';
import type { ServiceIdentity, Tokens } from './tokens.ts';

/** A development identity lives as long as a working day. */
const BYPASS_SECONDS = 12 * 3_600;

/** What a handshake brings along to prove who speaks. */
export interface Handshake {
  readonly headers: IncomingHttpHeaders;
  /** Socket.IO's `auth.token`. */
  readonly handshakeToken?: unknown;
}

/** Decides who speaks: the one place where a credential turns into an identity. */
export class Authenticator {
  readonly #tokens: Tokens;
  readonly #clock: Clock;
  readonly #developmentBypass: boolean;

  constructor({ tokens, clock }: { tokens: Tokens; clock: Clock }, options: { readonly developmentBypass: boolean }) {
    this.#tokens = tokens;
    this.#clock = clock;
    this.#developmentBypass = options.developmentBypass;
  }

  /**
   * The identity of a handshake, undefined when it brought no credential.
   * @throws TollgateError with a code of the authentication rows
   */
  async handshake({ headers, handshakeToken }: Handshake): Promise<Identity | undefined> {
    const credential = findCredential(headers, handshakeToken);
    if (credential) return this.#tokens.verifyAccess(credential.token, credential.method);
    return this.#developmentBypass ? this.#developer() : undefined;
  }

  /** The identity of an in-band `auth` or `token_refresh` message. @throws TollgateError as `handshake` */
  async message(token: string | undefined): Promise<Identity> {
    const credential = messageCredential(token);
    return this.#tokens.verifyAccess(credential.token, credential.method);
  }

  /** A service that calls an HTTP route. @throws TollgateError as `handshake`, PERMISSION_DENIED without the scope */
  async service(headers: IncomingHttpHeaders, scope: string): Promise<ServiceIdentity> {
    const credential = findCredential({ authorization: headers.authorization });
    if (!credential) throw new TollgateError('NO_TOKEN');
    const service = await this.#tokens.verifyService(credential.token);
    if (!service.scopes.includes(scope)) {
      throw new TollgateError('PERMISSION_DENIED', {
        fields: { required_permissions: [scope], missing_permissions: [scope] },
      });
    }
    return service;
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
      tokenExpiresAt: this.#clock.now() + BYPASS_SECONDS * 1000,
      method: 'development_bypass',
    };
  }
}
