import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { ERASURE_PHASES, type Erasure, Erasures } from '../accounts/erasures.ts';
import type { InvalidationReader } from '../accounts/invalidation-reader.ts';
import type { InvalidationDeps } from '../accounts/invalidations.ts';
import { UserData } from '../accounts/user-data.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { UsageArchive } from '../usage/archive/archive.ts';
import { Ledger } from '../usage/ledger/ledger.ts';
import { NDJSON } from '../usage/reports/renderers.ts';
import { type UsageOfUser, UserUsage } from '../usage/user-usage.ts';
import { userId } from './admin-routes.ts';
import { type IdentifyService, serviceGuard } from './services.ts';
import { Refused, SERVICE } from './usage-schemas.ts';

/** Exports of one node at a time: each reads the whole ledger. */
const MAX_EXPORTS = 2;
const TOO_MANY_RETRY_MS = 10_000;

const UserPath = z.object({ id: userId });
const ErasurePath = z.object({ id: z.string().regex(/^erased_[\w-]{1,64}$/) });
const ErasureState = z.object({
  erasure_id: z.string(),
  status: z.enum(['in_progress', 'done']),
  phase: z.enum(ERASURE_PHASES),
  waiting_for: z.string().nullable().describe('What the phase waits for; null while it goes on.'),
  pseudonym: z.string().describe('The `user_id` of the ledger records, which stay.'),
  requested_by: z.string(),
  requested_at: z.iso.datetime(),
  finished_at: z.iso.datetime().nullable(),
  counts: z.object({ records: z.int(), tally_rows: z.int(), keys: z.int() }),
});
const DOCUMENTED = { tags: ['user data'], security: SERVICE };

export interface UserDataRoutesDeps extends InvalidationDeps {
  readonly identifyService: IdentifyService;
  readonly invalidations: Pick<InvalidationReader, 'read'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The second copy of the ledger; undefined without one. */
  readonly archive: UsageArchive | undefined;
}

/** Export and erasure of what is stored of a user, with a service token of the scope `admin`. */
export function registerUserDataRoutes(app: FastifyInstance, deps: UserDataRoutesDeps): void {
  const guard = serviceGuard(deps.identifyService);
  const onRequest = guard.requires('admin');
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const audit = (request: FastifyRequest, fields: object, text: string) => {
    deps.logger.info({ service: guard.caller(request).serviceId, ...fields }, text);
  };
  const sources = { userData: new UserData(deps), usage: new UserUsage({ ...deps, ledger: new Ledger(deps) }) };
  const erasures = new Erasures(deps);
  let exports = 0;

  routes.get(
    '/v1/users/:id/data',
    {
      onRequest,
      schema: {
        ...DOCUMENTED,
        summary: 'Everything that is stored of a user, one JSON object a line.',
        description: `${NDJSON}: lines { section, id, data }, and a last line { section: "end", lines }. One without it was cut off.`,
        params: UserPath,
        response: { 200: z.unknown(), 400: Refused },
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      if (exports >= MAX_EXPORTS) throw new TollgateError('OVERLOADED', { retryAfterMs: TOO_MANY_RETRY_MS });
      audit(request, { user: userHash(id) }, 'user data exported');
      exports += 1;
      const body = Readable.from(lines(id, sources));
      body.once('close', () => {
        exports -= 1;
      });
      return reply.header('content-type', NDJSON).send(body);
    },
  );

  routes.delete(
    '/v1/users/:id/data',
    {
      onRequest,
      schema: {
        ...DOCUMENTED,
        summary: 'Begins the erasure of a user, or tells of the one in progress.',
        description: 'The user is blocked until it is done. Ledger records stay, under the pseudonym.',
        params: UserPath,
        response: { 202: ErasureState, 400: Refused },
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const { serviceId } = guard.caller(request);
      const erasure: Erasure = await erasures.begin(id, serviceId, deps.clock.now());
      // Without the user's hash: a log line must not join the pseudonym to the lines of before.
      audit(request, { erasure: erasure.erasure_id }, 'erasure requested');
      await deps.invalidations.read();
      return reply.status(202).send(erasure);
    },
  );

  routes.get(
    '/v1/erasures/:id',
    {
      onRequest,
      schema: {
        ...DOCUMENTED,
        summary: 'The state of an erasure; kept for 396 days, without the user.',
        params: ErasurePath,
        response: { 200: ErasureState, 400: Refused, 404: Refused },
      },
    },
    async ({ params }) => {
      const erasure = await erasures.read(params.id);
      if (!erasure) throw new TollgateError('RECORD_NOT_FOUND', { text: 'No such erasure.' });
      return erasure;
    },
  );
}

/** Fails, and so cuts the answer off, when Redis or the archive does. */
async function* lines(
  id: string,
  { userData, usage }: { readonly userData: UserData; readonly usage: UserUsage },
): AsyncGenerator<string> {
  let count = 0;
  for (const source of [userData.export(id), usage.of(id)]) {
    for await (const entry of source as AsyncGenerator<UsageOfUser>) {
      count += 1;
      yield `${JSON.stringify(entry)}\n`;
    }
  }
  yield `${JSON.stringify({ section: 'end', lines: count })}\n`;
}
