import { builtInAgent } from '../agents/built-in/built-in-agent.ts';
import { createModelAgent, warnOfAdaptedTools } from '../agents/model/model-agent.ts';
import { Models } from '../agents/model/models.ts';
import { SchemaWarnings } from '../agents/model/tool-offers.ts';
import { RemoteAgents, type RemoteAgentsDeps } from '../agents/remote/remote-agents.ts';
import { type AgentCatalogue, isRemote } from '../catalogue/agent-catalogue.ts';
import type { Catalogues } from '../catalogue/catalogues.ts';
import type { Config } from '../config.ts';
import type { Clock } from '../lib/clock.ts';
import type { Closers } from '../lib/closers.ts';
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
  /** Absent in a process that starts no remote agent's tools. */
  readonly toolAccess?: RemoteAgentsDeps['toolAccess'];
  readonly closers?: Closers;
}

type AgentConfig = Pick<
  Config,
  'AGENT_MODEL_URL' | 'AGENT_MODEL_KEY' | 'AGENT_MODEL_NAME' | 'ENVIRONMENT' | 'variable'
>;

/**
 * Returns an agent that passes each task to the server of its agent, to its model, or to the built-in agent.
 * @throws UnusableConfiguration for an agent or model of agents.json that cannot be used
 */
export async function composeAgent(services: AgentServices, config: AgentConfig): Promise<Agent> {
  const { agents, closers, toolAccess = () => undefined } = services;
  const references = { variable: config.variable, production: config.ENVIRONMENT === 'production' };
  const remote = new RemoteAgents({ ...services, tools: services.catalogues.tools, toolAccess }, references);
  closers?.add('remote agents', () => remote.close());
  const local = composeLocalAgent(services, config);
  return (task, context) => {
    const answers = remote.get(task.agent);
    if (answers) return answers(task, context);
    return (agents.get(task.agent)?.kind === 'built_in' ? builtInAgent : local)(task, context);
  };
}

/** Returns an agent that answers with the model of each agent, and with the built-in agent for agents without one. */
function composeLocalAgent(services: AgentServices, config: AgentConfig): Agent {
  const { clock, metrics, logger, tracing, catalogues, agents, threads } = services;
  const { AGENT_MODEL_URL: url, AGENT_MODEL_KEY: key, AGENT_MODEL_NAME: name } = config;
  const models = new Models({ clock, tracing, logger }, agents, {
    endpoint: url === undefined ? undefined : { url, key },
    variable: config.variable,
    production: config.ENVIRONMENT === 'production',
  });
  // Every model is checked now, also those that no agent uses.
  const isUsed = [
    name,
    ...agents.models,
    ...agents.all.filter((agent) => !isRemote(agent)).map(({ model }) => model),
  ].filter((model) => model !== undefined && models.get(model) !== undefined);
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
