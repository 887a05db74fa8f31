import { builtInAgent } from '../agents/built-in/built-in-agent.ts';
import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';
import type { Catalogues } from '../catalogue/catalogues.ts';
import type { Config } from '../config.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import type { Agent } from '../runs/agent.ts';
import type { Threads } from '../threads/threads.ts';

export interface AgentServices {
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly tracing: Tracing;
  /** Read at the start of each run, so that a reload applies to the next run. */
  readonly catalogues: Pick<Catalogues, 'tools'>;
  readonly agents: AgentCatalogue;
  readonly threads: Threads;
}

/** Returns the model agent if a model is configured, else the built-in agent. */
export async function composeAgent(
  { clock, metrics, logger, tracing, catalogues, agents, threads }: AgentServices,
  config: Pick<Config, 'AGENT_MODEL_URL' | 'AGENT_MODEL_KEY' | 'AGENT_MODEL_NAME'>,
): Promise<Agent> {
  const { AGENT_MODEL_URL: url, AGENT_MODEL_KEY: key, AGENT_MODEL_NAME: name } = config;
  if (url === undefined || name === undefined) return builtInAgent;
  // Loaded only if a model is configured: the client of the endpoint takes a quarter of a second and 26 MiB.
  const [{ ChatModel }, { createModelAgent }] = await Promise.all([
    import('../agents/model/chat-model.ts'),
    import('../agents/model/model-agent.ts'),
  ]);
  const model = new ChatModel({ url, key, clock, tracing });
  const deps = { model, agents, tools: catalogues.tools, threads, clock, metrics, logger, tracing };
  const modelAgent = createModelAgent(deps, name);
  // The model agent is not free, so it is not available to degraded sessions.
  return (task, context) => (task.degraded ? builtInAgent : modelAgent)(task, context);
}
