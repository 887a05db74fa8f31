import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';

/** AES-256-GCM with the nonce of 96 bits and the tag of 128 bits that NIST SP 800-38D recommends. */
const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const PURPOSE = 'tollgate access token at rest';

/** An access token as it may be stored and sent through Redis: only a process that has `SERVICE_SECRET` can read it. */
export type SealedToken = string;

/** Seals access tokens for the way from a gateway through Redis to the worker that refreshes them, and back. */
export class TokenSeal {
  readonly #key: KeyObject;

  /** @param secret `SERVICE_SECRET`: what the processes of one installation share */
  constructor(secret: string) {
    // RFC 5869; the secret is random and long, so that no salt is needed.
    this.#key = createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', PURPOSE, KEY_BYTES)));
  }

  seal(token: string): SealedToken {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, this.#key, nonce, { authTagLength: TAG_BYTES });
    const sealed = Buffer.concat([nonce, cipher.update(token, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return sealed.toString('base64');
  }

  /** Undefined for what was sealed with another secret, or is damaged. */
  open(sealed: SealedToken): string | undefined {
    const bytes = Buffer.from(sealed, 'base64');
    if (bytes.length < NONCE_BYTES + TAG_BYTES) return undefined;
    const decipher = createDecipheriv(CIPHER, this.#key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    try {
      const text = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES));
      return Buffer.concat([text, decipher.final()]).toString('utf8');
    } catch {
      return undefined;
    }
  }
}
