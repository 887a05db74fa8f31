import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/** 120 random bits, as the identifiers of `lib/ids.ts` have; base64url, so without the dot that parts refresh tokens. */
const ID_BYTES = 15;

export function newSessionId(): string {
  return `sess_${randomBytes(ID_BYTES).toString('base64url')}`;
}

export function newTokenId(): string {
  return `tok_${randomBytes(ID_BYTES).toString('base64url')}`;
}

/** What is stored in place of a secret that has entropy of its own. A password has not: see passwords.ts. */
export function digestOf(secret: string): string {
  return createHash('sha256').update(secret).digest('base64url');
}

/** Compares without telling by its time where two secrets differ, nor, since digests are compared, how long they are. */
export function sameSecret(presented: string, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(presented), digest(expected));
}
