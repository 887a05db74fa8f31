import type { ModelSettings } from '../../catalogue/model-settings.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Logger } from '../../lib/logger.ts';
import { parseRetryAfter } from '../../lib/retry-after.ts';
import type { Tracing } from '../../lib/tracing.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { Tokens } from '../../runs/step-log.ts';
import { errorOfBody, responseFault } from './endpoint-errors.ts';
import { bodyEvents } from './event-stream.ts';
import { ModelFault } from './fault.ts';
import { type ModelReply, ReplyReader } from './reply.ts';
import { Adaptations, learn, type ModelRequest, refusalOf, requestBody } from './request-body.ts';
import type { TextPiece } from './thinking-tags.ts';

/** One address that serves a model, with everything that a request to it needs. */
export interface EndpointAddress {
  /** Name for logs, metrics and journals, e.g. `qwen3#2`. */
  readonly name: string;
  readonly url: string;
  readonly model: string;
  /** Includes the key; must not be logged. */
  readonly headers: Readonly<Record<string, string>>;
  readonly weight: number;
}

export interface EndpointDeps {
  readonly clock: Clock;
  readonly tracing: Pick<Tracing, 'traceParent'>;
  readonly logger: Pick<Logger, 'warn'>;
}

/** One request in flight. */
export interface ModelStream {
  /**
   * Yields text and reasoning as they arrive; ends with the reply.
   * @throws ModelFault; the reason of an aborted `signal`
   */
  readonly pieces: AsyncIterable<TextPiece>;
  /** Returns the whole reply, once `pieces` has ended. @throws ModelFault for an incomplete or empty reply */
  reply(): ModelReply;
  /** Returns the tokens used so far. */
  tokens(): Tokens;
}

/** Requests that one attempt may repeat without a refused parameter. */
const MAX_ADAPTATIONS = 6;
/** Upper bound for `Retry-After`, far longer than any run. */
const MAX_RETRY_AFTER_MS = 7 * 86_400_000;
/** Maximum size of an error body that is read. */
const ERROR_BYTES = 65_536;

/**
 * Client of one OpenAI-compatible endpoint (`POST <url>/chat/completions`, streamed). Follows no redirects; time and
 * size are bounded. A request that the endpoint refuses because of one parameter is sent again without it. All other
 * retries are left to the caller, because it may already have emitted part of the text.
 */
export class Endpoint {
  readonly address: EndpointAddress;
  readonly settings: ModelSettings;
  readonly #deps: EndpointDeps;
  readonly #adaptations = new Adaptations();
  readonly #url: string;

  constructor(deps: EndpointDeps, address: EndpointAddress, settings: ModelSettings) {
    this.#deps = deps;
    this.address = address;
    this.settings = settings;
    const url = new URL(address.url);
    url.pathname = `${url.pathname.replace(/\/$/, '')}/chat/completions`;
    for (const [name, value] of Object.entries(settings.query)) url.searchParams.set(name, value);
    this.#url = url.href;
  }

  stream(request: ModelRequest, signal: AbortSignal): ModelStream {
    const { settings } = this;
    const limits = {
      calls: settings.calls_per_step,
      argumentsLength: settings.argument_characters,
      textLength: settings.text_characters,
      reasoningLength: settings.reasoning_characters,
    };
    const reader = new ReplyReader(limits, new Set(request.tools.map((tool) => tool.function.name)));
    const body = requestBody(this.address.model, request, settings);
    const requestBytes = Buffer.byteLength(JSON.stringify([request.messages, request.tools]));
    return {
      pieces: this.#pieces(body, reader, signal),
      reply: () => {
        const { droppedCalls: dropped } = reader;
        if (dropped > 0)
          this.#deps.logger.warn({ endpoint: this.address.name, dropped }, 'tool calls of a model dropped');
        return reader.reply(requestBytes);
      },
      tokens: () => reader.tokens(requestBytes),
    };
  }

  async *#pieces(body: Fields, reader: ReplyReader, signal: AbortSignal): AsyncGenerator<TextPiece, void> {
    const deadline = new ReadDeadline(this.#deps.clock, signal);
    try {
      const response = await this.#response(body, deadline);
      yield* this.#read(response, reader, deadline);
    } catch (thrown) {
      signal.throwIfAborted();
      // The reply is complete. Some servers keep the connection open after it, or reset it.
      if (reader.finished && !(thrown instanceof ModelFault)) {
        yield reader.end(false);
        return;
      }
      throw deadline.exceeded ? SILENT() : faultOf(thrown);
    } finally {
      deadline.end();
    }
  }

  /** Sends the request, again without a parameter that the endpoint refuses. @throws ModelFault for an error status */
  async #response(body: Fields, deadline: ReadDeadline): Promise<Response> {
    const adaptations = this.#adaptations.copy();
    for (let adapted = 0; ; adapted++) {
      const sent = adaptations.apply(body);
      const response = await deadline.within(this.settings.first_chunk_seconds * 1_000, () =>
        this.#send(sent, deadline),
      );
      if (response.ok) return response;
      const { status, headers } = response;
      const error = errorOfBody(
        await deadline.within(this.settings.silence_seconds * 1_000, () => errorText(response)),
      );
      const mayAdapt = (status === 400 || status === 422) && adapted < MAX_ADAPTATIONS;
      const refused = mayAdapt ? refusalOf(error, sent) : undefined;
      if (refused === undefined) throw responseFault(status, error, retryAfterOf(headers));
      learn(refused, this.#adaptations, adaptations);
      const { name: endpoint, model } = this.address;
      this.#deps.logger.warn(
        { endpoint, model, parameter: refused.name, code: error.code },
        'model endpoint refuses a parameter',
      );
    }
  }

  #send(body: Fields, { signal }: ReadDeadline): Promise<Response> {
    const { traceParent } = this.#deps.tracing;
    return fetch(this.#url, {
      method: 'POST',
      headers: {
        accept: 'text/event-stream, application/json',
        'content-type': 'application/json',
        ...this.address.headers,
        ...(traceParent === undefined ? {} : { traceparent: traceParent }),
      },
      body: JSON.stringify(body),
      redirect: 'manual',
      signal,
    });
  }

  async *#read(response: Response, reader: ReplyReader, deadline: ReadDeadline): AsyncGenerator<TextPiece, void> {
    if (response.headers.get('content-type')?.includes('text/html')) throw NO_REPLY();
    const body = response.body?.getReader();
    if (!body) throw NO_REPLY();
    const pace = new Pace(this.#deps.clock, this.settings);
    let bytes = 0;
    const read = async () => {
      const { value } = await deadline.within(pace.allowedMs(reader.finished), () => body.read());
      bytes += value?.byteLength ?? 0;
      if (bytes > this.settings.response_bytes) throw TOO_LARGE();
      return value;
    };
    try {
      const isStream = !response.headers.get('content-type')?.includes('application/json');
      for await (const event of bodyEvents(read)) {
        if (event === 'done') {
          yield reader.end(true);
          return;
        }
        const pieces = reader.append(event.json, !isStream);
        pace.event(pieces.text !== '');
        // No deadline runs here, so that the time of the consumer does not count as time of the model.
        if (pieces.text !== '' || pieces.reasoning !== '') yield pieces;
        if (reader.full) return;
      }
      yield reader.end(false);
    } finally {
      await body.cancel().catch(() => undefined);
    }
  }
}

const SILENT = () => new ModelFault('the model response timed out', { reason: 'timeout', retryable: true });
const TOO_LARGE = () => new ModelFault('the response was too large', { reason: 'too_large', retryable: false });
const NO_REPLY = () => new ModelFault('the model sent no reply', { reason: 'invalid', retryable: false });

/** How long the next read may take: until the first event, between two reads, and after the end of the reply. */
class Pace {
  readonly #clock: Clock;
  readonly #settings: ModelSettings;
  #begun = false;
  /** When the reply ended, unless text followed. */
  #finishedAt: number | undefined;

  constructor(clock: Clock, settings: ModelSettings) {
    this.#clock = clock;
    this.#settings = settings;
  }

  event(hasText: boolean): void {
    this.#begun = true;
    if (hasText) this.#finishedAt = undefined;
  }

  /** Bytes of any kind are a sign of life, so the limit starts anew with each read; not after the end of the reply. */
  allowedMs(finished: boolean): number {
    const { first_chunk_seconds, silence_seconds, end_seconds } = this.#settings;
    if (!finished) return 1_000 * (this.#begun ? silence_seconds : first_chunk_seconds);
    this.#finishedAt ??= this.#clock.now();
    return Math.max(0, this.#finishedAt + 1_000 * end_seconds - this.#clock.now());
  }
}

/** Limits the time of single operations by one signal, which also ends the request. */
class ReadDeadline {
  readonly signal: AbortSignal;
  readonly #clock: Clock;
  readonly #exceeded = new AbortController();

  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock;
    this.signal = AbortSignal.any([signal, this.#exceeded.signal]);
  }

  get exceeded(): boolean {
    return this.#exceeded.signal.aborted;
  }

  async within<T>(limitMs: number, operation: () => Promise<T>): Promise<T> {
    const cancel = this.#clock.after(limitMs, () => this.#exceeded.abort());
    try {
      return await operation();
    } finally {
      cancel();
    }
  }

  /** Ends the request. */
  end(): void {
    this.#exceeded.abort();
  }
}

async function errorText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const bytes of response.body ?? []) {
    text += decoder.decode(bytes, { stream: true });
    if (text.length > ERROR_BYTES) break;
  }
  return text;
}

/** Converts an error of `fetch` to one that is safe to log: its messages can contain host and key. */
function faultOf(thrown: unknown): ModelFault {
  if (thrown instanceof ModelFault) return thrown;
  // `fetch` fails with a TypeError; its cause tells the phase.
  const cause = thrown instanceof TypeError ? thrown.cause : undefined;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const unreachable = /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT)$/.test(
    code,
  );
  if (unreachable)
    return new ModelFault('the model could not be reached', { reason: 'unreachable', retryable: true, code });
  return new ModelFault('the response was interrupted', { reason: 'interrupted', retryable: true });
}

function retryAfterOf(headers: Headers): number | undefined {
  return parseRetryAfter(headers.get('retry-after'), Date.now(), MAX_RETRY_AFTER_MS);
}
