import type { FastifyInstance, FastifyReply } from 'fastify';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Consumers } from '../usage/ledger/consumers.ts';
import { decodeCursor, encodeCursor } from '../usage/ledger/feed-cursor.ts';
import type { Feed, Ledger, LedgerPosition, Page } from '../usage/ledger/ledger.ts';
import type { LedgerTail } from '../usage/ledger/ledger-tail.ts';
import { newestFirst } from '../usage/ledger/newest-first.ts';
import { CLOUDEVENTS_BATCH, cloudEvent, NDJSON } from '../usage/reports/renderers.ts';
import { BODY_ERRORS, SERVICE_ERRORS, serviceToken, typedRoutes } from './route-docs.ts';
import type { ServiceGuard } from './services.ts';
import { RECORD_EXAMPLE, Record } from './usage-schemas.ts';

const TOO_MANY_WAITING_RETRY_MS = 1_000;

/** Errors of routes whose parameters have a schema. */
const QUERY_ERRORS = [...SERVICE_ERRORS, 'FORMAT_ERROR'] as const;

const Cursor = z.string().max(64);
const time = z.iso.datetime({ offset: true }).optional();
const FeedQuery = z.object({
  cursor: Cursor.default('').describe('`next_cursor` of the previous page; omit it to start at the beginning.'),
  limit: z.coerce.number().int().min(1).max(1_000).default(100).describe('Records per page.'),
  wait: z.coerce.number().int().min(0).max(20).default(0).describe('Seconds to wait for a record if there is none.'),
  user_id: z.string().min(1).max(2_400).optional().describe('Only records of this user.'),
  tool: z.string().min(1).max(256).optional().describe('Only records of this tool; model steps have `model:<name>`.'),
  from: time.describe('Only records that were completed from this time on.'),
  to: time.describe('Only records that were completed before this time.'),
  order: z
    .enum(['asc', 'desc'])
    .default('asc')
    .describe('`desc`: newest first, to look at; pages then change while records are added, and `wait` has no effect.'),
});
const FeedPage = z
  .object({
    records: z.array(Record),
    next_cursor: z.string(),
    has_more: z.boolean(),
    gap_detected: z.boolean().describe('Records after the cursor were trimmed, or the cursor is from another ledger.'),
  })
  .meta({
    id: 'UsageRecordPage',
    examples: [{ records: [RECORD_EXAMPLE], next_cursor: 'MTo5Zjg2ZDA4MQ', has_more: false, gap_detected: false }],
  });
const ConsumerName = z.object({
  consumer: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/)
    .meta({ description: 'Name of a billing system that reads the feed.', examples: ['erp'] }),
});
const ConsumerState = z.object({
  consumer: z.string(),
  sequence: z.int().describe('Position of the last confirmed record.'),
  confirmed_at: z.iso.datetime(),
  service: z.string().describe('Id of the service that owns the name.'),
});
const ConsumerStates = z.object({ consumers: z.array(ConsumerState) }).meta({
  id: 'UsageConsumers',
  examples: [
    { consumers: [{ consumer: 'erp', sequence: 120, confirmed_at: '2026-11-20T10:00:00.000Z', service: 'billing' }] },
  ],
});
const Confirmation = z.object({ cursor: Cursor.describe('`next_cursor` of the last page that was processed.') }).meta({
  id: 'CursorConfirmation',
  examples: [{ cursor: 'MTo5Zjg2ZDA4MQ' }],
});
const Confirmed = z
  .object({ consumer: z.string(), sequence: z.int() })
  .meta({ id: 'ConfirmedCursor', examples: [{ consumer: 'erp', sequence: 120 }] });

const asText = (description: string, example: string) => ({
  schema: z.unknown().meta({ type: 'string', description, examples: [example] }),
});
const CloudEvents = z.unknown().meta({
  id: 'UsageRecordEvents',
  type: 'array',
  items: { type: 'object' },
  description: 'A batch of CloudEvents; `data` is the record.',
  examples: [
    [
      {
        specversion: '1.0',
        id: RECORD_EXAMPLE.id,
        source: 'tollgate',
        type: 'tollgate.usage.recorded',
        data: RECORD_EXAMPLE,
      },
    ],
  ],
});
const LINE = `${JSON.stringify(RECORD_EXAMPLE)}\n`;

export interface UsageRoutesDeps {
  readonly guard: ServiceGuard;
  readonly ledger: Ledger;
  readonly tail: LedgerTail;
  readonly consumers: Consumers;
  readonly clock: Clock;
}

/**
 * `GET /v1/usage/records`, the ledger as a feed, and `/v1/usage/cursors`, the positions that consumers have confirmed.
 */
export function registerUsageRoutes(app: FastifyInstance, deps: UsageRoutesDeps): void {
  feedRoute(app, deps);
  consumersRoute(app, deps);
  confirmRoute(app, deps);
  forgetRoute(app, deps);
}

function feedRoute(app: FastifyInstance, deps: UsageRoutesDeps): void {
  typedRoutes(app).get(
    '/v1/usage/records',
    {
      onRequest: deps.guard.requires('usage:read'),
      schema: {
        operationId: 'listUsageRecords',
        summary: 'List usage records',
        description: `Returns the records of the ledger in order; the same cursor always returns the same bytes. With
\`Accept: ${NDJSON}\` or \`${CLOUDEVENTS_BATCH}\`, the cursor is in the header \`X-Next-Cursor\`.`,
        tags: ['usage'],
        security: serviceToken('usage:read'),
        querystring: FeedQuery,
        'x-errors': QUERY_ERRORS,
        response: {
          200: {
            description: 'A page of records.',
            content: {
              'application/json': { schema: FeedPage },
              [NDJSON]: asText('One record per line.', LINE),
              [CLOUDEVENTS_BATCH]: { schema: CloudEvents },
            },
          },
        },
      },
    },
    async (request, reply) => {
      const { cursor, user_id: userId, wait, limit, tool, from, to, order } = request.query;
      const filter = { userId, tool, from: utc(from), to: utc(to), limit };
      if (order === 'desc') {
        const page = await newestFirst(deps.ledger, { ...filter, before: position(cursor) });
        return send(reply, page, request.headers.accept ?? '');
      }
      const disconnected = new AbortController();
      reply.raw.once('close', () => disconnected.abort());
      const page = await readWaiting(deps, { ...filter, after: position(cursor) }, wait * 1000, disconnected.signal);
      return send(reply, page, request.headers.accept ?? '');
    },
  );
}

/** The time in the form of the records. */
function utc(time: string | undefined): string | undefined {
  return time && new Date(time).toISOString();
}

/**
 * Returns the page; while it is empty, the first page with a record within `waitMs`.
 * @throws TollgateError OVERLOADED if too many requests wait on this node
 */
async function readWaiting(
  { ledger, tail, clock }: UsageRoutesDeps,
  feed: Feed,
  waitMs: number,
  disconnected: AbortSignal,
): Promise<Page> {
  const until = clock.now() + waitMs;
  let { after } = feed;
  for (;;) {
    const page = await ledger.read({ ...feed, after });
    const remainingMs = until - clock.now();
    if (page.records.length > 0 || page.hasMore || page.gapDetected || remainingMs <= 0 || disconnected.aborted)
      return page;
    if (tail.full) throw new TollgateError('OVERLOADED', { retryAfterMs: TOO_MANY_WAITING_RETRY_MS });
    // Records that the filter excluded are not read again.
    after = page.end;
    await tail.beyond(after.sequence, remainingMs, disconnected);
  }
}

function send(reply: FastifyReply, page: Page, accept: string): FastifyReply {
  const { records, end, hasMore, gapDetected } = page;
  const cursor = encodeCursor(end);
  reply.header('vary', 'Accept');
  const type = [NDJSON, CLOUDEVENTS_BATCH].find((form) => accept.includes(form));
  if (type === undefined) {
    return reply.send({ records, next_cursor: cursor, has_more: hasMore, gap_detected: gapDetected });
  }
  reply
    .header('content-type', type)
    .header('x-next-cursor', cursor)
    .header('x-has-more', String(hasMore))
    .header('x-gap-detected', String(gapDetected));
  if (type === NDJSON) return reply.send(records.map((record) => `${JSON.stringify(record)}\n`).join(''));
  return reply.send(JSON.stringify(records.map(cloudEvent)));
}

function documented(scope: string) {
  return { tags: ['usage'], security: serviceToken(scope) };
}

function consumersRoute(app: FastifyInstance, { guard, consumers }: UsageRoutesDeps): void {
  typedRoutes(app).get(
    '/v1/usage/cursors',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...documented('usage:read'),
        operationId: 'listUsageConsumers',
        summary: 'List consumers',
        description: 'Lists the consumers of the feed with the position that each has confirmed.',
        'x-errors': SERVICE_ERRORS,
        response: { 200: ConsumerStates },
      },
    },
    async () => ({ consumers: await consumers.list() }),
  );
}

function confirmRoute(app: FastifyInstance, { guard, consumers }: UsageRoutesDeps): void {
  typedRoutes(app).put(
    '/v1/usage/cursors/:consumer',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...documented('usage:read'),
        operationId: 'confirmUsageCursor',
        summary: 'Confirm a cursor',
        description: 'Confirms all records up to the cursor. Records after the lowest confirmed one are never trimmed.',
        params: ConsumerName,
        body: Confirmation,
        'x-errors': [...SERVICE_ERRORS, ...BODY_ERRORS],
        response: { 200: Confirmed },
      },
    },
    async (request) => {
      const { consumer } = request.params;
      const confirmed = position(request.body.cursor);
      const outcome = await consumers.confirm(consumer, guard.caller(request).serviceId, confirmed);
      if (outcome === 'unknown')
        throw new TollgateError('FORMAT_ERROR', { text: 'The cursor is from another ledger.' });
      if (outcome === 'foreign')
        throw new TollgateError('PERMISSION_DENIED', { text: 'Another service owns this consumer name.' });
      if (outcome === 'full') throw new TollgateError('FORMAT_ERROR', { text: 'There are too many consumers.' });
      return { consumer, sequence: confirmed.sequence };
    },
  );
}

function forgetRoute(app: FastifyInstance, { guard, consumers }: UsageRoutesDeps): void {
  typedRoutes(app).delete(
    '/v1/usage/cursors/:consumer',
    {
      onRequest: guard.requires('usage:write'),
      schema: {
        ...documented('usage:write'),
        operationId: 'deleteUsageConsumer',
        summary: 'Delete a consumer',
        description: 'Removes a consumer that no longer reads, so that it does not prevent trimming.',
        params: ConsumerName,
        'x-errors': [...QUERY_ERRORS, 'RECORD_NOT_FOUND'],
        response: { 204: z.null().describe('The consumer was deleted.') },
      },
    },
    async (request, reply) => {
      if (!(await consumers.forget(request.params.consumer)))
        throw new TollgateError('RECORD_NOT_FOUND', { text: 'No such consumer.' });
      return reply.status(204).send(null);
    },
  );
}

function position(cursor: string): LedgerPosition {
  const decoded = decodeCursor(cursor);
  if (!decoded)
    throw new TollgateError('FORMAT_ERROR', { text: '"cursor" must be a value that a response contained.' });
  return decoded;
}
