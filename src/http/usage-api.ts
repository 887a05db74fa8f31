import type { FastifyInstance, FastifyReply } from 'fastify';
import { z } from 'zod';
import type { Authenticator } from '../auth/authenticator.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Feed, Ledger, Page } from '../usage/ledger.ts';

const FeedQuery = z.object({
  cursor: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
  wait: z.coerce.number().int().min(0).max(20).default(0),
  user_id: z.string().min(1).max(128).optional(),
  tool: z.string().min(1).max(64).optional(),
});

/** A waiting reader looks this often: the ledger itself moves about twice a second. */
const LOOK_AGAIN_MS = 250;
const NDJSON = 'application/x-ndjson';

/** `GET /v1/usage/records`: the ledger as a feed, for services with the scope `usage:read`. */
export function usageRoutes(
  app: FastifyInstance,
  deps: { readonly authenticator: Authenticator; readonly ledger: Ledger; readonly clock: Clock },
): void {
  app.get('/v1/usage/records', async (request, reply) => {
    await deps.authenticator.service(request.headers, 'usage:read');
    const query = FeedQuery.safeParse(request.query);
    if (!query.success) throw new TollgateError('FORMAT_ERROR', { text: z.prettifyError(query.error) });
    const { user_id: userId, wait, ...feed } = query.data;
    const page = await readWaiting(deps, { ...feed, userId }, wait * 1000);
    return send(reply, page, request.headers.accept);
  });
}

/** The page, or the first that has a record within `waitMs`. */
async function readWaiting(
  { ledger, clock }: { readonly ledger: Ledger; readonly clock: Clock },
  feed: Feed,
  waitMs: number,
): Promise<Page> {
  const until = clock.now() + waitMs;
  let from = feed.cursor;
  for (;;) {
    const page = await ledger.read({ ...feed, cursor: from });
    if (page.records.length > 0 || page.gapDetected || clock.now() >= until) return page;
    // What a filter has passed over need not be looked at again.
    from = page.nextCursor;
    await sleep(clock, LOOK_AGAIN_MS);
  }
}

function send(reply: FastifyReply, page: Page, accept: string | undefined): FastifyReply {
  const { records, nextCursor, hasMore, gapDetected } = page;
  if (accept?.includes(NDJSON)) {
    return reply
      .header('content-type', NDJSON)
      .header('x-next-cursor', nextCursor)
      .header('x-has-more', String(hasMore))
      .header('x-gap-detected', String(gapDetected))
      .send(records.map((record) => `${JSON.stringify(record)}\n`).join(''));
  }
  return reply.send({ records, next_cursor: String(nextCursor), has_more: hasMore, gap_detected: gapDetected });
}
