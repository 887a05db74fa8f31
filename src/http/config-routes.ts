import type { FastifyInstance } from 'fastify';
import type { Catalogues } from '../catalogue/catalogues.ts';
import type { Logger } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { IdentifyService } from './services.ts';

export interface ConfigRoutesDeps {
  readonly identifyService: IdentifyService;
  readonly catalogues: Pick<Catalogues, 'reload'>;
  readonly logger: Logger;
  /** Tells the other processes, once this one has found the files sound. */
  readonly onReload: () => Promise<void>;
}

/**
 * `POST /v1/config/reload`, for operators: plans and tools are read again, here and then everywhere. A file with a mistake
 * is refused with file, line and field of each, and nothing changes anywhere.
 */
export function registerConfigRoutes(app: FastifyInstance, deps: ConfigRoutesDeps): void {
  const schema = { tags: ['operations'], summary: 'Reads plans and tools again, here and on every node.' };
  app.post('/v1/config/reload', { schema }, async (request) => {
    const { serviceId } = await deps.identifyService(request, 'admin');
    deps.logger.info({ service: serviceId }, 'reload asked for');
    const result = deps.catalogues.reload();
    if (!result.reloaded) {
      const { version, mistakes } = result;
      const text = 'The catalogues are not usable; those from before go on.';
      throw new TollgateError('FORMAT_ERROR', { text, fields: { version, mistakes } });
    }
    await deps.onReload();
    return result;
  });
}
