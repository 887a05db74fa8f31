import { BEGINNING, type LedgerPosition } from './ledger.ts';

/** Length of the hash prefix, enough to distinguish the records of different ledgers with the same sequence. */
const HASH_LENGTH = 16;
const CURSOR = /^u1\.(0|[1-9]\d{0,15})\.([0-9a-f]{0,16})$/;

/**
 * Encodes a ledger position as an opaque cursor for readers. It identifies the reader's last record by sequence and
 * hash. A cursor of a lost or restored ledger is therefore detected, whereas a bare number would silently continue in
 * the new ledger.
 */
export function encodeCursor({ sequence, hash }: LedgerPosition): string {
  return Buffer.from(`u1.${sequence}.${hash.slice(0, HASH_LENGTH)}`).toString('base64url');
}

/** Decodes a cursor. "0" and "" are the beginning; undefined for a cursor that no response ever contained. */
export function decodeCursor(cursor: string): LedgerPosition | undefined {
  if (cursor === '' || cursor === '0') return BEGINNING;
  const match = CURSOR.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  if (!match) return undefined;
  const position = { sequence: Number(match[1]), hash: match[2] ?? '' };
  // From 2^53 on, different sequences are the same number.
  if (!Number.isSafeInteger(position.sequence)) return undefined;
  // Rejects extra and truncated data. Only the cursor of the beginning has no hash.
  const sound = encodeCursor(position) === cursor && (position.sequence === 0) === (position.hash === '');
  return sound && (position.hash === '' || position.hash.length === HASH_LENGTH) ? position : undefined;
}
