import { type AgentCatalogue, loadAgentCatalogue } from '../catalogue/agent-catalogue.ts';
import type { Catalogues } from '../catalogue/catalogues.ts';
import type { Config } from '../config.ts';
import { RecentRefusals } from '../figures/recent-refusals.ts';
import type { Clock } from '../lib/clock.ts';
import type { Closers } from '../lib/closers.ts';
import { connectRedis, disconnectRedis, type Redis } from '../redis/client.ts';
import { Keys } from '../redis/keys.ts';
import { watchRedis } from '../redis/latency.ts';
import type { Telemetry } from '../telemetry/telemetry.ts';
import { BUILT_IN_TOOLS } from '../tools/executors.ts';
import type { Upstreams } from '../upstreams/upstreams.ts';
import { composeCatalogues } from './catalogues.ts';

/** What all components of a gateway node use. */
export interface GatewayServices extends Telemetry {
  readonly nodeId: string;
  readonly clock: Clock;
  readonly closers: Closers;
  readonly keys: Keys;
  readonly redis: Redis;
  /** Receives the channels of the users and of the node. */
  readonly subscriber: Redis;
  /** Receives the channels of Socket.IO's adapter. */
  readonly adapterSubscriber: Redis;
  readonly catalogues: Catalogues;
  readonly upstreams: Upstreams;
  readonly agents: AgentCatalogue;
  readonly refusals: RecentRefusals;
  /** Drains and stops the process; undefined where the process is not that of a gateway alone. */
  readonly onDrainRequested?: (() => void) | undefined;
}

/** Opens the Redis connections and loads the catalogues. @throws CatalogueError */
export async function composeServices(
  config: Config,
  telemetry: Telemetry & Pick<GatewayServices, 'nodeId' | 'clock' | 'closers' | 'onDrainRequested'>,
): Promise<GatewayServices> {
  const { logger, closers } = telemetry;
  // First, so that errors in the catalogues are reported even if Redis is unavailable.
  const { catalogues, upstreams } = composeCatalogues(telemetry, config, BUILT_IN_TOOLS);
  const open = async (name: string, role: 'commands' | 'subscriber'): Promise<Redis> => {
    const connection = await connectRedis(config, role, logger);
    closers.add(name, () => disconnectRedis(connection));
    return connection;
  };
  const redis = await open('redis', 'commands');
  closers.add('redis watch', watchRedis(redis, telemetry));
  const keys = new Keys(config.REDIS_KEY_PREFIX);
  const refusals = new RecentRefusals({ ...telemetry, redis, keys });
  closers.add('refusals', () => refusals.stop());
  refusals.start();
  return {
    ...telemetry,
    keys,
    redis,
    refusals,
    subscriber: await open('subscriber', 'subscriber'),
    adapterSubscriber: await open('adapter subscriber', 'subscriber'),
    catalogues,
    upstreams,
    agents: loadAgentCatalogue(config.CATALOGUE_DIR),
  };
}
