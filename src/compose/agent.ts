import { builtInAgent } from '../agents/built-in/built-in-agent.ts';
import { createModelAgent, warnOfAdaptedTools } from '../agents/model/model-agent.ts';
import { Models } from '../agents/model/models.ts';
import { SchemaWarnings } from '../agents/model/tool-offers.ts';
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

type AgentConfig = Pick<
  Config,
  'AGENT_MODEL_URL' | 'AGENT_MODEL_KEY' | 'AGENT_MODEL_NAME' | 'ENVIRONMENT' | 'variable'
>;

/**
 * Returns an agent that answers with the model of each agent, and with the built-in agent for agents without a model.
 * @throws UnusableConfiguration for a model of agents.json that cannot be used
 */
export async function composeAgent(services: AgentServices, config: AgentConfig): Promise<Agent> {
  const { clock, metrics, logger, tracing, catalogues, agents, threads } = services;
  const { AGENT_MODEL_URL: url, AGENT_MODEL_KEY: key, AGENT_MODEL_NAME: name } = config;
  const models = new Models({ clock, tracing, logger }, agents, {
    endpoint: url === undefined ? undefined : { url, key },
    variable: config.variable,
    production: config.ENVIRONMENT === 'production',
  });
  // Every model is checked now, also those that no agent uses.
  const isUsed = [name, ...agents.models, ...agents.all.map(({ model }) => model)].filter(
    (model) => model !== undefined && models.get(model) !== undefined,
  );
  if (isUsed.length === 0) return builtInAgent;
  const { tools } = catalogues;
  const warnings = new SchemaWarnings(logger);
  const deps = { models, agents, tools, threads, clock, metrics, logger, tracing, warnings };
  warnOfAdaptedTools(deps, agents, name);
  const modelAgent = createModelAgent(deps, name);
  return (task, context) => {
    const model = task.model ?? name;
    // The model agent is not free, so it is not available to degraded sessions.
    const hasModel = model !== undefined && models.get(model) !== undefined && !task.degraded;
    return (hasModel ? modelAgent : builtInAgent)(task, context);
  };
}
