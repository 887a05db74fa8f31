import { z } from 'zod';
import { TollgateError } from '../protocol/errors.ts';
import { endOf, HOUR_MS, hourOf, hoursBetween, startOf } from '../usage/hours.ts';

/** The forms of the usage routes: what they take, and for readers of the documentation what they answer. */

/** A month's hours: more is asked for in parts. */
const MAX_HOURS = 31 * 24;
const DEFAULT_HOURS = 24;
const HOUR = /^\d{4}-\d{2}-\d{2}(T\d{2}(:00(:00(\.0{1,3})?)?)?Z?)?$/;

const Hour = z.string().regex(HOUR, 'must be an hour or a day, UTC, e.g. 2026-11-20T10 or 2026-11-20');

export const RangeQuery = z.object({
  from: Hour.optional().describe('First hour; a day before `to` by default.'),
  to: Hour.optional().describe('First hour that is not included; the end of the current hour by default.'),
});

export const Measures = z.object({
  executions: z.int(),
  succeeded: z.int(),
  failed: z.int(),
  cancelled: z.int(),
  units: z.int(),
  duration_ms: z.int(),
  corrections: z.int(),
});

export const Record = z.object({
  id: z.string(),
  sequence: z.int().describe('Place in the ledger: 1, 2, 3, … without gaps.'),
  user_id: z.string(),
  plan: z.string(),
  tool: z.string(),
  permission: z.string(),
  status: z.enum(['success', 'error', 'cancelled']),
  units: z.int().describe('Price units; 0 unless the tool succeeded. Of a correction: what it adds.'),
  units_by_kind: z
    .record(z.string(), z.int())
    .optional()
    .describe('Of a step of a model (`tool` is `model:<name>`): its `input_tokens` and `output_tokens`.'),
  estimated: z
    .literal(true)
    .optional()
    .describe('The model did not count: `units_by_kind`, and so `units`, is estimated.'),
  run_id: z.string().nullable(),
  thread_id: z.string().nullable(),
  request_id: z.string().nullable(),
  idempotency_key: z.string().nullable(),
  transport: z.string(),
  started_at: z.iso.datetime(),
  completed_at: z.iso.datetime(),
  duration_ms: z.int(),
  period: z.string().describe('Hour of completed_at, UTC.'),
  corrects: z.string().optional().describe('Of a correction: the record that it corrects.'),
  reason: z.string().optional().describe('Of a correction: why.'),
  erases: z
    .array(z.tuple([z.int(), z.string()]).readonly())
    .readonly()
    .optional()
    .describe('Of a redaction entry: sequence and SHA-256 of each erased record that it covers.'),
  salt: z.string().optional().describe('Key of the commitment to the personal fields.'),
  content_before: z.string().optional().describe('Digest of the record before without its personal fields.'),
  personal: z.string().optional().describe('Of an erased record: the commitment to its personal fields.'),
  erasure: z.int().optional().describe('Of an erased record: the sequence of its redaction entry.'),
  hash: z
    .string()
    .describe(
      'SHA-256 over the hash of the record before, a line break, and this record without its hash; of an erased record as it was.',
    ),
});

export const Window = z.object({
  window: z.string(),
  revision: z.int(),
  status: z.enum(['open', 'closed']),
  record_count: z.int(),
  totals: Measures,
  first_sequence: z.int(),
  last_sequence: z.int(),
  sha256: z.string().optional().describe('Of a closed revision: over the ids of its records, each with a line break.'),
  closed_at: z.iso.datetime().optional(),
});

export const Refused = z.object({
  error: z.looseObject({ code: z.string(), message: z.string(), retryable: z.boolean() }),
});

export const SERVICE = [{ service: [] }];

/**
 * The hours that a query asks for.
 * @throws TollgateError FORMAT_ERROR when there are none or too many
 */
export function hoursOf({ from, to }: z.infer<typeof RangeQuery>, now: number): string[] {
  const end = to === undefined ? endOf(hourOf(now)) : timeOf('to', to);
  const start = from === undefined ? end - DEFAULT_HOURS * HOUR_MS : timeOf('from', from);
  if (start >= end) throw new TollgateError('FORMAT_ERROR', { text: '"from" must be before "to".' });
  if (end - start > MAX_HOURS * HOUR_MS) {
    throw new TollgateError('FORMAT_ERROR', { text: `At most ${MAX_HOURS} hours can be asked for at once.` });
  }
  return hoursBetween(start, end);
}

export function timeOf(name: string, text: string): number {
  try {
    return startOf(text.length === 'YYYY-MM-DD'.length ? `${text}T00` : text.slice(0, 'YYYY-MM-DDTHH'.length));
  } catch {
    throw new TollgateError('FORMAT_ERROR', { text: `"${name}" is no hour that there is.` });
  }
}
