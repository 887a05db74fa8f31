import { type AgentCatalogue, isRemote } from '../../catalogue/agent-catalogue.ts';
import type { ToolCatalogue } from '../../catalogue/tool-catalogue.ts';
import { userHash } from '../../lib/logger.ts';
import { publicError, TollgateError } from '../../protocol/errors.ts';
import { retryDuringOutage } from '../../redis/errors.ts';
import type { Agent, AgentContext, AgentTask } from '../../runs/agent.ts';
import type { RunAnswer } from '../../runs/run-end.ts';
import type { ModelCall, ModelStep } from '../../runs/step-log.ts';
import type { Threads } from '../../threads/threads.ts';
import { OUTAGE_RETRY_MS } from '../../tools/outcome.ts';
import { summaryOf } from '../summary.ts';
import { parseArguments } from './call-pieces.ts';
import type { Endpoint } from './endpoint.ts';
import type { ChatMessage } from './messages.ts';
import type { Model, Models } from './models.ts';
import { initialMessages, stepMessages } from './prompt.ts';
import { NO_ANSWER, requestStep, type StepDeps } from './step-request.ts';
import { type SchemaWarnings, ToolOffers } from './tool-offers.ts';
import { type ReadableResult, readableResult } from './tool-results.ts';

export interface ModelAgentDeps extends Omit<StepDeps, 'models'> {
  readonly models: Models;
  readonly tools: Pick<ToolCatalogue, 'get'>;
  readonly threads: Pick<Threads, 'history'>;
  readonly warnings: SchemaWarnings;
}

/**
 * Creates an agent that uses a language model: it sends the prompt, runs the requested tools and returns their results
 * to the model, until the model answers. Model output is untrusted: the model can only call tools of the agent's list,
 * with the permissions of the caller's plan.
 * @param defaultModel model of agents that specify none
 */
export function createModelAgent(deps: ModelAgentDeps, defaultModel: string | undefined): Agent {
  return async (task, context) => {
    const name = task.model ?? defaultModel;
    const model = name === undefined ? undefined : deps.models.get(name);
    if (!model) throw new TollgateError('INTERNAL_ERROR', { text: NO_ANSWER, retryable: false });
    const { settings } = model;
    const conversation = new Conversation(await firstMessages(deps, task, model));
    const offers = new ToolOffers(deps.tools, deps.warnings, task.tools, task.clientTools);
    const logger = deps.logger.child({ run_id: task.runId, user: userHash(task.userId) });
    let last: string | undefined;
    for (let number = 1; number <= settings.steps; number++) {
      const mustAnswer = number === settings.steps;
      const messagesFor = (endpoint: Endpoint) => conversation.messagesFor(endpoint);
      const request = { model, messagesFor, offers, mustAnswer, last };
      const step = context.steps.replay() ?? (await requestStep({ ...deps, logger }, request, context));
      last = step.endpoint;
      if (step.calls.length === 0 || (mustAnswer && step.text !== '')) return answerOf(step);
      if (mustAnswer) break;
      conversation.add(step, await callTools(step.calls, task, context, settings.tool_result_characters));
    }
    throw new TollgateError('INTERNAL_ERROR', { text: NO_ANSWER });
  };
}

/** Logs how the tools of all agents are changed for the endpoints of their models, when a worker starts. */
export function warnOfAdaptedTools(
  { models, tools, warnings }: Pick<ModelAgentDeps, 'models' | 'tools' | 'warnings'>,
  agents: Pick<AgentCatalogue, 'all'>,
  defaultModel: string | undefined,
): void {
  for (const agent of agents.all.filter((one) => !isRemote(one))) {
    const name = agent.model ?? defaultModel;
    const model = name === undefined ? undefined : models.get(name);
    const offers = new ToolOffers(tools, warnings, agent.tools);
    for (const endpoint of model?.endpoints ?? []) offers.for(endpoint);
  }
}

async function firstMessages(deps: ModelAgentDeps, task: AgentTask, { settings }: Model): Promise<ChatMessage[]> {
  // More than the prompt needs, because later runs may have added messages.
  const page = { threadId: task.threadId, before: undefined, limit: 2 * Math.max(1, settings.history_messages) };
  const read = () => deps.threads.history(task.userId, page);
  const { messages } = await retryDuringOutage(deps.clock, OUTAGE_RETRY_MS, read);
  return initialMessages(task, messages, settings);
}

/** The messages of a run. */
class Conversation {
  readonly #first: readonly ChatMessage[];
  readonly #steps: { readonly step: ModelStep; readonly results: readonly ReadableResult[] }[] = [];

  constructor(first: readonly ChatMessage[]) {
    this.#first = first;
  }

  add(step: ModelStep, results: readonly ReadableResult[]): void {
    this.#steps.push({ step, results });
  }

  /** Signatures and reasoning go only to the endpoint that sent them. */
  messagesFor({ address, settings }: Endpoint): readonly ChatMessage[] {
    const later = this.#steps.flatMap(({ step, results }) => {
      const own = step.endpoint === undefined || step.endpoint === address.name;
      const { back, ...bare } = step;
      const sent = own && settings.send_reasoning && back ? { ...bare, back } : bare;
      const plain = own ? sent : { ...sent, calls: sent.calls.map(({ extra: _extra, ...call }) => call) };
      return stepMessages(plain, settings.images ? results : results.map((result) => ({ ...result, images: [] })));
    });
    return [...this.#first, ...later];
  }
}

/** Runs the calls of one step concurrently. Returns their results for the model. */
async function callTools(
  calls: readonly ModelCall[],
  task: AgentTask,
  context: AgentContext,
  limit: number,
): Promise<ReadableResult[]> {
  const results = await Promise.allSettled(calls.map((call) => callTool(call, task, context, limit)));
  // Rejects only after all calls have ended, so that an executed call is recorded even if the run ends meanwhile.
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

/**
 * Runs one call. A call of an unlisted tool, or one that could not be assembled, is reported to the model only, without
 * an event.
 */
async function callTool(
  call: ModelCall,
  task: AgentTask,
  context: AgentContext,
  limit: number,
): Promise<ReadableResult> {
  const { name, problem } = call;
  const refused = (error: TollgateError) => readableResult({ success: false, error: publicError(error) }, limit);
  if (problem !== undefined) return refused(new TollgateError('FORMAT_ERROR', { text: problem }));
  const isOfClient = task.clientTools.some((tool) => tool.name === name);
  if (!isOfClient && !task.tools.includes(name))
    return refused(new TollgateError('TOOL_NOT_FOUND', { fields: { tool_name: name } }));
  const args = parseArguments(call.arguments);
  if (!args) return refused(new TollgateError('FORMAT_ERROR', { text: 'The arguments are not a JSON object.' }));
  return readableResult(await (isOfClient ? context.callClientTool : context.call)(name, args), limit);
}

function answerOf({ text, finish }: ModelStep): RunAnswer {
  const final_response = text.trim();
  const summary = summaryOf(final_response);
  return { final_response, summary, ...(finish === undefined ? {} : { finish_reason: finish }) };
}
