import { Readable } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import { HOUR_MS, hourOf } from '../usage/hours.ts';
import type { CorrectionResult, Corrections } from '../usage/ledger/corrections.ts';
import type { Ledger } from '../usage/ledger/ledger.ts';
import type { Verifier } from '../usage/ledger/verifier.ts';
import { agrees, type ClosedRevision, RevisionSum, revisionsOf, type Windows } from '../usage/ledger/windows.ts';
import type { LedgerRecord, UsageRecord } from '../usage/records.ts';
import { EXPORT_FORMATS, RENDERERS } from '../usage/reports/renderers.ts';
import { DIMENSIONS, type Dimension, type Tallies } from '../usage/reports/tallies.ts';
import type { ServiceGuard } from './services.ts';
import { hoursOf, Measures, RangeQuery, Record, Refused, SERVICE, timeOf, Window } from './usage-schemas.ts';

const MAX_UNITS = 1_000_000_000;
/** Checks at once on this node: each takes a part of the time that its sockets need too. */
const MAX_VERIFYING = 2;
const VERIFYING_RETRY_MS = 2_000;
const DOCUMENTED = { tags: ['usage'], security: SERVICE };

const TallyQuery = RangeQuery.extend({
  user_id: z.string().min(1).max(128).optional(),
  group_by: z
    .string()
    .max(64)
    .default('')
    .describe(`Any of ${DIMENSIONS.join(', ')}, separated by commas; left out, everything is one row.`),
});
const TallyRow = Measures.extend({
  user: z.string().optional(),
  tool: z.string().optional(),
  plan: z.string().optional(),
  hour: z.string().optional(),
  day: z.string().optional(),
  refusals: z.int().describe('Calls that were refused and cost nothing.'),
});
const ExportQuery = z.object({
  format: z.enum(EXPORT_FORMATS),
  window: z.string().max(32).describe('The hour, UTC, e.g. 2026-11-20T10.'),
  revision: z.coerce.number().int().min(1).default(1).describe('What arrived late is in 2, 3, …'),
});
const CorrectionBody = z.strictObject({
  record_id: z.string().min(1).max(64),
  sequence: z.int().min(1),
  units: z
    .int()
    .min(-MAX_UNITS)
    .max(MAX_UNITS)
    .refine((units) => units !== 0, 'must not be 0')
    .describe('What is added to the units of the record; below 0 to take back.'),
  reason: z.string().min(1).max(500),
});
const CorrectionHeaders = z.object({ 'idempotency-key': z.string().min(1).max(255) });
const Verification = z.object({
  ok: z.boolean(),
  problem: z
    .object({
      kind: z.enum(['chain', 'window', 'tally', 'archive']),
      sequence: z.int().nullable(),
      record_id: z.string().nullable(),
      window: z.string().nullable(),
      what: z.string(),
    })
    .nullable()
    .describe('The first record that does not fit.'),
  checked_records: z.int(),
  checked_windows: z.int(),
  archive: z
    .enum(['none', 'compared', 'away'])
    .describe('Whether the records were compared with the second copy; `away` when it did not answer (any longer).'),
  archived_records: z.int().describe('Of the checked records, those that the second copy has too.'),
  unsettled: z
    .array(z.string())
    .readonly()
    .describe('Hours whose sums were not compared: records came in, or had been trimmed.'),
  next: z.string().nullable().describe('The hour to go on from, as `from`; null when all has been checked.'),
});

export interface UsageReportDeps {
  readonly guard: ServiceGuard;
  readonly ledger: Ledger;
  readonly windows: Windows;
  readonly tallies: Tallies;
  readonly corrections: Corrections;
  readonly verifier: Verifier;
  readonly clock: Clock;
}

/** What the ledger adds up to: tallies, windows, exports, corrections, and the proof. */
export function registerUsageReportRoutes(app: FastifyInstance, deps: UsageReportDeps): void {
  sumRoutes(app, deps);
  exportRoute(app, deps);
  correctionRoute(app, deps);
  verifyRoute(app, deps);
}

function sumRoutes(app: FastifyInstance, { guard, tallies, windows, clock }: UsageReportDeps): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.get(
    '/v1/usage/tallies',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...DOCUMENTED,
        summary: 'Counts, units, durations and refusals.',
        querystring: TallyQuery,
        response: {
          200: z.object({
            from: z.string(),
            to: z.string(),
            group_by: z.array(z.string()),
            tallies: z.array(TallyRow),
          }),
          400: Refused,
        },
      },
    },
    async ({ query }) => {
      const groupBy = dimensions(query.group_by);
      const hours = hoursOf(query, clock.now());
      return {
        ...ends(hours),
        group_by: groupBy,
        tallies: await tallies.query({ hours, userId: query.user_id, groupBy }),
      };
    },
  );
  routes.get(
    '/v1/usage/windows',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...DOCUMENTED,
        summary: 'Hourly windows, each revision by itself. Add them up: no record is in two.',
        querystring: RangeQuery,
        response: { 200: z.object({ from: z.string(), to: z.string(), windows: z.array(Window) }), 400: Refused },
      },
    },
    async ({ query }) => {
      const hours = hoursOf(query, clock.now());
      const views = await windows.read(hours);
      return { ...ends(hours), windows: views.flatMap(revisionsOf) };
    },
  );
}

/** As they were understood. */
function ends(hours: readonly string[]): { from: string; to: string } {
  const last = timeOf('to', hours.at(-1) ?? '');
  return { from: `${hours[0]}:00:00Z`, to: `${hourOf(last + HOUR_MS)}:00:00Z` };
}

function dimensions(text: string): Dimension[] {
  const names = text.split(',').filter((name) => name !== '');
  const valid = DIMENSIONS.filter((dimension) => names.includes(dimension));
  if (valid.length < new Set(names).size) {
    throw new TollgateError('FORMAT_ERROR', { text: `"group_by" takes ${DIMENSIONS.join(', ')}.` });
  }
  return valid;
}

function exportRoute(app: FastifyInstance, { guard, windows, ledger }: UsageReportDeps): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    '/v1/usage/export',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...DOCUMENTED,
        summary: 'One closed revision of a window, as another system takes it.',
        description:
          'cloudevents: one batch. stripe, openmeter, lago: one request body a line, none larger than the system takes.',
        querystring: ExportQuery,
        response: { 200: z.unknown(), 404: Refused, 409: Refused, 410: Refused },
      },
    },
    async ({ query }, reply) => {
      const view = await windows.view(hourOf(timeOf('window', query.window)));
      const revision = view.closed[query.revision - 1];
      if (!revision)
        throw new TollgateError(view.open?.revision === query.revision ? 'WINDOW_NOT_CLOSED' : 'WINDOW_NOT_FOUND');
      const { trimmed } = await ledger.head();
      if (revision.first_sequence <= trimmed.sequence) throw new TollgateError('RECORDS_TRIMMED');
      const { contentType, body } = RENDERERS[query.format];
      return reply
        .header('content-type', contentType)
        .header('x-record-count', revision.record_count)
        .header('x-window-sha256', revision.sha256)
        .send(Readable.from(body(whole(revision, windows))));
    },
  );
}

/**
 * The records of a revision. When they are not those that it was closed with, the answer is cut off: a body that ends
 * in order is complete.
 */
async function* whole(revision: ClosedRevision, windows: Windows): AsyncGenerator<LedgerRecord[]> {
  const found = new RevisionSum();
  for await (const records of windows.records(revision)) {
    for (const record of records) found.add(record);
    yield records;
  }
  if (!agrees(revision, found) || found.sha256() !== revision.sha256) {
    throw new Error(`the records of the window ${revision.window} are not those that it was closed with`);
  }
}

function correctionRoute(app: FastifyInstance, { guard, corrections }: UsageReportDeps): void {
  app.withTypeProvider<ZodTypeProvider>().post(
    '/v1/usage/corrections',
    {
      onRequest: guard.requires('usage:write'),
      schema: {
        ...DOCUMENTED,
        summary: 'Corrects a record by one that points at it. The same key gives the same answer.',
        headers: CorrectionHeaders,
        body: CorrectionBody,
        response: {
          201: z.object({ correction: Record.omit({ sequence: true, hash: true }) }),
          400: Refused,
          404: Refused,
          422: Refused,
        },
      },
    },
    async (request, reply) => {
      const { record_id: recordId, ...body } = request.body;
      const { serviceId } = guard.caller(request);
      const key = { serviceId, idempotencyKey: request.headers['idempotency-key'] };
      const result = await corrections.record(key, { ...body, recordId });
      return reply.status(201).send({ correction: recorded(result) });
    },
  );
}

function recorded(result: CorrectionResult): UsageRecord {
  if ('record' in result) return result.record;
  if (result.outcome === 'conflict') throw new TollgateError('IDEMPOTENCY_CONFLICT');
  if (result.outcome === 'missing') throw new TollgateError('RECORD_NOT_FOUND');
  if (result.outcome === 'correction') {
    throw new TollgateError('FORMAT_ERROR', { text: 'A correction is corrected by another one of the same record.' });
  }
  const { remaining } = result as { remaining: number };
  throw new TollgateError('FORMAT_ERROR', {
    text: `The record has ${remaining} units left to take back.`,
    fields: { units_left: remaining },
  });
}

function verifyRoute(app: FastifyInstance, { guard, verifier, clock }: UsageReportDeps): void {
  let running = 0;
  app.withTypeProvider<ZodTypeProvider>().get(
    '/v1/usage/verify',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...DOCUMENTED,
        summary: 'Recomputes chain, windows and tallies from the records; names the first that does not fit.',
        querystring: RangeQuery,
        response: { 200: Verification, 400: Refused },
      },
    },
    async ({ query }) => {
      const hours = hoursOf(query, clock.now());
      if (running >= MAX_VERIFYING) throw new TollgateError('OVERLOADED', { retryAfterMs: VERIFYING_RETRY_MS });
      running += 1;
      try {
        return await verifier.verify(hours);
      } finally {
        running -= 1;
      }
    },
  );
}
