import { randomBytes } from 'node:crypto';

/** 256 bits, as `scripts/make-secrets.mjs` makes them. */
export function randomSecret(): string {
  return randomBytes(32).toString('base64url');
}
