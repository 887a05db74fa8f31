import type { Config } from '../config.ts';
import type { EventLog } from '../events/event-log.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import type { Catalogues } from '../policy/catalogues.ts';
import { Permissions } from '../policy/permissions.ts';
import { Quotas } from '../policy/quotas.ts';
import type { UpstreamTool } from '../policy/tool-catalogue.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import type { Upstreams } from '../upstreams/upstreams.ts';
import { RecentUsage } from '../usage/recent-usage.ts';
import type { AgentCatalogue } from './agent-catalogue.ts';
import { Threads } from './threads.ts';
import { ToolCalls } from './tool-calls.ts';
import { ToolService } from './tool-service.ts';
import { builtInExecutors } from './tools/executors.ts';
import type { QueueDepth } from './tools/health-tools.ts';
import { upstreamExecutor } from './tools/upstream-tools.ts';

/** After its deadline a call has this long to be recorded, before it counts as dead. */
const SETTLE_MARGIN_MS = 5_000;

export interface ToolParts {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly tracing: Tracing;
  readonly log: EventLog;
  readonly catalogues: Catalogues;
  readonly agents: AgentCatalogue;
  readonly upstreams: Upstreams;
  readonly queueDepth: () => Promise<QueueDepth>;
}

/** Everything that a process needs to execute tools; gateways and workers have the same. */
export function assembleTools(
  parts: ToolParts,
  config: Pick<Config, 'ENVIRONMENT' | 'TOOL_TIMEOUT_SECONDS' | 'TOOL_CONCURRENCY'>,
) {
  const { redis, keys, clock, metrics, logger, tracing, log, catalogues, upstreams, agents, queueDepth } = parts;
  const { plans, tools } = catalogues;
  const timeoutMs = config.TOOL_TIMEOUT_SECONDS * 1000;
  const threads = new Threads({ redis, keys, log, clock });
  const usage = new RecentUsage({ redis, keys });
  const permissions = new Permissions({ plans, tools }, { environment: config.ENVIRONMENT });
  const quotaDeps = { redis, keys, plans, tools, permissions, metrics };
  const quotas = new Quotas(quotaDeps, { placeMs: timeoutMs + SETTLE_MARGIN_MS });
  const calls = new ToolCalls({ redis, keys, log });
  const executors = builtInExecutors({ redis, keys, clock, plans, agents, threads, usage, queueDepth });
  const upstream = (tool: UpstreamTool) => upstreamExecutor(upstreams, tool);
  const service = new ToolService(
    { tools, permissions, quotas, calls, executors, upstream, clock, metrics, logger, tracing },
    { timeoutMs, concurrency: config.TOOL_CONCURRENCY },
  );
  return { threads, permissions, quotas, calls, service };
}
