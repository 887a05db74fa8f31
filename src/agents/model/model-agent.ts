import type { ChatCompletionTool } from 'openai/resources/chat/completions';
import type { AgentCatalogue } from '../../catalogue/agent-catalogue.ts';
import type { ToolCatalogue } from '../../catalogue/tool-catalogue.ts';
import { type Clock, sleep } from '../../lib/clock.ts';
import { type Logger, userHash } from '../../lib/logger.ts';
import type { Metrics } from '../../lib/metrics.ts';
import type { Span, Tracing } from '../../lib/tracing.ts';
import { publicError, TollgateError } from '../../protocol/errors.ts';
import { retryDuringOutage } from '../../redis/errors.ts';
import type { Agent, AgentContext, AgentTask } from '../../runs/agent.ts';
import type { RunAnswer } from '../../runs/run-log.ts';
import type { ModelCall, ModelStep, StepWriter } from '../../runs/step-log.ts';
import type { Threads } from '../../threads/threads.ts';
import { OUTAGE_RETRY_MS } from '../../tools/outcome.ts';
import type { ChatModel, ModelRequest } from './chat-model.ts';
import { HISTORY_MESSAGES, initialMessages, parseArguments, stepMessages, toolResult } from './prompt.ts';
import { ModelFault } from './reply.ts';

export interface ModelAgentDeps {
  readonly model: ChatModel;
  readonly agents: Pick<AgentCatalogue, 'price'>;
  readonly tools: Pick<ToolCatalogue, 'get'>;
  readonly threads: Pick<Threads, 'history'>;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'modelRequests' | 'modelTokens' | 'modelFirstTextSeconds'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/** Maximum number of steps per run. The last one permits no tool calls, so that a loop of calls ends with an answer. */
export const MAX_STEPS = 8;
/** Maximum number of requests per step. */
const ATTEMPTS = 4;
const FIRST_RETRY_MS = 500;
/** Maximum `Retry-After` that the agent waits for. A longer wait ends the run, which has only 45 s in total. */
const LONGEST_RETRY_MS = 10_000;
/** Messages to read from the thread. More than the prompt needs, because later runs may have added messages. */
const HISTORY_READ = 2 * HISTORY_MESSAGES;
const SUMMARY_LENGTH = 200;

const UNAVAILABLE = 'The model is unavailable; try again.';
const NO_ANSWER = 'The model produced no answer; try again.';

/**
 * Creates an agent that uses a language model: it sends the prompt, runs the requested tools and returns their results
 * to the model, until the model answers. Model output is untrusted: the model can only call tools of the agent's list,
 * with the permissions of the caller's plan.
 * @param defaultModel model of agents that specify none
 */
export function createModelAgent(deps: ModelAgentDeps, defaultModel: string): Agent {
  return async (task, context) => {
    const model = task.model ?? defaultModel;
    const tools = toolDefinitions(deps.tools, task.tools);
    const page = { threadId: task.threadId, before: undefined, limit: HISTORY_READ };
    const read = () => deps.threads.history(task.userId, page);
    const { messages: history } = await retryDuringOutage(deps.clock, OUTAGE_RETRY_MS, read);
    const messages = initialMessages(task, history);
    const modelRef = { ...deps, logger: deps.logger.child({ run_id: task.runId, user: userHash(task.userId) }) };
    for (let number = 1; number <= MAX_STEPS; number++) {
      const mustAnswer = number === MAX_STEPS;
      const step =
        context.steps.replay() ?? (await requestStep(modelRef, { model, messages, tools, mustAnswer }, context));
      if (step.calls.length === 0 || (mustAnswer && step.text !== '')) return answerOf(step.text);
      if (mustAnswer) break;
      messages.push(...stepMessages(step, await callTools(step.calls, task, context)));
    }
    throw new TollgateError('INTERNAL_ERROR', { text: NO_ANSWER });
  };
}

function toolDefinitions(catalogue: Pick<ToolCatalogue, 'get'>, names: readonly string[]): ChatCompletionTool[] {
  return names.flatMap((name) => {
    const tool = catalogue.get(name);
    if (!tool) return [];
    const { description, arguments: parameters } = tool;
    return [{ type: 'function' as const, function: { name, description, parameters } }];
  });
}

/** Requests one step and retries retryable faults, at most `ATTEMPTS` requests in total. */
async function requestStep(deps: ModelAgentDeps, request: ModelRequest, context: AgentContext): Promise<ModelStep> {
  const { model } = request;
  for (let attempt = 1; ; attempt++) {
    context.signal.throwIfAborted();
    const writer = context.steps.startStep({ model, price: deps.agents.price(model) });
    try {
      const step = await deps.tracing.span(`chat ${model}`, { kind: 'client' }, (span) => {
        span.set({ 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': model, 'tollgate.attempt': attempt });
        return readStep(deps, request, writer, { signal: context.signal, span });
      });
      deps.metrics.modelRequests.inc({ model, result: 'ok' });
      return step;
    } catch (thrown) {
      if (!(thrown instanceof ModelFault)) throw thrown;
      deps.metrics.modelRequests.inc({ model, result: thrown.retryable ? 'failed' : 'refused' });
      deps.logger[thrown.retryable ? 'warn' : 'error'](
        { model, attempt, fault: thrown.message },
        'model request failed',
      );
      const waitMs = retryIn(thrown, attempt);
      if (waitMs === undefined) throw unavailable(thrown);
      await sleep(deps.clock, waitMs, context.signal);
    }
  }
}

/**
 * Reads one reply, emits its text and records it. The received part of an interrupted reply is emitted and recorded,
 * too.
 */
async function readStep(
  deps: ModelAgentDeps,
  request: ModelRequest,
  writer: StepWriter,
  { signal, span }: { readonly signal: AbortSignal; readonly span: Span },
): Promise<ModelStep> {
  const { model } = request;
  const startedAt = deps.clock.now();
  const stream = deps.model.stream(request, signal);
  let step = false;
  try {
    for await (const text of stream.text) {
      if (!step) deps.metrics.modelFirstTextSeconds.observe((deps.clock.now() - startedAt) / 1_000);
      step = true;
      await writer.add(text);
    }
    const { tokens, text, calls } = stream.reply();
    span.set({ 'gen_ai.usage.input_tokens': tokens.input, 'gen_ai.usage.output_tokens': tokens.output });
    await writer.complete({ text, calls }, tokens);
    deps.metrics.modelTokens.inc({ model, kind: 'input' }, tokens.input);
    deps.metrics.modelTokens.inc({ model, kind: 'output' }, tokens.output);
    return { text, calls };
  } catch (thrown) {
    if (thrown instanceof ModelFault) await writer.abort('error', stream.tokens());
    else if (signal.aborted) await writer.abort('cancelled', stream.tokens());
    throw thrown;
  }
}

/**
 * Milliseconds until the next attempt: exponential backoff with half of it random. Undefined for no further attempt.
 */
function retryIn(fault: ModelFault, attempt: number): number | undefined {
  const requestedMs = fault.retryAfterMs ?? 0;
  if (!fault.retryable || attempt === ATTEMPTS || requestedMs > LONGEST_RETRY_MS) return undefined;
  const backOff = FIRST_RETRY_MS * 2 ** (attempt - 1);
  return Math.max(requestedMs, backOff / 2) + (Math.random() * backOff) / 2;
}

function unavailable(fault: ModelFault): TollgateError {
  const { retryAfterMs } = fault;
  return new TollgateError('INTERNAL_ERROR', {
    text: UNAVAILABLE,
    cause: fault,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

/** Runs the calls of one step concurrently. Returns their results as text for the model. */
async function callTools(calls: readonly ModelCall[], task: AgentTask, context: AgentContext): Promise<string[]> {
  const results = await Promise.allSettled(calls.map((call) => callTool(call, task, context)));
  // Rejects only after all calls have ended, so that an executed call is recorded even if the run ends meanwhile.
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

/** Runs one call. A call of an unlisted tool or with invalid JSON is reported to the model only, without an event. */
async function callTool(call: ModelCall, task: AgentTask, context: AgentContext): Promise<string> {
  const { name } = call;
  if (!task.tools.includes(name)) return refusal(new TollgateError('TOOL_NOT_FOUND', { fields: { tool_name: name } }));
  const args = parseArguments(call.arguments);
  if (!args) return refusal(new TollgateError('FORMAT_ERROR', { text: 'The arguments are not a JSON object.' }));
  return toolResult(await context.call(name, args));
}

function refusal(error: TollgateError): string {
  return toolResult({ success: false, error: publicError(error) });
}

/** Uses the first sentence of the text as its summary, cut to `SUMMARY_LENGTH` characters. */
function answerOf(text: string): RunAnswer {
  const final_response = text.trim();
  const sentence = /^.+?[.!?](?:\s|$)/s.exec(final_response)?.[0].trimEnd() ?? final_response;
  const summary =
    sentence.length > SUMMARY_LENGTH ? `${sentence.slice(0, SUMMARY_LENGTH - 1).toWellFormed()}…` : sentence;
  return { final_response, summary };
}
