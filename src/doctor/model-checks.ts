import { Endpoint, type EndpointDeps } from '../agents/model/endpoint.ts';
import { type FaultReason, ModelFault } from '../agents/model/fault.ts';
import type { ToolDefinition } from '../agents/model/messages.ts';
import { Models } from '../agents/model/models.ts';
import { type AgentCatalogue, isRemote, loadAgentCatalogue } from '../catalogue/agent-catalogue.ts';
import { type Config, UnusableConfiguration } from '../config.ts';
import { systemClock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { NO_TRACING } from '../lib/tracing.ts';
import { type Finding, findings, reasonOf } from './findings.ts';

/** Output bound of the tool call: reasoning models think before they call. */
const CALL_TOKENS = 512;
const TIMEOUT_MS = 60_000;
/** Faults that a bound of one token causes at endpoints that need room for reasoning. */
const NEEDS_MORE: readonly FaultReason[] = ['request', 'empty', 'context_length'];
const TOOL: ToolDefinition = {
  type: 'function',
  function: {
    name: 'tollgate_doctor',
    description: 'Confirms that tool calls work.',
    parameters: { type: 'object', properties: {} },
  },
};

/** Sends each endpoint of each model a request for one token, and one that it should answer with a tool call. */
export async function checkModels(config: Config, logger: Logger): Promise<Finding[]> {
  const { ok, problem } = findings('model');
  let agents: AgentCatalogue;
  try {
    agents = loadAgentCatalogue(config.CATALOGUE_DIR);
  } catch (error) {
    return [problem('failed', 'agents.json', reasonOf(error), 'Correct the file; the worker does not start before.')];
  }
  const { AGENT_MODEL_URL: url, AGENT_MODEL_KEY: key, AGENT_MODEL_NAME: name } = config;
  const deps = { clock: systemClock, tracing: NO_TRACING, logger };
  const models = new Models(deps, agents, {
    endpoint: url === undefined ? undefined : { url, key },
    variable: config.variable,
    production: config.ENVIRONMENT === 'production',
  });
  const named = [name, ...agents.models, ...agents.all.filter((agent) => !isRemote(agent)).map(({ model }) => model)];
  const names = [...new Set(named.filter((model) => model !== undefined))];
  const found = (await Promise.all(names.map((model) => checkModel(deps, { models, agents }, model)))).flat();
  return found.length > 0 ? found : [ok('endpoint', 'none is configured: the built-in agent')];
}

interface Sources {
  readonly models: Models;
  readonly agents: AgentCatalogue;
}

async function checkModel(deps: EndpointDeps, { models, agents }: Sources, name: string): Promise<Finding[]> {
  const { problem } = findings(`model ${name}`);
  try {
    const model = models.get(name);
    if (model === undefined) {
      const advice =
        'Set AGENT_MODEL_URL, or endpoints in the row of the model; until then the built-in agent answers.';
      return [problem('warning', 'endpoint', 'has no endpoint', advice)];
    }
    const keyField =
      agents.model(name).endpoints === undefined ? 'AGENT_MODEL_KEY' : 'the key of the endpoint in agents.json';
    return (await Promise.all(model.endpoints.map((endpoint) => checkEndpoint(deps, endpoint, keyField)))).flat();
  } catch (error) {
    if (!(error instanceof UnusableConfiguration)) throw error;
    return [problem('failed', 'settings', error.message.trim(), 'Correct the row; the worker does not start before.')];
  }
}

async function checkEndpoint(deps: EndpointDeps, endpoint: Endpoint, keyField: string): Promise<Finding[]> {
  const { ok, problem } = findings(`model ${endpoint.address.name}`);
  const failed = (check: string, error: unknown) => problem('failed', check, textOf(error), adviceFor(error, keyField));
  try {
    await requestToken(deps, endpoint);
  } catch (error) {
    return [failed('reply', error)];
  }
  const replied = ok('reply', 'received');
  try {
    const { calls } = await request(deps, endpoint, {
      text: `Call the tool ${TOOL.function.name} now.`,
      tools: [TOOL],
      tokens: CALL_TOKENS,
    });
    if (calls.length > 0) return [replied, ok('tool call', 'received')];
    const advice =
      'Use a model that supports tools, and enable them at the endpoint (vLLM: --enable-auto-tool-choice).';
    return [replied, problem('warning', 'tool call', 'the model called no tool', advice)];
  } catch (error) {
    if (!isFault(error, ['length'])) return [replied, failed('tool call', error)];
    const detail = `no call within ${CALL_TOKENS} tokens`;
    return [replied, problem('warning', 'tool call', detail, 'The model reasons for long: lower reasoning_effort.')];
  }
}

/** Requests one token, and more where an endpoint refuses that. A reply that the bound ends is a reply. */
async function requestToken(deps: EndpointDeps, endpoint: Endpoint): Promise<void> {
  const send = async (tokens: number) => {
    try {
      await request(deps, endpoint, { text: 'Answer with the word "ready".', tools: [], tokens });
    } catch (error) {
      if (!isFault(error, ['length'])) throw error;
    }
  };
  try {
    await send(1);
  } catch (error) {
    if (!isFault(error, NEEDS_MORE)) throw error;
    await send(CALL_TOKENS);
  }
}

interface Sent {
  readonly text: string;
  readonly tools: readonly ToolDefinition[];
  /** Output bound. */
  readonly tokens: number;
}

async function request(deps: EndpointDeps, { address, settings }: Endpoint, { text, tools, tokens }: Sent) {
  const bounded = new Endpoint(deps, address, { ...settings, max_output_tokens: tokens });
  const messages = [{ role: 'user' as const, content: text }];
  const stream = bounded.stream({ messages, tools, mustAnswer: false }, AbortSignal.timeout(TIMEOUT_MS));
  for await (const _piece of stream.pieces);
  return stream.reply();
}

function isFault(error: unknown, reasons: readonly FaultReason[]): boolean {
  return error instanceof ModelFault && reasons.includes(error.reason);
}

function textOf(error: unknown): string {
  if (!(error instanceof ModelFault)) return reasonOf(error);
  const { reason, message, code, param } = error;
  const named = [code && `code ${code}`, param && `parameter ${param}`].filter(Boolean).join(', ');
  return `${reason}: ${message}${named === '' ? '' : ` (${named})`}`;
}

function adviceFor(error: unknown, keyField: string): string {
  if (!(error instanceof ModelFault)) return 'Check that the URL of the endpoint can be reached from this host.';
  const { reason, status } = error;
  if (reason === 'authentication') return `Check ${keyField}: the endpoint refuses it.`;
  if (status === 404) return 'Check the URL (it usually ends with /v1) and the name of the model at the endpoint.';
  if (reason === 'request')
    return 'The endpoint refuses the request: check preset, extra_body and the name of the model.';
  if (reason === 'payment') return 'The account at the endpoint has no credit left.';
  if (reason === 'rate_limited') return 'The endpoint limits the rate: try again later, or raise its limit.';
  if (reason === 'invalid') return 'Check the URL: the endpoint does not answer with chat completions.';
  return 'Check that the URL of the endpoint can be reached from this host, and the log of the endpoint.';
}
