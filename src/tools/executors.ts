import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';
import type { Plans } from '../catalogue/plans.ts';
import type { Clock } from '../lib/clock.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import type { Threads } from '../threads/threads.ts';
import type { RecentUsage } from '../usage/reports/recent-usage.ts';
import { agentTools } from './built-in/agent-tools.ts';
import { costTools } from './built-in/cost-tools.ts';
import { healthTools, type QueueDepth } from './built-in/health-tools.ts';
import { metricsTools } from './built-in/metrics-tools.ts';
import { threadTools } from './built-in/thread-tools.ts';
import { workloadTools } from './built-in/workload-tools.ts';
import type { ToolExecutor } from './tool.ts';

export interface ExecutorDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly plans: Plans;
  readonly agents: AgentCatalogue;
  readonly threads: Threads;
  readonly usage: RecentUsage;
  readonly queueDepth: () => Promise<QueueDepth>;
}

/** Names allowed for entries of tools.json with the executor `builtin`. */
export const BUILT_IN_TOOLS = [
  'create_thread',
  'get_thread_history',
  'list_agents',
  'get_agent_status',
  'analyze_workload',
  'cost_analyzer',
  'latency_analyzer',
  'system_health',
  'get_metrics',
] as const;
type BuiltInTool = (typeof BUILT_IN_TOOLS)[number];

/** Returns the executor of each built-in tool, by its name in the catalogue. */
export function builtInExecutors(deps: ExecutorDeps): Readonly<Record<BuiltInTool, ToolExecutor>> {
  return {
    ...threadTools(deps),
    ...agentTools(deps),
    ...workloadTools(deps),
    ...costTools(deps),
    ...healthTools(deps),
    ...metricsTools(deps),
  };
}
