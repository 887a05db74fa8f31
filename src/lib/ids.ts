import { createHash, randomBytes } from 'node:crypto';

/** 120 random bits: two of 2^50 identifiers agree with a chance below 10^-6 (birthday bound). */
const RANDOM_BYTES = 15;

/** What an identifier names; it stands in front, so that one found in a log says what it is. */
export type IdPrefix =
  | 'ws'
  | 'thread'
  | 'req'
  | 'run'
  | 'evt'
  | 'call'
  | 'usage'
  | 'node'
  | 'worker'
  | 'job'
  | 'msg'
  | 'erased';

/** A fresh identifier, e.g. `ws_9fK…`; URL-safe, so that it can stand in a path, a close reason and a Redis key. */
export function newId(prefix: IdPrefix): string {
  return `${prefix}_${randomBytes(RANDOM_BYTES).toString('base64url')}`;
}

/**
 * The identifier that follows from `parts`: the same parts give the same one on every node, which makes a repeated
 * operation recognisable without asking anybody.
 */
export function derivedId(prefix: IdPrefix, ...values: string[]): string {
  const digest = createHash('sha256').update(JSON.stringify(values)).digest();
  return `${prefix}_${digest.subarray(0, RANDOM_BYTES).toString('base64url')}`;
}
