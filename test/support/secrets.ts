import { randomBytes } from 'node:crypto';
import { recordSecrets } from '../../scripts/lib/leaks.ts';

/** 256 bits, as `scripts/make-secrets.mjs` makes them. */
export function randomSecret(): string {
  const secret = randomBytes(32).toString('base64url');
  recordSecrets(secret);
  return secret;
}
