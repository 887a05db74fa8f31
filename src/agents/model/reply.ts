import { z } from 'zod';
import type { ModelCall, ModelStep, Tokens } from '../../runs/step-log.ts';

/** Failure of one request to a model. The message is safe to log: it contains no host, key or text. */
export class ModelFault extends Error {
  /** Whether a repetition of the same request may succeed. */
  readonly retryable: boolean;
  /** Milliseconds to wait before a retry, from `Retry-After`. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, options: { readonly retryable: boolean; readonly retryAfterMs?: number | undefined }) {
    super(message);
    this.name = 'ModelFault';
    this.retryable = options.retryable;
    this.retryAfterMs = options.retryAfterMs;
  }
}

export interface ModelReply extends ModelStep {
  readonly tokens: Tokens;
}

export interface ReplyLimits {
  /** Maximum characters of text. Longer text is cut off, and the reply ends there. */
  readonly textLength: number;
  /** Maximum tool calls per step; further ones are dropped. */
  readonly calls: number;
  /** Maximum characters of the arguments of one call. Longer arguments are cut, which makes them invalid JSON. */
  readonly argumentsLength: number;
}

const MAX_NAME_LENGTH = 64;
const MAX_ID_LENGTH = 64;
/** Common estimate for English text; other languages have more tokens per byte. */
const BYTES_PER_TOKEN = 4;

const CallDelta = z.object({
  /** Some servers omit the index; each delta is then a complete call. */
  index: z.number().int().min(0).optional(),
  id: z.string().nullish(),
  function: z.object({ name: z.string().nullish(), arguments: z.string().nullish() }).nullish(),
});
type CallDelta = z.infer<typeof CallDelta>;

const Choice = z.object({
  delta: z.object({ content: z.string().nullish(), tool_calls: z.array(CallDelta).nullish() }).nullish(),
  finish_reason: z.string().nullish(),
});

/**
 * Far larger than any context window. Multiplied by the highest price it is still an exact integer, as units must be.
 */
const MAX_TOKENS = 1_000_000_000;
const TokenCount = z.number().int().min(0).max(MAX_TOKENS);

/** Fields that are read from a `chat.completion.chunk`; all others are ignored. */
const Chunk = z.object({
  choices: z.array(Choice).nullish(),
  usage: z.object({ prompt_tokens: TokenCount, completion_tokens: TokenCount }).nullish(),
});

interface PartialCall {
  readonly index: number;
  id: string;
  name: string;
  arguments: string;
}

/** Assembles a streamed reply within the bounds of `ReplyLimits`. */
export class ReplyReader {
  readonly #limits: ReplyLimits;
  readonly #calls: PartialCall[] = [];
  /** Latest call per index that the model assigned. */
  readonly #open = new Map<number, PartialCall>();
  #text = '';
  #finished = false;
  #usage: { readonly input: number; readonly output: number } | undefined;

  constructor(limits: ReplyLimits) {
    this.#limits = limits;
  }

  /** True when the text has its maximum length, so that later chunks are not needed. */
  get full(): boolean {
    return this.#text.length >= this.#limits.textLength;
  }

  /** True after a `finish_reason`. Only the token counts may still follow. */
  get finished(): boolean {
    return this.#finished;
  }

  /** Adds a chunk and returns its text. @throws ModelFault for an invalid chunk */
  append(chunk: unknown): string {
    const parsed = Chunk.safeParse(chunk);
    if (!parsed.success) throw new ModelFault('the model sent an invalid chunk', { retryable: true });
    const { choices, usage } = parsed.data;
    if (usage) this.#usage = { input: usage.prompt_tokens, output: usage.completion_tokens };
    const [choice] = choices ?? [];
    if (!choice) return '';
    if (choice.finish_reason) this.#finished = true;
    for (const delta of choice.delta?.tool_calls ?? []) this.#appendCall(delta);
    const text = (choice.delta?.content ?? '').slice(0, this.#limits.textLength - this.#text.length);
    this.#text += text;
    return text;
  }

  /** Returns the complete reply. @throws ModelFault for an incomplete or empty reply */
  reply(requestBytes: number): ModelReply {
    if (!this.#finished && !this.full) throw new ModelFault('the reply ended early', { retryable: true });
    const calls = this.#completeCalls();
    if (calls.length === 0 && this.#text.trim() === '')
      throw new ModelFault('the reply was empty', { retryable: true });
    return { text: this.#text.toWellFormed(), calls, tokens: this.tokens(requestBytes) };
  }

  /** Returns the counts of the model, else an estimate from the bytes of request and reply. */
  tokens(requestBytes: number): Tokens {
    if (this.#usage) return { ...this.#usage, estimated: false };
    const args = this.#calls.reduce((bytes, call) => bytes + Buffer.byteLength(call.arguments), 0);
    const replied = Buffer.byteLength(this.#text) + args;
    return {
      input: Math.ceil(requestBytes / BYTES_PER_TOKEN),
      output: Math.ceil(replied / BYTES_PER_TOKEN),
      estimated: true,
    };
  }

  #appendCall({ index, id, function: called }: CallDelta): void {
    const call = this.#callOf(index, id);
    if (!call) return;
    if (id && call.id === '') call.id = id.slice(0, MAX_ID_LENGTH);
    call.name = (call.name + (called?.name ?? '')).slice(0, MAX_NAME_LENGTH);
    call.arguments = (call.arguments + (called?.arguments ?? '')).slice(0, this.#limits.argumentsLength);
  }

  /** Returns the call that a delta belongs to; undefined for a call above the limit. */
  #callOf(index: number | undefined, id: string | null | undefined): PartialCall | undefined {
    const existing = index === undefined ? undefined : this.#open.get(index);
    // Some servers send all calls of a reply with the same index. Their ids differ, and they arrive one after another.
    const another = id && existing && existing.id !== '' && existing.id !== id.slice(0, MAX_ID_LENGTH);
    if (existing && !another) return existing;
    if (this.#calls.length >= this.#limits.calls) {
      // Later deltas of the dropped call must not be added to the previous call with this index.
      if (index !== undefined) this.#open.delete(index);
      return undefined;
    }
    const call = { index: index ?? this.#calls.length, id: '', name: '', arguments: '' };
    this.#calls.push(call);
    this.#open.set(call.index, call);
    return call;
  }

  /**
   * Returns the calls in the order of their index. Replaces missing and duplicate ids, because ids identify the
   * results.
   */
  #completeCalls(): ModelCall[] {
    const named = this.#calls.filter(({ name }) => name !== '').toSorted((a, b) => a.index - b.index);
    const ids = new Set(named.map(({ id }) => id));
    const usedIds = new Set<string>();
    let made = 0;
    const another = () => {
      do made += 1;
      while (ids.has(`call_${made}`));
      return `call_${made}`;
    };
    return named.map((call) => {
      const id = call.id === '' || usedIds.has(call.id) ? another() : call.id;
      usedIds.add(id);
      return { id, name: call.name, arguments: call.arguments };
    });
  }
}
