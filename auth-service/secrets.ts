import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/** 120 random bits, as in `lib/ids.ts`. base64url has no dot, which separates the parts of refresh tokens. */
const ID_BYTES = 15;

export function newSessionId(): string {
  return `sess_${randomBytes(ID_BYTES).toString('base64url')}`;
}

export function newTokenId(): string {
  return `tok_${randomBytes(ID_BYTES).toString('base64url')}`;
}

/** Digest that is stored instead of a random secret. Passwords have too little entropy for it: see passwords.ts. */
export function digestOf(secret: string): string {
  return createHash('sha256').update(secret).digest('base64url');
}

/** Compares secrets in constant time. It compares digests, so that the time does not reveal the lengths either. */
export function sameSecret(presented: string, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(presented), digest(expected));
}
