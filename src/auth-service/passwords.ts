import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';

/**
 * scrypt with N = 2^14, r = 8, p = 5: one of the five settings that OWASP's Password Storage Cheat Sheet gives as equal
 * in strength. It takes 16 MiB a password and 160 ms on a small virtual CPU; N = 2^17 would take 128 MiB, which a few
 * logins at once turn into the whole memory of a small container.
 */
const LOG_N = 14;
const BLOCK_SIZE = 8;
const PARALLELISM = 5;
const SALT_BYTES = 16;
const KEY_BYTES = 32;
/** Node refuses above this; the buffers beside the 16 MiB need a little. */
const MAX_MEMORY_BYTES = 32 * 2 ** 20;

const SETTING = `ln=${LOG_N},r=${BLOCK_SIZE},p=${PARALLELISM}`;
/** The PHC string format, so that a hash says by itself how it was made. */
const HASH = /^\$scrypt\$(ln=\d+,r=\d+,p=\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/;

/** The hash of a password nobody has: verifying against it costs what verifying against a real one costs. */
export function unmatchableHash(): string {
  return formatHash(randomBytes(SALT_BYTES), randomBytes(KEY_BYTES));
}

export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  return formatHash(salt, await derive(password, salt));
}

/** False also for a hash made with another setting: such an account needs its password set again. */
export async function verifyPassword(password: string, hash: string): Promise<boolean> {
  const [, setting, salt, key] = HASH.exec(hash) ?? [];
  if (setting !== SETTING || salt === undefined || key === undefined) return false;
  const expected = Buffer.from(key, 'base64');
  const derived = await derive(password, Buffer.from(salt, 'base64'));
  return expected.length === derived.length && timingSafeEqual(derived, expected);
}

function formatHash(salt: Buffer, key: Buffer): string {
  const encode = (bytes: Buffer) => bytes.toString('base64').replace(/=+$/, '');
  return `$scrypt$${SETTING}$${encode(salt)}$${encode(key)}`;
}

function derive(password: string, salt: Buffer): Promise<Buffer> {
  const options: ScryptOptions = { N: 2 ** LOG_N, r: BLOCK_SIZE, p: PARALLELISM, maxmem: MAX_MEMORY_BYTES };
  return new Promise((resolve, reject) => {
    // The same characters can be typed as different code points: RFC 8265 compares passwords in this form.
    scrypt(password.normalize('NFC'), salt, KEY_BYTES, options, (error, key) => (error ? reject(error) : resolve(key)));
  });
}
