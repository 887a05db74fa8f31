import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';
import type { Catalogues } from '../catalogue/catalogues.ts';
import { Permissions } from '../catalogue/permissions.ts';
import type { UpstreamTool } from '../catalogue/tool-catalogue.ts';
import type { Config } from '../config.ts';
import type { UserLogWriter } from '../events/user-log-writer.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import { Quotas } from '../limits/quotas.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { Threads } from '../threads/threads.ts';
import type { QueueDepth } from '../tools/built-in/health-tools.ts';
import { CallStore } from '../tools/call-store.ts';
import { builtInExecutors } from '../tools/executors.ts';
import { ToolService } from '../tools/tool-service.ts';
import { upstreamExecutor } from '../tools/upstream-executor.ts';
import type { Upstreams } from '../upstreams/upstreams.ts';
import { RecentUsage } from '../usage/reports/recent-usage.ts';

/** Time for recording a call after its deadline; after that, its reservation expires. */
const RECORD_MARGIN_MS = 5_000;

export interface ToolServices {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly tracing: Tracing;
  readonly refusals: RefusalSink;
  readonly log: UserLogWriter;
  readonly catalogues: Catalogues;
  readonly agents: AgentCatalogue;
  readonly upstreams: Upstreams;
  readonly queueDepth: () => Promise<QueueDepth>;
}

export interface ComposedTools {
  readonly threads: Threads;
  readonly permissions: Permissions;
  readonly quotas: Quotas;
  readonly calls: CallStore;
  readonly service: ToolService;
}

/** Composes the execution of tools, for gateways and workers. */
export function composeTools(
  services: ToolServices,
  config: Pick<Config, 'ENVIRONMENT' | 'TOOL_TIMEOUT_SECONDS' | 'TOOL_CONCURRENCY'>,
): ComposedTools {
  const { redis, keys, clock, metrics, refusals, logger, tracing, log, upstreams, agents } = services;
  const { catalogues, queueDepth } = services;
  const { plans, tools } = catalogues;
  const timeoutMs = config.TOOL_TIMEOUT_SECONDS * 1000;
  const threads = new Threads({ redis, keys, log, clock });
  const usage = new RecentUsage({ redis, keys });
  const permissions = new Permissions({ plans, tools }, { environment: config.ENVIRONMENT });
  const quotaDeps = { redis, keys, plans, tools, permissions, metrics };
  const quotas = new Quotas(quotaDeps, { reservationMs: timeoutMs + RECORD_MARGIN_MS });
  const calls = new CallStore({ redis, keys, log });
  const executors = builtInExecutors({ redis, keys, clock, plans, agents, threads, usage, queueDepth });
  const upstream = (tool: UpstreamTool) => upstreamExecutor(upstreams, tool);
  const service = new ToolService(
    { tools, permissions, quotas, calls, executors, upstream, clock, metrics, refusals, logger, tracing },
    { timeoutMs, concurrency: config.TOOL_CONCURRENCY },
  );
  return { threads, permissions, quotas, calls, service };
}
