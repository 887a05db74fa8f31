import { createSecretKey, type KeyObject } from 'node:crypto';
import jwt from 'jsonwebtoken';
import { z } from 'zod';
import { bearerFault, headerFault, type TokenTypes, tokenTypes, userFault } from '../src/auth/access-token-rules.ts';
import type { Clock } from '../src/lib/clock.ts';
import { isCanonical, type JsonObject, jsonObject } from '../src/lib/jws.ts';
import { TollgateError } from '../src/protocol/errors.ts';
import { newTokenId } from './secrets.ts';

/** Pinned: what a token's own header says about its algorithm is not asked. */
const ALGORITHM = 'HS256';
/** RFC 9068 section 2.1. */
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

/** What an access token says of its user. */
export type AccessSubject = Required<
  Pick<AccessClaims, 'sub' | 'sid' | 'email' | 'plan' | 'permissions' | 'roles' | 'feature_flags'>
>;

export interface SignedToken {
  readonly token: string;
  readonly expiresInSeconds: number;
}

export interface TokenOptions {
  readonly issuer: string;
  readonly audience: string;
  /** The current key first; tokens signed with the others are still accepted while keys are rotated. */
  readonly secrets: readonly [string, ...string[]];
  readonly accessTokenSeconds: number;
  /** The header types that are accepted, as gateways have them. */
  readonly acceptedTypes: readonly string[];
}

/** Signs tokens and reads those that were signed here. Whether one was revoked since is asked elsewhere. */
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
    // A key object: jsonwebtoken tries a string as a public key first, at fifty times the cost.
    this.#signingKey = createSecretKey(Buffer.from(current));
    this.#keys = [this.#signingKey, ...previous.map((secret) => createSecretKey(Buffer.from(secret)))];
  }

  /** @param notAfter end of the session, ms: no token outlives the session it belongs to */
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
   * The claims of a token of the kinds that are signed here. The rules are those of the gateways: the key may be shared
   * with another issuer of the installation.
   * @param expiredForMs how long ago the token may have expired
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
    const fault = header === undefined ? 'no header' : headerFault(header, this.#types);
    if (header === undefined || fault !== undefined) {
      throw new TollgateError('VALIDATION_FAILED', { cause: new Error(fault) });
    }
    return header;
  }

  /** Signature, issuer, audience and kind; the expiry is `read`'s to check, since a little of it can be forgiven. */
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

/** The claims of a token that has been verified. @throws Error when its kind is not accepted */
function claimsOf(token: string, header: JsonObject): JsonObject {
  const claims = jsonObject(token.slice(token.indexOf('.') + 1, token.lastIndexOf('.')));
  if (claims === undefined) throw new Error('no claims');
  const fault = bearerFault(claims, header) ?? (claims.token_use === 'access' ? userFault(claims) : undefined);
  if (fault !== undefined) throw new Error(fault);
  return claims;
}
