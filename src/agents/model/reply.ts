import { z } from 'zod';
import type { ModelCall, ModelStep, Tokens } from '../../runs/step-log.ts';

/** What went wrong with one request to a model. The message is for the log and names no host, key or text. */
export class ModelFault extends Error {
  /** Whether the same request may succeed when it is made again. */
  readonly retryable: boolean;
  /** Milliseconds that the endpoint asked to wait. */
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
  /** Characters of text; what goes beyond is cut off, and the reply ends there. */
  readonly textLength: number;
  /** Tool calls of one step; further ones are left out. */
  readonly calls: number;
  /** Characters of one call's arguments; longer ones are cut, so that they are no JSON any more. */
  readonly argumentsLength: number;
}

const MAX_NAME_LENGTH = 64;
const MAX_ID_LENGTH = 64;
/** A common rule of thumb for English text; others have more tokens for their bytes. */
const BYTES_PER_TOKEN = 4;

const CallDelta = z.object({
  /** Some servers leave it out: each delta is then a whole call. */
  index: z.number().int().min(0).optional(),
  id: z.string().nullish(),
  function: z.object({ name: z.string().nullish(), arguments: z.string().nullish() }).nullish(),
});
type CallDelta = z.infer<typeof CallDelta>;

const Choice = z.object({
  delta: z.object({ content: z.string().nullish(), tool_calls: z.array(CallDelta).nullish() }).nullish(),
  finish_reason: z.string().nullish(),
});

/** Far beyond any context. With the greatest price it stays an exact integer, as the ledger wants its units. */
const MAX_TOKENS = 1_000_000_000;
const TokenCount = z.number().int().min(0).max(MAX_TOKENS);

/** What is read of a `chat.completion.chunk`; everything else in it is ignored. */
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

/** Puts the pieces of a streamed reply together, within bounds. */
export class ReplyReader {
  readonly #limits: ReplyLimits;
  readonly #calls: PartialCall[] = [];
  /** By the index that they have at the model. */
  readonly #open = new Map<number, PartialCall>();
  #text = '';
  #finished = false;
  #usage: { readonly input: number; readonly output: number } | undefined;

  constructor(limits: ReplyLimits) {
    this.#limits = limits;
  }

  /** The text is as long as it may be: nothing that still comes is of use. */
  get full(): boolean {
    return this.#text.length >= this.#limits.textLength;
  }

  /** The model has said that it is done; what may still come is what it counted. */
  get finished(): boolean {
    return this.#finished;
  }

  /** Takes a chunk, and gives the text that it added. @throws ModelFault for what is no chunk */
  append(chunk: unknown): string {
    const parsed = Chunk.safeParse(chunk);
    if (!parsed.success) throw new ModelFault('the model sent a chunk of another form', { retryable: true });
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

  /** @throws ModelFault for a reply that ended before its end, or says nothing */
  reply(requestBytes: number): ModelReply {
    if (!this.#finished && !this.full) throw new ModelFault('the reply ended early', { retryable: true });
    const calls = this.#completeCalls();
    if (calls.length === 0 && this.#text.trim() === '')
      throw new ModelFault('the reply was empty', { retryable: true });
    return { text: this.#text.toWellFormed(), calls, tokens: this.tokens(requestBytes) };
  }

  /** What the model counted, else an estimate from the bytes on both sides. */
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

  /** The call that a delta belongs to; undefined for one too many. */
  #callOf(index: number | undefined, id: string | null | undefined): PartialCall | undefined {
    const existing = index === undefined ? undefined : this.#open.get(index);
    // Some servers give all calls of a reply the same index. Those have an id each, and come one after the other.
    const another = id && existing && existing.id !== '' && existing.id !== id.slice(0, MAX_ID_LENGTH);
    if (existing && !another) return existing;
    if (this.#calls.length >= this.#limits.calls) {
      // What still comes of it is not for the one before.
      if (index !== undefined) this.#open.delete(index);
      return undefined;
    }
    const call = { index: index ?? this.#calls.length, id: '', name: '', arguments: '' };
    this.#calls.push(call);
    this.#open.set(call.index, call);
    return call;
  }

  /** In the order of their index. An id that is missing or stands twice is replaced: results are told apart by it. */
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
