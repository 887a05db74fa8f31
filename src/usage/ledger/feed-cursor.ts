import { BEGINNING, type LedgerPosition } from './ledger.ts';

/** Enough of a hash that no other ledger has it in the same place. */
const HASH_LENGTH = 16;
const CURSOR = /^u1\.(0|[1-9]\d{0,15})\.([0-9a-f]{0,16})$/;

/**
 * A place in the ledger as readers keep it. It names the record that the reader has last, by sequence and hash: a ledger
 * that was lost or restored is recognised, where a bare number would go on somewhere in the new one. Opaque to readers.
 */
export function encodeCursor({ sequence, hash }: LedgerPosition): string {
  return Buffer.from(`u1.${sequence}.${hash.slice(0, HASH_LENGTH)}`).toString('base64url');
}

/** Undefined for what no answer ever contained; "0" and "" are the beginning. */
export function decodeCursor(cursor: string): LedgerPosition | undefined {
  if (cursor === '' || cursor === '0') return BEGINNING;
  const match = CURSOR.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  if (!match) return undefined;
  const position = { sequence: Number(match[1]), hash: match[2] ?? '' };
  // Nothing beside it, and not cut: a cursor without a hash is that of the beginning alone.
  const sound = encodeCursor(position) === cursor && (position.sequence === 0) === (position.hash === '');
  return sound && (position.hash === '' || position.hash.length === HASH_LENGTH) ? position : undefined;
}
