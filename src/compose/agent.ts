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
  /** As they are when a run begins: a reload shows in what the next run's model is offered. */
  readonly catalogues: Pick<Catalogues, 'tools'>;
  readonly agents: AgentCatalogue;
  readonly threads: Threads;
}

/** The agent on a model where one is configured, else the built-in one. */
export async function composeAgent(
  { clock, metrics, logger, tracing, catalogues, agents, threads }: AgentServices,
  config: Pick<Config, 'AGENT_MODEL_URL' | 'AGENT_MODEL_KEY' | 'AGENT_MODEL_NAME'>,
): Promise<Agent> {
  const { AGENT_MODEL_URL: url, AGENT_MODEL_KEY: key, AGENT_MODEL_NAME: name } = config;
  if (url === undefined || name === undefined) return builtInAgent;
  // Loaded only where it is used: the client of the endpoint takes a quarter of a second and 26 MiB.
  const [{ ChatModel }, { createModelAgent }] = await Promise.all([
    import('../agents/model/chat-model.ts'),
    import('../agents/model/model-agent.ts'),
  ]);
  const model = new ChatModel({ url, key, clock, tracing });
  const deps = { model, agents, tools: catalogues.tools, threads, clock, metrics, logger, tracing };
  const modelAgent = createModelAgent(deps, name);
  // A session that cannot be verified gets nothing that costs, and a model costs.
  return (task, context) => (task.caller.degraded ? builtInAgent : modelAgent)(task, context);
}
