import { createECDH, createHash, createPrivateKey, createPublicKey, hkdfSync, type KeyObject } from 'node:crypto';
import jwt from 'jsonwebtoken';
import type { Clock } from '../src/lib/clock.ts';

const ALGORITHM = 'ES256';
const CURVE = 'prime256v1';
const COORDINATE_BYTES = 32;
/** The client reads an ID token once, right after the sign-in. */
const ID_TOKEN_SECONDS = 300;

/** A public key of RFC 7517, with the parameters of RFC 7518 section 6.2. */
export interface PublicKey {
  readonly kty: 'EC';
  readonly crv: 'P-256';
  readonly x: string;
  readonly y: string;
  readonly kid: string;
  readonly use: 'sig';
  readonly alg: typeof ALGORITHM;
}

interface SigningKey {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  readonly published: PublicKey;
}

export interface IdTokenSubject {
  readonly userId: string;
  readonly email: string;
  readonly sessionId: string;
  readonly nonce: string | undefined;
  /** Time of the sign-in, milliseconds since the epoch. */
  readonly signedInAt: number;
}

/**
 * Signs ID tokens (OpenID Connect Core section 2) and reads those that it signed. Unlike access tokens they are for a
 * client without a secret, which needs a public key. All replicas derive the same key from the signing secret.
 */
export class IdTokens {
  readonly #clock: Clock;
  readonly #issuer: string;
  readonly #audience: string;
  readonly #current: SigningKey;
  readonly #keys: readonly SigningKey[];

  /** @param options.secrets the current secret first; @param options.audience the id of the client */
  constructor(
    { clock }: { readonly clock: Clock },
    options: { readonly issuer: string; readonly audience: string; readonly secrets: readonly [string, ...string[]] },
  ) {
    this.#clock = clock;
    this.#issuer = options.issuer;
    this.#audience = options.audience;
    const [current, ...previous] = options.secrets;
    this.#current = signingKey(current);
    this.#keys = [this.#current, ...previous.map(signingKey)];
  }

  get publicKeys(): readonly PublicKey[] {
    return this.#keys.map(({ published }) => published);
  }

  sign({ userId, email, sessionId, nonce, signedInAt }: IdTokenSubject): string {
    const iat = Math.floor(this.#clock.now() / 1000);
    const about = { iss: this.#issuer, aud: this.#audience, sub: userId, email, sid: sessionId };
    const times = { iat, exp: iat + ID_TOKEN_SECONDS, auth_time: Math.floor(signedInAt / 1000) };
    return jwt.sign({ ...about, ...times, ...(nonce === undefined ? {} : { nonce }) }, this.#current.privateKey, {
      algorithm: ALGORITHM,
      keyid: this.#current.published.kid,
    });
  }

  /**
   * Returns the session of an ID token that this service signed, even if the token has expired (OpenID Connect
   * RP-Initiated Logout section 2); undefined for any other string.
   */
  sessionOf(idToken: string): string | undefined {
    const options = { issuer: this.#issuer, audience: this.#audience, ignoreExpiration: true };
    for (const { publicKey } of this.#keys) {
      try {
        const claims = jwt.verify(idToken, publicKey, { algorithms: [ALGORITHM], ...options });
        return typeof claims === 'object' && typeof claims.sid === 'string' ? claims.sid : undefined;
      } catch {
        // Signed with another key, or not at all.
      }
    }
    return undefined;
  }
}

/** Derives a key pair from a secret (RFC 5869). A derived number that is no private key is skipped: one in 2^32. */
function signingKey(secret: string): SigningKey {
  const ecdh = createECDH(CURVE);
  for (let attempt = 0; ; attempt += 1) {
    const scalar = Buffer.from(hkdfSync('sha256', secret, '', `tollgate id token ${attempt}`, COORDINATE_BYTES));
    try {
      ecdh.setPrivateKey(scalar);
    } catch (error) {
      if (attempt < 8) continue;
      throw error;
    }
    // Uncompressed point: 0x04, x, y.
    const point = ecdh.getPublicKey();
    const x = point.subarray(1, 1 + COORDINATE_BYTES).toString('base64url');
    const y = point.subarray(1 + COORDINATE_BYTES).toString('base64url');
    const key = { kty: 'EC', crv: 'P-256', x, y } as const;
    // RFC 7638: the digest of the required members in this order.
    const thumbprint = JSON.stringify({ crv: key.crv, kty: key.kty, x, y });
    const kid = createHash('sha256').update(thumbprint).digest('base64url');
    return {
      privateKey: createPrivateKey({ key: { ...key, d: scalar.toString('base64url') }, format: 'jwk' }),
      publicKey: createPublicKey({ key, format: 'jwk' }),
      published: { ...key, kid, use: 'sig', alg: ALGORITHM },
    };
  }
}
