import { Catalogues, catalogueSources } from '../catalogue/catalogues.ts';
import type { Config } from '../config.ts';
import type { Clock } from '../lib/clock.ts';
import type { Closers } from '../lib/closers.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import { Upstreams } from '../upstreams/upstreams.ts';

/**
 * Share of a tool's timeout that a request to its server may take. The request to a hanging server then fails before
 * the timeout of the call, which would not count as a fault of the server.
 */
const SHARE_OF_TIMEOUT = 0.9;

export interface UpstreamServices {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  readonly closers: Closers;
}

/**
 * Composes the catalogues and the upstreams of a process that executes tools. The start does not wait for a tool
 * server; its tools become available after its first response.
 * @throws CatalogueError
 */
export function composeCatalogues(
  { closers, ...deps }: UpstreamServices,
  config: Pick<Config, 'CATALOGUE_DIR' | 'TOOL_SERVERS' | 'ENVIRONMENT' | 'TOOL_TIMEOUT_SECONDS' | 'variable'>,
  builtInTools: readonly string[],
): { catalogues: Catalogues; upstreams: Upstreams } {
  const upstreams = new Upstreams(deps);
  const catalogues = new Catalogues(catalogueSources(config.CATALOGUE_DIR, config.TOOL_SERVERS), {
    builtInTools,
    upstreamDescriptions: (tool) => upstreams.descriptions(tool),
    variable: config.variable,
    production: config.ENVIRONMENT === 'production',
    longestMs: config.TOOL_TIMEOUT_SECONDS * 1000 * SHARE_OF_TIMEOUT,
  });
  upstreams.adopt(catalogues.servers);
  closers.add('upstreams', () => upstreams.close());
  closers.add(
    'upstream reloads',
    catalogues.onReload(() => upstreams.adopt(catalogues.servers)),
  );
  return { catalogues, upstreams };
}
