import { hash, randomBytes } from 'node:crypto';

/** 120 random bits: the probability of a collision among 2^50 identifiers is below 10^-6 (birthday bound). */
const RANDOM_BYTES = 15;
/** Random bytes are fetched for this many identifiers at a time, because a fetch costs more than its bytes. */
const POOLED = 64;

let pool = Buffer.alloc(0);
let used = 0;

/** Prefix that identifies the kind of an identifier, for example in logs. */
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

/**
 * Creates an identifier, e.g. `ws_9fK…`. It is URL-safe, so it can be part of a path, a close reason and a Redis key.
 */
export function newId(prefix: IdPrefix): string {
  if (used === pool.length) {
    pool = randomBytes(RANDOM_BYTES * POOLED);
    used = 0;
  }
  used += RANDOM_BYTES;
  return `${prefix}_${pool.toString('base64url', used - RANDOM_BYTES, used)}`;
}

/**
 * Derives an identifier from `values`. Equal values give the same identifier on every node, so a repeated operation is
 * recognised without a round trip.
 */
export function derivedId(prefix: IdPrefix, ...values: string[]): string {
  const digest = hash('sha256', JSON.stringify(values), 'buffer');
  return `${prefix}_${digest.subarray(0, RANDOM_BYTES).toString('base64url')}`;
}
