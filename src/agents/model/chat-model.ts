import OpenAI from 'openai';
import type {
  ChatCompletionCreateParamsStreaming,
  ChatCompletionMessageParam,
  ChatCompletionTool,
} from 'openai/resources/chat/completions';
import type { Clock } from '../../lib/clock.ts';
import type { Tracing } from '../../lib/tracing.ts';
import type { Tokens } from '../../runs/step-log.ts';
import { ModelFault, type ModelReply, type ReplyLimits, ReplyReader } from './reply.ts';

export interface ModelRequest {
  readonly model: string;
  readonly messages: readonly ChatCompletionMessageParam[];
  readonly tools: readonly ChatCompletionTool[];
  /** Forbids further tool calls, so that the model answers with the results it has. */
  readonly mustAnswer: boolean;
}

export interface ModelLimits extends ReplyLimits {
  /** Milliseconds until the first chunk; a local model needs seconds to process a long prompt. */
  readonly firstChunkMs: number;
  /** Milliseconds between two chunks. */
  readonly silenceMs: number;
  /** Milliseconds to wait for the token counts after the end of the reply. */
  readonly countMs: number;
  /** Maximum size of one response after decompression. */
  readonly responseBytes: number;
  readonly outputTokens: number;
}

export const MODEL_LIMITS: ModelLimits = {
  firstChunkMs: 20_000,
  silenceMs: 10_000,
  countMs: 1_000,
  // A chunk has about 300 bytes per token, so this is several times the size that `outputTokens` needs.
  responseBytes: 4 * 2 ** 20,
  outputTokens: 2_048,
  textLength: 32_768,
  calls: 8,
  argumentsLength: 8_192,
};

export interface ChatModelDeps {
  readonly url: string;
  readonly key: string | undefined;
  readonly clock: Clock;
  readonly tracing: Pick<Tracing, 'traceParent'>;
}

/** One request in flight. */
export interface ModelStream {
  /** Yields the text as it arrives; ends with the reply. @throws ModelFault; the reason of an aborted `signal` */
  readonly text: AsyncIterable<string>;
  /** Returns the whole reply, once `text` has ended. @throws ModelFault for an incomplete or empty reply */
  reply(): ModelReply;
  /** Returns the tokens used so far. */
  tokens(): Tokens;
}

/**
 * Client of an OpenAI-compatible endpoint (`POST <url>/chat/completions`, streamed), using the `openai` package. Sends
 * one request per attempt and follows no redirects; time and size are bounded. Retries are left to the caller, because
 * it may already have emitted part of the text.
 */
export class ChatModel {
  readonly #client: OpenAI;
  readonly #clock: Clock;
  readonly #limits: ModelLimits;
  readonly #outputBound: 'max_tokens' | 'max_completion_tokens';

  /** @param deps.key undefined for a server that requires no key */
  constructor({ url, key, clock, tracing }: ChatModelDeps, limits: ModelLimits = MODEL_LIMITS) {
    this.#clock = clock;
    this.#limits = limits;
    // OpenAI's reasoning models reject the older name `max_tokens`; most other servers support only that one.
    const { hostname } = new URL(url);
    this.#outputBound = hostname === 'api.openai.com' ? 'max_completion_tokens' : 'max_tokens';
    this.#client = new OpenAI({
      baseURL: url,
      // The package reads omitted options from its own environment variables (`OPENAI_…`).
      apiKey: key ?? 'none',
      adminAPIKey: null,
      organization: null,
      project: null,
      defaultHeaders: key === undefined ? { Authorization: null } : {},
      maxRetries: 0,
      // Longer than the deadlines of this class, which end a request first.
      timeout: 10 * limits.firstChunkMs,
      // The package would log responses that it cannot parse.
      logLevel: 'off',
      fetch: async (input, init) => {
        const headers = new Headers(init?.headers);
        const { traceParent } = tracing;
        if (traceParent !== undefined) headers.set('traceparent', traceParent);
        return bounded(await fetch(input, { ...init, headers, redirect: 'manual' }), limits.responseBytes);
      },
    });
  }

  stream(request: ModelRequest, signal: AbortSignal): ModelStream {
    const reader = new ReplyReader(this.#limits);
    const body = this.#body(request);
    const requestBytes = Buffer.byteLength(JSON.stringify([request.messages, request.tools]));
    return {
      text: this.#text(body, reader, signal),
      reply: () => reader.reply(requestBytes),
      tokens: () => reader.tokens(requestBytes),
    };
  }

  async *#text(
    body: ChatCompletionCreateParamsStreaming,
    reader: ReplyReader,
    signal: AbortSignal,
  ): AsyncGenerator<string, void> {
    const deadline = new StreamDeadline(this.#clock);
    try {
      deadline.restart(this.#limits.firstChunkMs);
      const either = AbortSignal.any([signal, deadline.signal]);
      const chunks = await this.#client.chat.completions.create(body, { signal: either });
      for await (const chunk of chunks) {
        deadline.end();
        const text = reader.append(chunk);
        // The deadline is stopped here, so that the time of the consumer does not count as time of the model.
        if (text !== '') yield text;
        if (reader.full) break;
        deadline.restart(reader.finished ? this.#limits.countMs : this.#limits.silenceMs);
      }
    } catch (thrown) {
      signal.throwIfAborted();
      // The reply is complete. Some servers keep the connection open after it, or reset it.
      if (reader.finished) return;
      throw deadline.signal.aborted ? SILENT() : faultOf(thrown);
    } finally {
      deadline.end();
    }
    // The package ends the stream of an aborted request without an error, as if it were complete.
    signal.throwIfAborted();
    if (deadline.signal.aborted && !reader.finished) throw SILENT();
  }

  #body({ model, messages, tools, mustAnswer }: ModelRequest): ChatCompletionCreateParamsStreaming {
    return {
      model,
      messages: [...messages],
      stream: true,
      stream_options: { include_usage: true },
      [this.#outputBound]: this.#limits.outputTokens,
      ...(tools.length > 0 ? { tools: [...tools], tool_choice: mustAnswer ? 'none' : 'auto' } : {}),
    };
  }
}

const SILENT = () => new ModelFault('the model response timed out', { retryable: true });

/** Restartable timeout: aborts its signal when neither `restart` nor `end` is called in time. */
class StreamDeadline {
  readonly #clock: Clock;
  readonly #exhausted = new AbortController();
  #cancel = () => {};

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get signal(): AbortSignal {
    return this.#exhausted.signal;
  }

  restart(limitMs: number): void {
    this.#cancel();
    this.#cancel = this.#clock.after(limitMs, () => this.#exhausted.abort());
  }

  end(): void {
    this.#cancel();
  }
}

/** Returns the response with a body that fails once it exceeds `limit` bytes. */
function bounded(response: Response, limit: number): Response {
  if (!response.body) return response;
  let bytes = 0;
  const counted = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      bytes += chunk.byteLength;
      if (bytes > limit) controller.error(new ModelFault('the response was too large', { retryable: false }));
      else controller.enqueue(chunk);
    },
  });
  return new Response(response.body.pipeThrough(counted), response);
}

/** Client error statuses that can be temporary: timeouts, conflicts and rate limits. All others are permanent. */
const RETRYABLE_STATUS = new Set([408, 409, 425, 429]);

/** Converts an error of the package to one that is safe to log: its messages can contain request, key and host. */
function faultOf(thrown: unknown): ModelFault {
  if (thrown instanceof ModelFault) return thrown;
  if (thrown instanceof OpenAI.APIError && thrown.status !== undefined) {
    const status = Number(thrown.status);
    const retryable = status >= 500 || RETRYABLE_STATUS.has(status);
    return new ModelFault(`the model answered HTTP ${status}`, { retryable, retryAfterMs: retryAfter(thrown.headers) });
  }
  if (thrown instanceof OpenAI.APIConnectionError) {
    return new ModelFault('the model could not be reached', { retryable: true });
  }
  if (thrown instanceof OpenAI.APIError) return new ModelFault('the model reported an error', { retryable: true });
  if (thrown instanceof SyntaxError) return new ModelFault('the model sent invalid JSON', { retryable: true });
  return new ModelFault('the response was interrupted', { retryable: true });
}

/** Milliseconds of `Retry-After`, given in seconds or as a date (RFC 9110 section 10.2.3). */
function retryAfter(headers: Headers | undefined): number | undefined {
  const value = headers?.get('retry-after');
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
