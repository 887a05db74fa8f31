import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';

/** AES-256-GCM with a 96-bit nonce and a 128-bit tag, as NIST SP 800-38D recommends. */
const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

const GCM_OPTIONS = { authTagLength: TAG_BYTES };
/** Nonces are fetched this many at a time, because a fetch costs more than its bytes. Each is used once. */
const POOLED = 64;

let pool = Buffer.alloc(0);
let used = 0;

function newNonce(): Buffer {
  if (used === pool.length) {
    pool = randomBytes(NONCE_BYTES * POOLED);
    used = 0;
  }
  used += NONCE_BYTES;
  return pool.subarray(used - NONCE_BYTES, used);
}

/** Authenticated encryption of texts between processes with the same secret. Each purpose has its own key. */
export class Seal {
  readonly #key: KeyObject;

  constructor(secret: string, purpose: string) {
    // RFC 5869. The secret is long and random, so no salt is needed.
    this.#key = createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', purpose, KEY_BYTES)));
  }

  /** @param about additional authenticated data: not part of the result, but `open` must receive the same value */
  seal(text: string, about = ''): string {
    const nonce = newNonce();
    const cipher = createCipheriv(CIPHER, this.#key, nonce, GCM_OPTIONS);
    if (about !== '') cipher.setAAD(Buffer.from(about));
    const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return sealed.toString('base64');
  }

  /** Returns undefined if secret, purpose or `about` differ, or if the text is damaged. */
  open(sealed: string, about = ''): string | undefined {
    const bytes = Buffer.from(sealed, 'base64');
    // Node skips invalid Base64 characters when decoding. Only the canonical encoding is accepted.
    if (bytes.length < NONCE_BYTES + TAG_BYTES || bytes.toString('base64') !== sealed) return undefined;
    const decipher = createDecipheriv(CIPHER, this.#key, bytes.subarray(0, NONCE_BYTES), GCM_OPTIONS);
    if (about !== '') decipher.setAAD(Buffer.from(about));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    try {
      const text = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES));
      return Buffer.concat([text, decipher.final()]).toString('utf8');
    } catch {
      return undefined;
    }
  }
}
