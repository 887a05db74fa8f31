import type { FastifyInstance, FastifyReply } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Consumers } from '../usage/ledger/consumers.ts';
import { decodeCursor, encodeCursor } from '../usage/ledger/feed-cursor.ts';
import type { Feed, Ledger, LedgerPosition, Page } from '../usage/ledger/ledger.ts';
import type { LedgerTail } from '../usage/ledger/ledger-tail.ts';
import { CLOUDEVENTS_BATCH, cloudEvent, NDJSON } from '../usage/reports/renderers.ts';
import type { ServiceGuard } from './services.ts';
import { Record, Refused, SERVICE } from './usage-schemas.ts';

const TOO_MANY_WAITING_RETRY_MS = 1_000;

const Cursor = z.string().max(64);
const FeedQuery = z.object({
  cursor: Cursor.default('').describe('`next_cursor` of the page before; left out for the beginning.'),
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
  wait: z.coerce.number().int().min(0).max(20).default(0).describe('Seconds to wait for a record when there is none.'),
  user_id: z.string().min(1).max(128).optional(),
  tool: z.string().min(1).max(256).optional().describe('Of steps of a model: `model:<name>`.'),
});
const FeedPage = z.object({
  records: z.array(Record),
  next_cursor: z.string(),
  has_more: z.boolean(),
  gap_detected: z.boolean().describe('Records after the cursor are gone, or the ledger is not the one it is of.'),
});
const ConsumerName = z.object({ consumer: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/) });
const ConsumerState = z.object({
  consumer: z.string(),
  sequence: z.int(),
  confirmed_at: z.iso.datetime(),
  service: z.string(),
});

export interface UsageRoutesDeps {
  readonly guard: ServiceGuard;
  readonly ledger: Ledger;
  readonly tail: LedgerTail;
  readonly consumers: Consumers;
  readonly clock: Clock;
}

/** `GET /v1/usage/records`: the ledger as a feed, and `/v1/usage/cursors`: who has how much of it. */
export function registerUsageRoutes(app: FastifyInstance, deps: UsageRoutesDeps): void {
  feedRoute(app, deps);
  cursorRoutes(app, deps);
}

function feedRoute(app: FastifyInstance, deps: UsageRoutesDeps): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    '/v1/usage/records',
    {
      onRequest: deps.guard.requires('usage:read'),
      schema: {
        summary: 'The ledger, in order. Reading twice gives the same bytes.',
        description: `Accept ${NDJSON} or ${CLOUDEVENTS_BATCH} for those forms; the cursor is in X-Next-Cursor then.`,
        tags: ['usage'],
        security: SERVICE,
        querystring: FeedQuery,
        response: { 200: FeedPage, 400: Refused },
      },
    },
    async (request, reply) => {
      const { cursor, user_id: userId, wait, ...filter } = request.query;
      const disconnected = new AbortController();
      reply.raw.once('close', () => disconnected.abort());
      const page = await readWaiting(
        deps,
        { ...filter, userId, after: position(cursor) },
        wait * 1000,
        disconnected.signal,
      );
      return send(reply, page, request.headers.accept ?? '');
    },
  );
}

/** The page, or the first that has a record within `waitMs`. @throws TollgateError OVERLOADED when too many wait */
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
    // What a filter has passed over need not be looked at again.
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

function cursorRoutes(app: FastifyInstance, { guard, consumers }: UsageRoutesDeps): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const shared = { tags: ['usage'], security: SERVICE };
  routes.get(
    '/v1/usage/cursors',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...shared,
        summary: 'The consumers, and what each has confirmed.',
        response: { 200: z.object({ consumers: z.array(ConsumerState) }) },
      },
    },
    async () => ({ consumers: await consumers.list() }),
  );
  routes.put(
    '/v1/usage/cursors/:consumer',
    {
      onRequest: guard.requires('usage:read'),
      schema: {
        ...shared,
        summary: 'Confirms that a consumer has everything up to a cursor. Nothing above the lowest is ever trimmed.',
        params: ConsumerName,
        body: z.object({ cursor: Cursor }),
        response: { 200: z.object({ consumer: z.string(), sequence: z.int() }), 400: Refused },
      },
    },
    async (request) => {
      const { consumer } = request.params;
      const confirmed = position(request.body.cursor);
      const outcome = await consumers.confirm(consumer, guard.caller(request).serviceId, confirmed);
      if (outcome === 'unknown') throw new TollgateError('FORMAT_ERROR', { text: 'The cursor is of another ledger.' });
      if (outcome === 'foreign')
        throw new TollgateError('PERMISSION_DENIED', { text: 'Another service has this name.' });
      if (outcome === 'full') throw new TollgateError('FORMAT_ERROR', { text: 'There are too many consumers.' });
      return { consumer, sequence: confirmed.sequence };
    },
  );
  routes.delete(
    '/v1/usage/cursors/:consumer',
    {
      onRequest: guard.requires('usage:write'),
      schema: {
        ...shared,
        summary: 'Forgets a consumer that is no more, so that it holds nothing back.',
        params: ConsumerName,
        response: { 204: z.null(), 404: Refused },
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
  if (!decoded) throw new TollgateError('FORMAT_ERROR', { text: '"cursor" must be one that an answer contained.' });
  return decoded;
}
