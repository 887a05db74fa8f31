import { Readable } from 'node:stream';
import type { FastifyInstance } from 'fastify';
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
import { exportUsage } from '../usage/user-usage.ts';
import { UserPath } from './admin-schemas.ts';
import { SERVICE_ERRORS, serviceToken, typedRoutes } from './route-docs.ts';
import { type IdentifyService, type ServiceGuard, serviceGuard } from './services.ts';

/** Concurrent exports per node: each reads the whole ledger. */
const MAX_EXPORTS = 2;
const TOO_MANY_RETRY_MS = 10_000;

const ErasurePath = z.object({
  id: z
    .string()
    .regex(/^erased_[\w-]{1,64}$/)
    .meta({ description: 'Erasure id.', examples: ['erased_01j9z5b7'] }),
});
const ErasureState = z
  .object({
    erasure_id: z.string(),
    status: z.enum(['in_progress', 'done']),
    phase: z.enum(ERASURE_PHASES),
    waiting_for: z.string().nullable().describe('What the current phase waits for; null if it is not waiting.'),
    pseudonym: z.string().describe('The new `user_id` of the ledger records, which are kept.'),
    requested_by: z.string(),
    requested_at: z.iso.datetime(),
    finished_at: z.iso.datetime().nullable(),
    counts: z.object({ records: z.int(), tally_rows: z.int(), keys: z.int() }).describe('What has been erased so far.'),
  })
  .meta({
    id: 'Erasure',
    examples: [
      {
        erasure_id: 'erased_01j9z5b7',
        status: 'in_progress',
        phase: ERASURE_PHASES[0],
        waiting_for: null,
        pseudonym: 'erased_01j9z5b7',
        requested_by: 'support',
        requested_at: '2026-11-20T10:00:00.000Z',
        finished_at: null,
        counts: { records: 0, tally_rows: 0, keys: 0 },
      },
    ],
  });
const ExportLines = z.unknown().meta({
  type: 'string',
  examples: ['{"section":"tally","id":"2026-11-20T10","data":{"units":10}}\n{"section":"end","lines":1}\n'],
});
const DOCUMENTED = { tags: ['user data'], security: serviceToken('admin') };
const PATH_ERRORS = [...SERVICE_ERRORS, 'FORMAT_ERROR'] as const;

export interface UserDataRoutesDeps extends InvalidationDeps {
  readonly identifyService: IdentifyService;
  readonly invalidations: Pick<InvalidationReader, 'read'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The archive of the ledger; undefined if none is configured. */
  readonly archive: UsageArchive | undefined;
}

/** Export and erasure of the data of a user, with a service token with the scope `admin`. */
export function registerUserDataRoutes(app: FastifyInstance, deps: UserDataRoutesDeps): void {
  const guard = serviceGuard(deps.identifyService);
  const erasures = new Erasures(deps);
  exportRoute(app, deps, guard);
  eraseRoute(app, deps, guard, erasures);
  erasureRoute(app, guard, erasures);
}

function exportRoute(app: FastifyInstance, deps: UserDataRoutesDeps, guard: ServiceGuard): void {
  const ledger = new Ledger(deps);
  const userData = new UserData(deps);
  let exports = 0;
  typedRoutes(app).get(
    '/v1/users/:id/data',
    {
      onRequest: guard.requires('admin'),
      schema: {
        ...DOCUMENTED,
        operationId: 'exportUserData',
        summary: 'Export the data of a user',
        description: `Streams everything that is stored about the user, one JSON object \`{ section, id, data }\` per
line. The last line is \`{ "section": "end", "lines": n }\`; a response without it is incomplete.`,
        params: UserPath,
        'x-errors': PATH_ERRORS,
        response: { 200: { description: 'The data of the user.', content: { [NDJSON]: { schema: ExportLines } } } },
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      if (exports >= MAX_EXPORTS) throw new TollgateError('OVERLOADED', { retryAfterMs: TOO_MANY_RETRY_MS });
      deps.logger.info({ service: guard.caller(request).serviceId, user: userHash(id) }, 'user data exported');
      exports += 1;
      const body = Readable.from(lines([userData.export(id), exportUsage({ ...deps, ledger }, id)]));
      body.once('close', () => {
        exports -= 1;
      });
      return reply.header('content-type', NDJSON).send(body);
    },
  );
}

function eraseRoute(app: FastifyInstance, deps: UserDataRoutesDeps, guard: ServiceGuard, erasures: Erasures): void {
  typedRoutes(app).delete(
    '/v1/users/:id/data',
    {
      onRequest: guard.requires('admin'),
      schema: {
        ...DOCUMENTED,
        operationId: 'eraseUserData',
        summary: 'Erase the data of a user',
        description: `Starts the erasure, or returns the one in progress. The user is blocked until it is done. Ledger
records are kept under a pseudonym.`,
        params: UserPath,
        'x-errors': PATH_ERRORS,
        response: { 202: ErasureState },
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const { serviceId } = guard.caller(request);
      const erasure: Erasure = await erasures.begin(id, serviceId, deps.clock.now());
      // Without the hash of the user: a log line must not link the pseudonym to earlier lines.
      deps.logger.info({ service: serviceId, erasure: erasure.erasure_id }, 'erasure requested');
      await deps.invalidations.read();
      return reply.status(202).send(erasure);
    },
  );
}

function erasureRoute(app: FastifyInstance, guard: ServiceGuard, erasures: Erasures): void {
  typedRoutes(app).get(
    '/v1/erasures/:id',
    {
      onRequest: guard.requires('admin:read'),
      schema: {
        ...DOCUMENTED,
        security: serviceToken('admin:read'),
        operationId: 'getErasure',
        summary: 'Get the state of an erasure',
        description: 'Returns the state, which is kept for 396 days and does not contain the user id.',
        params: ErasurePath,
        'x-errors': [...PATH_ERRORS, 'RECORD_NOT_FOUND'],
        response: { 200: ErasureState },
      },
    },
    async ({ params }) => {
      const erasure = await erasures.read(params.id);
      if (!erasure) throw new TollgateError('RECORD_NOT_FOUND', { text: 'No such erasure.' });
      return erasure;
    },
  );
}

/** Lines of an export. Throws, and thereby aborts the response, if Redis or the archive fails. */
async function* lines(sources: readonly AsyncIterable<object>[]): AsyncGenerator<string> {
  let count = 0;
  for (const source of sources) {
    for await (const entry of source) {
      count += 1;
      yield `${JSON.stringify(entry)}\n`;
    }
  }
  yield `${JSON.stringify({ section: 'end', lines: count })}\n`;
}
