import { Readable } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { LedgerRecord, UsageRecord } from '../protocol/usage.ts';
import { HOUR_MS, hourOf } from '../usage/hours.ts';
import type { CorrectionResult, Corrections } from '../usage/ledger/corrections.ts';
import type { Ledger } from '../usage/ledger/ledger.ts';
import type { Verifier } from '../usage/ledger/verifier.ts';
import { agrees, type ClosedRevision, RevisionSum, revisionsOf, type Windows } from '../usage/ledger/windows.ts';
import { CLOUDEVENTS_BATCH, EXPORT_FORMATS, NDJSON, RENDERERS } from '../usage/reports/renderers.ts';
import { DIMENSIONS, type Dimension, type Tallies } from '../usage/reports/tallies.ts';
import { BODY_ERRORS, SERVICE_ERRORS, serviceToken, typedRoutes } from './route-docs.ts';
import type { ServiceGuard } from './services.ts';
import {
  hoursOf,
  MEASURES_EXAMPLE,
  Measures,
  RangeQuery,
  RECORD_EXAMPLE,
  Record,
  timeOf,
  Window,
} from './usage-schemas.ts';

const MAX_UNITS = 1_000_000_000;
/** Concurrent verifications per node: they use CPU time that the node's sockets need too. */
const MAX_VERIFYING = 2;
const VERIFYING_RETRY_MS = 2_000;
const READ = { tags: ['usage'], security: serviceToken('usage:read') };
const QUERY_ERRORS = [...SERVICE_ERRORS, 'FORMAT_ERROR'] as const;
const RANGE_EXAMPLE = { from: '2026-11-20T10:00:00Z', to: '2026-11-20T11:00:00Z' };

const TallyQuery = RangeQuery.extend({
  user_id: z.string().min(1).max(2_400).optional().describe('Only this user.'),
  group_by: z
    .string()
    .max(64)
    .default('')
    .describe(`Any of ${DIMENSIONS.join(', ')}, separated by commas. Omit it to get one row.`),
});
const TallyRow = Measures.extend({
  user: z.string().optional(),
  tool: z.string().optional(),
  plan: z.string().optional(),
  hour: z.string().optional(),
  day: z.string().optional(),
  refusals: z.int().describe('Tool calls that were denied; they are not charged.'),
});
const EventBatch = z.unknown().meta({ type: 'array', items: { type: 'object' }, examples: [[{ specversion: '1.0' }]] });
const RequestBodies = z.unknown().meta({ type: 'string', examples: ['{"events":[]}\n'] });
const ExportQuery = z.object({
  format: z.enum(EXPORT_FORMATS).meta({ description: 'Format of the receiving system.', examples: ['cloudevents'] }),
  window: z
    .string()
    .max(32)
    .meta({ description: 'The hour, UTC.', examples: ['2026-11-20T10'] }),
  revision: z.coerce.number().int().min(1).default(1).describe('Late records are in revisions 2, 3, …'),
});
const CorrectionBody = z
  .strictObject({
    record_id: z.string().min(1).max(64).describe('Id of the record to correct.'),
    sequence: z.int().min(1).describe('Its position in the ledger.'),
    units: z
      .int()
      .min(-MAX_UNITS)
      .max(MAX_UNITS)
      .refine((units) => units !== 0, 'must not be 0')
      .describe('Difference to the units of the record; negative to reduce them.'),
    reason: z.string().min(1).max(500),
  })
  .meta({
    id: 'Correction',
    examples: [{ record_id: RECORD_EXAMPLE.id, sequence: 1, units: -10, reason: 'Wrong result, ticket 4711.' }],
  });
const { sequence: _sequence, hash: _hash, ...CORRECTED } = RECORD_EXAMPLE;
const Corrected = z.object({ correction: Record.omit({ sequence: true, hash: true }) }).meta({
  id: 'RecordedCorrection',
  examples: [
    {
      correction: {
        ...CORRECTED,
        id: 'use_01j9z4a1',
        units: -10,
        corrects: RECORD_EXAMPLE.id,
        reason: 'Wrong result, ticket 4711.',
      },
    },
  ],
});
const CorrectionHeaders = z.object({
  'idempotency-key': z
    .string()
    .min(1)
    .max(255)
    .meta({ description: 'Name of this correction, chosen by the client.', examples: ['ticket-4711'] }),
});
const TallyReport = z
  .object({ from: z.string(), to: z.string(), group_by: z.array(z.string()), tallies: z.array(TallyRow) })
  .meta({
    id: 'TallyReport',
    examples: [
      {
        ...RANGE_EXAMPLE,
        group_by: ['tool'],
        tallies: [{ tool: RECORD_EXAMPLE.tool, ...MEASURES_EXAMPLE, refusals: 1 }],
      },
    ],
  });
const WindowReport = z
  .object({ from: z.string(), to: z.string(), windows: z.array(Window) })
  .meta({ id: 'WindowReport', examples: [{ ...RANGE_EXAMPLE, windows: [] }] });

const Verification = z
  .object({
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
      .describe('The first contradiction; null if there is none.'),
    checked_records: z.int(),
    checked_windows: z.int(),
    archive: z
      .enum(['none', 'compared', 'away'])
      .describe(
        'Whether the records were compared with the archive; `away` if it did not respond, or stopped responding.',
      ),
    archived_records: z.int().describe('Checked records that the archive contains too.'),
    unsettled: z
      .array(z.string())
      .readonly()
      .describe('Hours whose tallies were not compared, because records arrived meanwhile or had been trimmed.'),
    next: z.string().nullable().describe('The next hour to check, as `from`; null if all hours were checked.'),
  })
  .meta({
    id: 'Verification',
    examples: [
      {
        ok: true,
        problem: null,
        checked_records: 120,
        checked_windows: 24,
        archive: 'compared',
        archived_records: 120,
        unsettled: [],
        next: null,
      },
    ],
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

/** Routes for tallies, windows, exports, corrections and the verification of the ledger. */
export function registerUsageReportRoutes(app: FastifyInstance, deps: UsageReportDeps): void {
  sumRoutes(app, deps);
  exportRoute(app, deps);
  correctionRoute(app, deps);
  verifyRoute(app, deps);
}

function sumRoutes(app: FastifyInstance, { guard, tallies, windows, clock }: UsageReportDeps): void {
  const routes = typedRoutes(app);
  routes.get(
    '/v1/usage/tallies',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...READ,
        operationId: 'getUsageTallies',
        summary: 'Get tallies',
        description: 'Returns executions, units, durations and refusals of a range of hours, grouped as requested.',
        querystring: TallyQuery,
        'x-errors': QUERY_ERRORS,
        response: { 200: TallyReport },
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
        ...READ,
        operationId: 'listUsageWindows',
        summary: 'List windows',
        description: 'Lists the hourly windows with all revisions. Each record is in exactly one, so revisions add up.',
        querystring: RangeQuery,
        'x-errors': QUERY_ERRORS,
        response: { 200: WindowReport },
      },
    },
    async ({ query }) => {
      const hours = hoursOf(query, clock.now());
      const views = await windows.read(hours);
      return { ...ends(hours), windows: views.flatMap(revisionsOf) };
    },
  );
}

/** The range as the query was interpreted. */
function ends(hours: readonly string[]): { from: string; to: string } {
  const last = timeOf('to', hours.at(-1) ?? '');
  return { from: `${hours[0]}:00:00Z`, to: `${hourOf(last + HOUR_MS)}:00:00Z` };
}

function dimensions(text: string): Dimension[] {
  const names = text.split(',').filter((name) => name !== '');
  const valid = DIMENSIONS.filter((dimension) => names.includes(dimension));
  if (valid.length < new Set(names).size) {
    throw new TollgateError('FORMAT_ERROR', { text: `"group_by" accepts ${DIMENSIONS.join(', ')}.` });
  }
  return valid;
}

function exportRoute(app: FastifyInstance, { guard, windows, ledger }: UsageReportDeps): void {
  typedRoutes(app).get(
    '/v1/usage/export',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...READ,
        operationId: 'exportUsageWindow',
        summary: 'Export a closed revision of a window',
        description: `Returns the records in the format of another system: \`cloudevents\` as one batch; \`stripe\`,
\`openmeter\` and \`lago\` as one request body per line, none larger than that system accepts. \`X-Record-Count\` and
\`X-Window-SHA256\` identify the revision. A response that ends without an error is complete.`,
        querystring: ExportQuery,
        'x-errors': [...QUERY_ERRORS, 'WINDOW_NOT_FOUND', 'WINDOW_NOT_CLOSED', 'RECORDS_TRIMMED'],
        response: {
          200: {
            description: 'The records of the revision.',
            content: { [CLOUDEVENTS_BATCH]: { schema: EventBatch }, [NDJSON]: { schema: RequestBodies } },
          },
        },
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
 * The records of a revision. Throws at the end if they are not those with which it was closed; the connection is then
 * aborted, so a body that ends normally is complete.
 */
async function* whole(revision: ClosedRevision, windows: Windows): AsyncGenerator<LedgerRecord[]> {
  const found = new RevisionSum();
  for await (const records of windows.records(revision)) {
    for (const record of records) found.add(record);
    yield records;
  }
  if (!agrees(revision, found) || found.sha256() !== revision.sha256) {
    throw new Error(`the records of window ${revision.window} differ from those with which it was closed`);
  }
}

function correctionRoute(app: FastifyInstance, { guard, corrections }: UsageReportDeps): void {
  typedRoutes(app).post(
    '/v1/usage/corrections',
    {
      onRequest: guard.requires('usage:write'),
      schema: {
        tags: ['usage'],
        security: serviceToken('usage:write'),
        operationId: 'createUsageCorrection',
        summary: 'Correct a usage record',
        description: `Appends a record that changes the units of an earlier one. A repetition with the same
\`Idempotency-Key\` returns the first response.`,
        headers: CorrectionHeaders,
        body: CorrectionBody,
        'x-errors': [...SERVICE_ERRORS, ...BODY_ERRORS, 'RECORD_NOT_FOUND', 'IDEMPOTENCY_CONFLICT'],
        response: { 201: Corrected },
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
    throw new TollgateError('FORMAT_ERROR', { text: 'A correction cannot be corrected: correct its record again.' });
  }
  const { remaining } = result as { remaining: number };
  throw new TollgateError('FORMAT_ERROR', {
    text: `The record has only ${remaining} units left to subtract.`,
    fields: { units_left: remaining },
  });
}

function verifyRoute(app: FastifyInstance, { guard, verifier, clock }: UsageReportDeps): void {
  let running = 0;
  typedRoutes(app).get(
    '/v1/usage/verify',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...READ,
        operationId: 'verifyUsage',
        summary: 'Verify the ledger',
        description: 'Recomputes hash chain, windows and tallies from the records and returns the first contradiction.',
        querystring: RangeQuery,
        'x-errors': QUERY_ERRORS,
        response: { 200: Verification },
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
