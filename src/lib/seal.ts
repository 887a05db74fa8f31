import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';

/** AES-256-GCM with the nonce of 96 bits and the tag of 128 bits that NIST SP 800-38D recommends. */
const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Texts as only processes with the same secret can make and read them, and for one purpose: each has a key of its own. */
export class Seal {
  readonly #key: KeyObject;

  constructor(secret: string, purpose: string) {
    // RFC 5869; the secret is random and long, so that no salt is needed.
    this.#key = createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', purpose, KEY_BYTES)));
  }

  /** @param about what else must be the same when it is opened; it is not in what is sealed */
  seal(text: string, about = ''): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, this.#key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(Buffer.from(about));
    const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return sealed.toString('base64');
  }

  /** Undefined for what was sealed with another secret, for another purpose or about something else, or is damaged. */
  open(sealed: string, about = ''): string | undefined {
    const bytes = Buffer.from(sealed, 'base64');
    // Decoding passes over what is no Base64: one text alone may stand for what is sealed.
    if (bytes.length < NONCE_BYTES + TAG_BYTES || bytes.toString('base64') !== sealed) return undefined;
    const decipher = createDecipheriv(CIPHER, this.#key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(about));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    try {
      const text = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES));
      return Buffer.concat([text, decipher.final()]).toString('utf8');
    } catch {
      return undefined;
    }
  }
}
