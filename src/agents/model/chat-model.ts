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
  /** No more tools: the model is to answer from what it has. */
  readonly mustAnswer: boolean;
}

export interface ModelLimits extends ReplyLimits {
  /** Milliseconds until the first chunk; a local model reads a long prompt for seconds. */
  readonly firstChunkMs: number;
  /** Milliseconds between two chunks. */
  readonly silenceMs: number;
  /** Milliseconds that what the model counted may come after the end of its reply. */
  readonly countMs: number;
  /** Of one response, after decompression. */
  readonly responseBytes: number;
  readonly outputTokens: number;
}

export const MODEL_LIMITS: ModelLimits = {
  firstChunkMs: 20_000,
  silenceMs: 10_000,
  countMs: 1_000,
  // A token comes in a chunk of some 300 bytes: several times what the output tokens need.
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

/** One request under way. */
export interface ModelStream {
  /** The text as it comes, then nothing more. @throws ModelFault; what `signal` was aborted with */
  readonly text: AsyncIterable<string>;
  /** What was said in all, once `text` has ended. @throws ModelFault for a reply that is none */
  reply(): ModelReply;
  /** What was used so far. */
  tokens(): Tokens;
}

/**
 * An OpenAI-compatible endpoint (`POST <url>/chat/completions`, streamed), by the `openai` package: one request an
 * attempt, no redirect followed, everything bounded. Whether to try again is for the caller to know, who has told what
 * came before.
 */
export class ChatModel {
  readonly #client: OpenAI;
  readonly #clock: Clock;
  readonly #limits: ModelLimits;
  readonly #outputBound: 'max_tokens' | 'max_completion_tokens';

  /** @param endpoint.key none for a server that asks for none */
  constructor({ url, key, clock, tracing }: ChatModelDeps, limits: ModelLimits = MODEL_LIMITS) {
    this.#clock = clock;
    this.#limits = limits;
    // OpenAI's reasoning models refuse the older name; most other servers know no other.
    const { hostname } = new URL(url);
    this.#outputBound = hostname === 'api.openai.com' ? 'max_completion_tokens' : 'max_tokens';
    this.#client = new OpenAI({
      baseURL: url,
      // What is left out here is read from variables of the package's own (`OPENAI_…`).
      apiKey: key ?? 'none',
      adminAPIKey: null,
      organization: null,
      project: null,
      defaultHeaders: key === undefined ? { Authorization: null } : {},
      maxRetries: 0,
      // Longer than the waits here, which end a request first.
      timeout: 10 * limits.firstChunkMs,
      // It would print what it could not parse.
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
        // What the reader of the text does meanwhile is no silence of the model.
        if (text !== '') yield text;
        if (reader.full) break;
        deadline.restart(reader.finished ? this.#limits.countMs : this.#limits.silenceMs);
      }
    } catch (thrown) {
      signal.throwIfAborted();
      // The reply is whole: some servers leave the connection open after it, or drop it.
      if (reader.finished) return;
      throw deadline.signal.aborted ? SILENT() : faultOf(thrown);
    } finally {
      deadline.end();
    }
    // The package ends the stream of an aborted request as if it were complete.
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

const SILENT = () => new ModelFault('the model was silent for too long', { retryable: true });

/** Aborts when something that was begun has not ended in time. */
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

/** The response with a body that fails once it is larger than `limit` bytes. */
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

/** Timeouts, conflicts and limits of the moment; whatever else is refused stays refused. */
const RETRYABLE_STATUS = new Set([408, 409, 425, 429]);

/** The error of the package as one that may be logged: its own messages can hold the request, the key and the host. */
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
  if (thrown instanceof SyntaxError) return new ModelFault('the model sent no JSON', { retryable: true });
  return new ModelFault('the response broke off', { retryable: true });
}

/** `Retry-After` in seconds or as a date: RFC 9110 section 10.2.3. */
function retryAfter(headers: Headers | undefined): number | undefined {
  const value = headers?.get('retry-after');
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
