import { hash, randomBytes } from 'node:crypto';
import type { LedgerRecord } from '../protocol/usage.ts';
import { parseLedgerRecord } from './records.ts';

/**
 * Erasure of the personal fields of a ledger record without breaking the chain (docs/decisions/0014-erasure.md).
 *
 * - The hash of a record covers its JSON, including the personal fields, and never changes.
 * - `personal` is a commitment to the personal fields: SHA-256 of the record's `salt`, a line break and their JSON
 *   array.
 * - The content digest is the SHA-256 of `personal`, a line break and the JSON of all other members. The next record
 *   contains that digest as `content_before`, which its own hash covers.
 * - An erased record keeps `hash` and all other members, has a pseudonym as `user_id`, and `personal` instead of
 *   `salt`. Its content digest does not change, so `content_before` of the next record still proves every other member.
 * - A redaction entry, itself a record of the ledger, lists the SHA-256 of each erased record and thereby the
 *   replacement of the personal fields.
 */
const PERSONAL_FIELDS = ['user_id', 'run_id', 'thread_id', 'request_id', 'idempotency_key', 'reason'] as const;
const ERASED_REASON = 'erased';
const SALT_BYTES = 16;

/** An erased record without the sequence of its redaction entry. */
export type ErasedForm = Omit<LedgerRecord, 'erasure'>;

export function newSalt(): string {
  return randomBytes(SALT_BYTES).toString('base64url');
}

/**
 * Returns the content digest: it covers everything in a record except its personal fields, and is the same before and
 * after an erasure.
 */
export function contentDigest(record: LedgerRecord): string {
  const { user_id, run_id, thread_id, request_id, idempotency_key, reason, salt, personal, ...others } = record;
  const { erasure: _, hash: __, ...content } = others;
  return sha256(`${commitment(record) ?? ''}\n${JSON.stringify(content)}`);
}

/** Returns the commitment to the personal fields; undefined for a record of an older version, which has no salt. */
function commitment(record: LedgerRecord): string | undefined {
  const { salt, personal } = record;
  if (personal !== undefined || salt === undefined) return personal;
  const values = PERSONAL_FIELDS.map((field) => record[field] ?? null);
  return sha256(`${salt}\n${JSON.stringify(values)}`);
}

/** Returns the erased form of a record under a pseudonym. Members keep their order. */
export function erasedForm(record: LedgerRecord, pseudonym: string): ErasedForm {
  const members = Object.entries(record).flatMap(([name, value]): [string, unknown][] => {
    if (name === 'user_id') return [[name, pseudonym]];
    if (name === 'reason') return [[name, ERASED_REASON]];
    if (name === 'salt') return [['personal', commitment(record)]];
    return PERSONAL_FIELDS.some((field) => field === name) ? [[name, null]] : [[name, value]];
  });
  return Object.fromEntries(members) as unknown as ErasedForm;
}

/** Returns the digest that a redaction entry lists for an erased record. */
export function erasedDigest(form: ErasedForm): string {
  return sha256(JSON.stringify(form));
}

/**
 * Returns the stored JSON of an erased record, with `hash` as the last member like any record.
 * @param entry sequence of the redaction entry that covers it
 */
export function erasedJson({ hash, ...form }: ErasedForm, entry: number): string {
  return JSON.stringify({ ...form, erasure: entry, hash });
}

export function isErased(record: LedgerRecord): record is LedgerRecord & { readonly erasure: number } {
  return record.erasure !== undefined;
}

/** Returns whether the bytes are an erased record that this redaction entry covers. */
export function isCovered(record: LedgerRecord, json: string, entry: LedgerRecord): boolean {
  const { erasure: _, ...form } = record;
  const digest = erasedDigest(form);
  const listed = entry.erases?.some(([sequence, sha]) => sequence === record.sequence && sha === digest) ?? false;
  return (
    listed && entry.user_id === record.user_id && entry.sequence === record.erasure && JSON.stringify(record) === json
  );
}

/**
 * Returns whether two copies represent the same record: they are equal, or at least one is the erased form of the
 * record.
 */
export function isSameRecord(one: string, other: string): boolean {
  if (one === other) return true;
  const first = parseLedgerRecord(one);
  const second = parseLedgerRecord(other);
  if (!isErased(first) && !isErased(second)) return false;
  return first.hash === second.hash && contentDigest(first) === contentDigest(second);
}

function sha256(text: string): string {
  return hash('sha256', text);
}
