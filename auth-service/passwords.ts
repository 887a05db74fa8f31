import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { withoutTrailing } from '../src/lib/text.ts';

/** Parameters of scrypt: RFC 7914 section 2. */
export interface PasswordCost {
  /** N is 2 to the power of this. */
  readonly logN: number;
  readonly blockSize: number;
  readonly parallelism: number;
}

/**
 * N = 2^14, r = 8, p = 5: one of five settings of equal strength in OWASP's Password Storage Cheat Sheet. It takes 16
 * MiB per password, and 160 ms on a small virtual CPU. N = 2^17 would take 128 MiB, so a few concurrent logins would
 * exhaust the memory of a small container.
 */
export const PASSWORD_COST: PasswordCost = { logN: 14, blockSize: 8, parallelism: 5 };

const SALT_BYTES = 16;
const KEY_BYTES = 32;
/** PHC string format, in which a hash contains its parameters. */
const HASH = /^\$scrypt\$(ln=\d+,r=\d+,p=\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/;

/** Hashes and verifies passwords, all at the same cost, so that the response time reveals nothing about an account. */
export class Passwords {
  readonly #cost: PasswordCost;
  readonly #setting: string;

  constructor(cost: PasswordCost) {
    this.#cost = cost;
    this.#setting = `ln=${cost.logN},r=${cost.blockSize},p=${cost.parallelism}`;
  }

  async hash(password: string): Promise<string> {
    const salt = randomBytes(SALT_BYTES);
    return this.#format(salt, await this.#derive(password, salt));
  }

  /** Returns a hash that no password matches. Verification takes as long as against a real hash. */
  unmatchable(): string {
    return this.#format(randomBytes(SALT_BYTES), randomBytes(KEY_BYTES));
  }

  /** Returns false for a hash with another cost too; the password of such an account must be set again. */
  async verify(password: string, hash: string): Promise<boolean> {
    const [, setting, salt, key] = HASH.exec(hash) ?? [];
    if (setting !== this.#setting || salt === undefined || key === undefined) return false;
    const expected = Buffer.from(key, 'base64');
    const derived = await this.#derive(password, Buffer.from(salt, 'base64'));
    return expected.length === derived.length && timingSafeEqual(derived, expected);
  }

  #format(salt: Buffer, key: Buffer): string {
    const encode = (bytes: Buffer) => withoutTrailing(bytes.toString('base64'), '=');
    return `$scrypt$${this.#setting}$${encode(salt)}$${encode(key)}`;
  }

  #derive(password: string, salt: Buffer): Promise<Buffer> {
    const { logN, blockSize: r, parallelism: p } = this.#cost;
    // Memory limit in Node. scrypt needs slightly more than 128 * r * (N + p) bytes.
    const options = { N: 2 ** logN, r, p, maxmem: 256 * r * 2 ** logN };
    return new Promise((resolve, reject) => {
      const done = (error: Error | null, key: Buffer) => (error ? reject(error) : resolve(key));
      // Keyboards can produce different code points for the same characters. RFC 8265 compares passwords in NFC.
      scrypt(password.normalize('NFC'), salt, KEY_BYTES, options, done);
    });
  }
}
