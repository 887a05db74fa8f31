import { createSecretKey, type KeyObject } from 'node:crypto';
import jwt from 'jsonwebtoken';
import { z } from 'zod';
import { bearerFault, headerFault, type TokenTypes, tokenTypes, userFault } from '../src/auth/access-token-rules.ts';
import type { Clock } from '../src/lib/clock.ts';
import { isCanonical, type JsonObject, jsonObject } from '../src/lib/jws.ts';
import { TollgateError } from '../src/protocol/errors.ts';
import { newTokenId } from './secrets.ts';

/** Pinned algorithm. The `alg` in the header of a token is never trusted. */
const ALGORITHM = 'HS256';
/** Header parameter `typ`: RFC 9068 section 2.1. */
const TYPE = 'at+jwt';
export const SERVICE_TOKEN_SECONDS = 3_600;

const seconds = z.number().int().positive();
const CommonClaims = { sub: z.string().min(1), exp: seconds, iat: seconds, jti: z.string().min(1).max(128) };

const AccessClaims = z.object({
  ...CommonClaims,
  token_use: z.literal('access'),
  sid: z.string().min(1).max(128).optional(),
  email: z.string().optional(),
  plan: z.string().optional(),
  permissions: z.array(z.string()).default([]),
  roles: z.array(z.string()).default([]),
  feature_flags: z.record(z.string(), z.boolean()).default({}),
});
export type AccessClaims = z.infer<typeof AccessClaims>;

const ServiceClaims = z.object({
  ...CommonClaims,
  sub: z.string().startsWith('service:'),
  token_use: z.literal('service'),
  scope: z.string().default(''),
});
export type ServiceClaims = z.infer<typeof ServiceClaims>;

const Claims = z.discriminatedUnion('token_use', [AccessClaims, ServiceClaims]);
export type Claims = AccessClaims | ServiceClaims;

/** Claims about the user of an access token. */
export type AccessSubject = Required<
  Pick<AccessClaims, 'sub' | 'sid' | 'email' | 'plan' | 'permissions' | 'roles' | 'feature_flags'>
> & {
  /** Client and scopes of a token that an authorization code started: RFC 9068 section 2.2. */
  readonly client_id?: string;
  readonly scope?: string;
};

export interface SignedToken {
  readonly token: string;
  readonly expiresInSeconds: number;
}

export interface TokenOptions {
  readonly issuer: string;
  readonly audience: string;
  /** The current key first; tokens signed with the others are accepted during a key rotation. */
  readonly secrets: readonly [string, ...string[]];
  readonly accessTokenSeconds: number;
  /** Accepted values of the header parameter `typ`, as configured for the gateways. */
  readonly acceptedTypes: readonly string[];
}

/** Signs tokens and verifies those that this service signed. It does not check revocations. */
export class TokenIssuer {
  readonly #clock: Clock;
  readonly #options: TokenOptions;
  readonly #signingKey: KeyObject;
  readonly #keys: readonly KeyObject[];
  readonly #types: TokenTypes;

  constructor({ clock }: { clock: Clock }, options: TokenOptions) {
    this.#clock = clock;
    this.#options = options;
    this.#types = tokenTypes(options.acceptedTypes);
    const [current, ...previous] = options.secrets;
    // A key object, because jsonwebtoken first tries a string as a public key, at fifty times the cost.
    this.#signingKey = createSecretKey(Buffer.from(current));
    this.#keys = [this.#signingKey, ...previous.map((secret) => createSecretKey(Buffer.from(secret)))];
  }

  /** @param notAfter end of the session, ms; the token expires no later */
  signAccess(subject: AccessSubject, notAfter: number): SignedToken {
    const remainingSeconds = Math.floor((notAfter - this.#clock.now()) / 1000);
    const lifetime = Math.max(1, Math.min(this.#options.accessTokenSeconds, remainingSeconds));
    return this.#sign({ ...subject, token_use: 'access' }, lifetime);
  }

  signService(serviceId: string, scopes: readonly string[]): SignedToken {
    const claims = { sub: `service:${serviceId}`, scope: scopes.join(' '), token_use: 'service' };
    return this.#sign(claims, SERVICE_TOKEN_SECONDS);
  }

  /**
   * Verifies a token and returns its claims. The rules are those of the gateways, because the key may be shared with
   * another issuer of the deployment.
   * @param expiredForMs tolerated time since the expiry of the token
   * @throws TollgateError TOKEN_EXPIRED, VALIDATION_FAILED
   */
  read(token: string, expiredForMs = 0): Claims {
    const claims = Claims.safeParse(this.#verify(token, this.#headerOf(token)));
    if (!claims.success) throw new TollgateError('VALIDATION_FAILED', { cause: claims.error });
    if (claims.data.exp * 1000 + expiredForMs <= this.#clock.now()) throw new TollgateError('TOKEN_EXPIRED');
    return claims.data;
  }

  #sign(claims: object, lifetimeSeconds: number): SignedToken {
    const { issuer, audience } = this.#options;
    const iat = Math.floor(this.#clock.now() / 1000);
    const times = { iat, exp: iat + lifetimeSeconds, jti: newTokenId() };
    const token = jwt.sign({ iss: issuer, aud: audience, ...times, ...claims }, this.#signingKey, {
      header: { alg: ALGORITHM, typ: TYPE },
    });
    return { token, expiresInSeconds: lifetimeSeconds };
  }

  #headerOf(token: string): JsonObject {
    const header = isCanonical(token) ? jsonObject(token.slice(0, Math.max(token.indexOf('.'), 0))) : undefined;
    const fault = header === undefined ? 'no header' : headerFault(header, this.#types)?.reason;
    if (header === undefined || fault !== undefined) {
      throw new TollgateError('VALIDATION_FAILED', { cause: new Error(fault) });
    }
    return header;
  }

  /** Verifies signature, issuer, audience and kind. `read` checks the expiry, which it can tolerate for a while. */
  #verify(token: string, header: JsonObject): JsonObject {
    const { issuer, audience } = this.#options;
    const clockTimestamp = Math.floor(this.#clock.now() / 1000);
    const options = { issuer, audience, clockTimestamp, ignoreExpiration: true };
    let failure: unknown;
    for (const key of this.#keys) {
      try {
        jwt.verify(token, key, { algorithms: [ALGORITHM], ...options });
        return claimsOf(token, header);
      } catch (error) {
        failure = error;
      }
    }
    throw new TollgateError('VALIDATION_FAILED', { cause: failure });
  }
}

/** Returns the claims of a verified token. @throws Error if the kind of the token is not accepted */
function claimsOf(token: string, header: JsonObject): JsonObject {
  const claims = jsonObject(token.slice(token.indexOf('.') + 1, token.lastIndexOf('.')));
  if (claims === undefined) throw new Error('no claims');
  const fault = bearerFault(claims, header) ?? (claims.token_use === 'access' ? userFault(claims) : undefined);
  if (fault !== undefined) throw new Error(`${fault.claim}: ${fault.reason}`);
  return claims;
}
