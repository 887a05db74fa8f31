import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Catalogues } from '../catalogue/catalogues.ts';
import type { Logger } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import { SERVICE_ERRORS, serviceToken, typedRoutes } from './route-docs.ts';
import type { IdentifyService } from './services.ts';

const Reloaded = z
  .object({ reloaded: z.literal(true), version: z.string().describe('Version of the catalogues that are now in use.') })
  .meta({ id: 'Reloaded', examples: [{ reloaded: true, version: '5f2b6c0d9a41' }] });

export interface ConfigRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly catalogues: Pick<Catalogues, 'reload'>;
  readonly logger: Logger;
  /** Notifies the other processes, after this one has validated the files. */
  readonly onReload: () => Promise<void>;
}

/**
 * `POST /v1/config/reload`, with the scope `admin`: reloads the catalogues on this node, then on all others. If a file
 * is invalid, the error lists file, line and field of each mistake, and no process changes its catalogues.
 */
export function registerConfigRoutes(app: FastifyInstance, deps: ConfigRoutesDeps): void {
  typedRoutes(app).post(
    '/v1/config/reload',
    {
      schema: {
        operationId: 'reloadConfiguration',
        summary: 'Reload the catalogues',
        description: `Reads the catalogue files again on this node and, if they are valid, on every other node.
Otherwise responds with \`FORMAT_ERROR\`, whose \`mistakes\` list \`file\`, \`line\`, \`field\` and \`message\`;
nothing changes.`,
        tags: ['operations'],
        security: serviceToken('admin'),
        'x-errors': [...SERVICE_ERRORS, 'FORMAT_ERROR'],
        response: { 200: Reloaded },
      },
    },
    async (request) => {
      const { serviceId } = await deps.identifyService(request, 'admin');
      deps.logger.info({ service: serviceId }, 'reload requested');
      const result = deps.catalogues.reload();
      if (!result.reloaded) {
        const { version, mistakes } = result;
        const text = 'The catalogues are invalid; the previous ones remain in use.';
        throw new TollgateError('FORMAT_ERROR', { text, fields: { version, mistakes } });
      }
      await deps.onReload();
      return result;
    },
  );
}
