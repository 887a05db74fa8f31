import { z } from 'zod';
import { TollgateError } from '../protocol/errors.ts';
import { endOf, HOUR_MS, hourOf, hoursBetween, startOf } from '../usage/hours.ts';

/** Schemas of the usage routes. */

/** Bound of one query: the hours of a month. */
const MAX_HOURS = 31 * 24;
const DEFAULT_HOURS = 24;
const HOUR = /^\d{4}-\d{2}-\d{2}(T\d{2}(:00(:00(\.0{1,3})?)?)?Z?)?$/;

const Hour = z
  .string()
  .regex(HOUR, 'must be an hour or a day, UTC, e.g. 2026-11-20T10 or 2026-11-20')
  .meta({ examples: ['2026-11-20T10'] });

export const RangeQuery = z.object({
  from: Hour.optional().describe('First hour or day, UTC; by default a day before `to`.'),
  to: Hour.optional().describe('First hour or day that is not included; by default the end of the current hour.'),
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
export const MEASURES_EXAMPLE = {
  executions: 3,
  succeeded: 2,
  failed: 1,
  cancelled: 0,
  units: 20,
  duration_ms: 1250,
  corrections: 0,
};

/** A record as `POST /v1/usage/corrections` and the feed return it. */
export const RECORD_EXAMPLE = {
  id: 'use_01j9z3m2',
  sequence: 1,
  user_id: 'user-42',
  plan: 'pro',
  tool: 'analyze_workload',
  permission: 'analytics:run',
  status: 'success',
  units: 10,
  run_id: 'run_01j9z3k9',
  thread_id: 'thread_01j9z3k7',
  request_id: null,
  idempotency_key: null,
  transport: 'ws',
  started_at: '2026-11-20T10:00:00.000Z',
  completed_at: '2026-11-20T10:00:00.420Z',
  duration_ms: 420,
  period: '2026-11-20T10',
  hash: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
} as const;

export const Record = z
  .object({
    id: z.string(),
    sequence: z.int().describe('Position in the ledger: 1, 2, 3, … without gaps.'),
    user_id: z.string(),
    plan: z.string(),
    tool: z.string(),
    permission: z.string(),
    status: z.enum(['success', 'error', 'cancelled']),
    units: z.int().describe('Price units; 0 unless the tool succeeded. In a correction: the difference.'),
    units_by_kind: z
      .record(z.string(), z.int())
      .optional()
      .describe(
        'In a model step (`model:<name>`) or the turn of an agent on another server (`agent:<name>`): its `input_tokens` and `output_tokens`.',
      ),
    estimated: z
      .literal(true)
      .optional()
      .describe('The model did not report its usage: `units_by_kind` and `units` are estimates.'),
    reported: z
      .literal(true)
      .optional()
      .describe('An agent on another server reported `units_by_kind`; nothing verifies the amounts.'),
    run_id: z.string().nullable(),
    thread_id: z.string().nullable(),
    request_id: z.string().nullable(),
    idempotency_key: z.string().nullable(),
    transport: z.string(),
    started_at: z.iso.datetime(),
    completed_at: z.iso.datetime(),
    duration_ms: z.int(),
    period: z.string().describe('Hour of `completed_at`, UTC.'),
    corrects: z.string().optional().describe('In a correction: the id of the corrected record.'),
    reason: z.string().optional().describe('In a correction: the reason.'),
    erases: z
      .array(z.tuple([z.int(), z.string()]).readonly())
      .readonly()
      .optional()
      .describe('In a redaction entry: sequence and SHA-256 of each erased record.'),
    salt: z.string().optional().describe('Key of the commitment to the personal fields.'),
    content_before: z.string().optional().describe('Digest of the previous record without its personal fields.'),
    personal: z.string().optional().describe('In an erased record: the commitment to its personal fields.'),
    erasure: z.int().optional().describe('In an erased record: the sequence of its redaction entry.'),
    hash: z
      .string()
      .describe(
        'SHA-256 of the previous hash, a line break, and this record without its hash; if erased, as it was before.',
      ),
  })
  .meta({ id: 'UsageRecord', examples: [RECORD_EXAMPLE] });

export const Window = z
  .object({
    window: z.string(),
    revision: z.int(),
    status: z.enum(['open', 'closed']),
    record_count: z.int(),
    totals: Measures,
    first_sequence: z.int(),
    last_sequence: z.int(),
    sha256: z.string().optional().describe('In a closed revision: of the ids of its records, each with a line break.'),
    closed_at: z.iso.datetime().optional(),
  })
  .meta({
    id: 'UsageWindow',
    examples: [
      {
        window: '2026-11-20T10',
        revision: 1,
        status: 'closed',
        record_count: 3,
        totals: MEASURES_EXAMPLE,
        first_sequence: 1,
        last_sequence: 3,
        sha256: '2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae',
        closed_at: '2026-11-20T11:15:02.000Z',
      },
    ],
  });

/**
 * Hours of a range, by default the last 24.
 * @throws TollgateError FORMAT_ERROR if the range is empty or longer than `MAX_HOURS`
 */
export function hoursOf({ from, to }: z.infer<typeof RangeQuery>, now: number): string[] {
  const end = to === undefined ? endOf(hourOf(now)) : timeOf('to', to);
  const start = from === undefined ? end - DEFAULT_HOURS * HOUR_MS : timeOf('from', from);
  if (start >= end) throw new TollgateError('FORMAT_ERROR', { text: '"from" must be before "to".' });
  if (end - start > MAX_HOURS * HOUR_MS) {
    throw new TollgateError('FORMAT_ERROR', { text: `A query can cover at most ${MAX_HOURS} hours.` });
  }
  return hoursBetween(start, end);
}

/** Start of an hour or day, in milliseconds. @throws TollgateError FORMAT_ERROR if it does not exist */
export function timeOf(name: string, text: string): number {
  try {
    return startOf(text.length === 'YYYY-MM-DD'.length ? `${text}T00` : text.slice(0, 'YYYY-MM-DDTHH'.length));
  } catch {
    throw new TollgateError('FORMAT_ERROR', { text: `"${name}" is not an existing hour.` });
  }
}
