import type { AgentCatalogue } from '../../catalogue/agent-catalogue.ts';
import { type Clock, sleep } from '../../lib/clock.ts';
import type { Logger } from '../../lib/logger.ts';
import type { Metrics } from '../../lib/metrics.ts';
import type { Span, Tracing } from '../../lib/tracing.ts';
import { TollgateError } from '../../protocol/errors.ts';
import type { AgentContext } from '../../runs/agent.ts';
import type { ModelStep, StepWriter } from '../../runs/step-log.ts';
import type { Endpoint, ModelStream } from './endpoint.ts';
import { type FaultReason, ModelFault } from './fault.ts';
import type { ChatMessage } from './messages.ts';
import type { Model, Models } from './models.ts';
import type { ModelRequest } from './request-body.ts';
import type { ToolOffers } from './tool-offers.ts';

export interface StepDeps {
  readonly models: Pick<Models, 'order' | 'ended'>;
  readonly agents: Pick<AgentCatalogue, 'price'>;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'modelRequests' | 'modelTokens' | 'modelFirstTextSeconds'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

export interface StepRequest {
  readonly model: Model;
  /** The messages for an endpoint: fields that a step gave back go only to the endpoint that sent them. */
  readonly messagesFor: (endpoint: Endpoint) => readonly ChatMessage[];
  readonly offers: ToolOffers;
  readonly mustAnswer: boolean;
  /** The endpoint of the previous step. */
  readonly last: string | undefined;
}

const FIRST_RETRY_MS = 500;
/** Pause between two requests to an endpoint that answers 503 without `Retry-After`. */
const LOADING_RETRY_MS = 1_000;

export const NO_ANSWER = 'The model produced no answer; try again.';
const UNAVAILABLE = 'The model is unavailable; try again.';
const REFUSED = 'The model cannot be used: its endpoint refuses the request. Contact the operator.';
/** The public text, by reason; retryable reasons are not listed. */
const TEXTS: Partial<Readonly<Record<FaultReason, string>>> = {
  empty: NO_ANSWER,
  length: 'The model reached its output bound before it gave an answer. Ask for less.',
  content_filter: 'The content filter of the model stopped the reply. Change the message.',
  context_length: 'The conversation is too long for the model. Start a new thread.',
  too_large: 'The reply of the model was too large. Ask for less.',
};

/**
 * Requests one step. A retryable fault is retried, at another endpoint if there is one; a fault that another endpoint
 * need not have is tried there once. A fault that no retry can help ends the step at once.
 * @throws TollgateError INTERNAL_ERROR with the `reason`
 */
export async function requestStep(deps: StepDeps, request: StepRequest, context: AgentContext): Promise<ModelStep> {
  const { model } = request;
  const candidates = deps.models.order(model, request.last);
  const retries = new Retries(model, candidates);
  for (let attempt = 1; ; attempt++) {
    context.signal.throwIfAborted();
    const endpoint = retries.next();
    const writer = context.steps.startStep({ model: model.name, price: deps.agents.price(model.name) });
    try {
      const step = await deps.tracing.span(`chat ${model.name}`, { kind: 'client' }, (span) => {
        span.set({ 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': model.name, 'tollgate.attempt': attempt });
        return readStep(deps, { request, endpoint, writer, signal: context.signal, span });
      });
      deps.models.ended(endpoint, undefined);
      deps.metrics.modelRequests.inc({ model: model.name, result: 'ok', reason: 'none' });
      return step;
    } catch (thrown) {
      if (!(thrown instanceof ModelFault)) throw thrown;
      deps.models.ended(endpoint, thrown);
      report(deps, { model, endpoint, attempt }, thrown);
      const waitMs = retries.after(endpoint, thrown);
      if (waitMs === undefined) throw failedStep(thrown);
      await sleep(deps.clock, waitMs, context.signal);
    }
  }
}

/** Decides where and when a step is requested again. */
class Retries {
  readonly #settings: Model['settings'];
  /** In the order of the next requests. */
  #candidates: Endpoint[];
  /** Endpoints that failed with a retryable fault in this step. */
  readonly #failed = new Set<Endpoint>();
  #attempts = 0;
  #loadingMs = 0;
  #emptyReplies = 0;

  constructor({ settings }: Model, candidates: readonly Endpoint[]) {
    this.#settings = settings;
    this.#candidates = [...candidates];
  }

  next(): Endpoint {
    const [first] = this.#candidates;
    if (!first) throw new Error('the model has no endpoint');
    return first;
  }

  /** Returns the milliseconds until the next request; undefined for none. */
  after(endpoint: Endpoint, fault: ModelFault): number | undefined {
    this.#failed.add(endpoint);
    const others = this.#candidates.filter((one) => one !== endpoint);
    this.#candidates = fault.retryable ? [...others, endpoint] : others;
    if (fault.final || this.#candidates.length === 0) return undefined;
    const isOtherLeft = others.some((one) => !this.#failed.has(one));
    if (fault.loading && !isOtherLeft) {
      const waitMs = this.#loadingWait(endpoint, fault);
      if (waitMs !== undefined) return waitMs;
    }
    this.#attempts += 1;
    // An empty reply costs as much as any other, and one that is repeated is rarely better.
    if (fault.reason === 'empty') this.#emptyReplies += 1;
    if (this.#attempts >= this.#settings.attempts || this.#emptyReplies > 1) return undefined;
    return isOtherLeft ? 0 : this.#backOff(fault);
  }

  /** Waiting for a model that loads does not count as an attempt. */
  #loadingWait({ settings }: Endpoint, { retryAfterMs = LOADING_RETRY_MS }: ModelFault): number | undefined {
    const waitMs = Math.max(retryAfterMs, LOADING_RETRY_MS / 2) + (Math.random() * LOADING_RETRY_MS) / 4;
    if (this.#loadingMs + waitMs > settings.loading_seconds * 1_000) return undefined;
    this.#loadingMs += waitMs;
    return waitMs;
  }

  /** Exponential backoff with half of it random; undefined if `Retry-After` is longer than a run. */
  #backOff({ retryAfterMs = 0 }: ModelFault): number | undefined {
    if (retryAfterMs > this.#settings.longest_retry_seconds * 1_000) return undefined;
    const backOff = FIRST_RETRY_MS * 2 ** (this.#attempts - 1);
    return Math.max(retryAfterMs, backOff / 2) + (Math.random() * backOff) / 2;
  }
}

interface Reading {
  readonly request: StepRequest;
  readonly endpoint: Endpoint;
  readonly writer: StepWriter;
  readonly signal: AbortSignal;
  readonly span: Span;
}

/**
 * Reads one reply, emits its text and reasoning, and records it. The received part of an interrupted reply is emitted
 * and recorded, too.
 */
async function readStep(deps: StepDeps, { request, endpoint, writer, signal, span }: Reading): Promise<ModelStep> {
  const model = request.model.name;
  span.set({ 'tollgate.model.endpoint': endpoint.address.name });
  const body: ModelRequest = {
    messages: request.messagesFor(endpoint),
    tools: request.offers.for(endpoint),
    mustAnswer: request.mustAnswer,
  };
  const stream = endpoint.stream(body, signal);
  try {
    await emitPieces(deps, stream, { endpoint, writer });
    const { tokens, ...reply } = stream.reply();
    const step = { ...reply, endpoint: endpoint.address.name };
    span.set({ 'gen_ai.usage.input_tokens': tokens.input, 'gen_ai.usage.output_tokens': tokens.output });
    span.set({ 'gen_ai.response.finish_reasons': step.finish });
    await writer.complete(step, tokens);
    deps.metrics.modelTokens.inc({ model, kind: 'input' }, tokens.input);
    deps.metrics.modelTokens.inc({ model, kind: 'output' }, tokens.output);
    return step;
  } catch (thrown) {
    if (thrown instanceof ModelFault) {
      const { reason, status, code, param } = thrown;
      span.set({ 'error.type': reason, 'http.response.status_code': status });
      span.set({ 'tollgate.model.error_code': code, 'tollgate.model.error_param': param });
      await writer.abort('error', stream.tokens(), ENDED_WITHOUT_TEXT[reason]);
    } else if (signal.aborted) await writer.abort('cancelled', stream.tokens());
    throw thrown;
  }
}

/** The thought of a step that cost tokens and has no text, so that its usage record has an event. */
const ENDED_WITHOUT_TEXT: Partial<Readonly<Record<FaultReason, string>>> = {
  length: 'The output bound ended the reply before its text.',
};

async function emitPieces(
  { clock, metrics }: StepDeps,
  stream: ModelStream,
  { endpoint, writer }: Pick<Reading, 'endpoint' | 'writer'>,
): Promise<void> {
  const startedAt = clock.now();
  let begun = false;
  for await (const { text, reasoning } of stream.pieces) {
    if (reasoning !== '' && endpoint.settings.show_reasoning) await writer.addReasoning(reasoning);
    if (text === '') continue;
    if (!begun) metrics.modelFirstTextSeconds.observe((clock.now() - startedAt) / 1_000);
    begun = true;
    await writer.add(text);
  }
}

function report(
  { metrics, logger }: StepDeps,
  { model, endpoint, attempt }: { readonly model: Model; readonly endpoint: Endpoint; readonly attempt: number },
  { message: fault, reason, retryable, status, code, param }: ModelFault,
): void {
  metrics.modelRequests.inc({ model: model.name, result: retryable ? 'failed' : 'refused', reason });
  const details = { model: model.name, endpoint: endpoint.address.name, attempt, fault, reason, status, code, param };
  logger[retryable ? 'warn' : 'error'](details, 'model request failed');
}

function failedStep(fault: ModelFault): TollgateError {
  const { reason, retryable, retryAfterMs } = fault;
  return new TollgateError('INTERNAL_ERROR', {
    text: TEXTS[reason] ?? (retryable ? UNAVAILABLE : REFUSED),
    cause: fault,
    retryable,
    fields: { reason },
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}
