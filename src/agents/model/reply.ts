import type { Fields } from '../../protocol/messages.ts';
import type { ModelStep, Tokens } from '../../runs/step-log.ts';
import { type CallLimits, CallPieces } from './call-pieces.ts';
import { chunkFields, mergedBack, type TokenCounts, tokenCounts } from './chunk.ts';
import { errorIn, reportedFault } from './endpoint-errors.ts';
import { ModelFault } from './fault.ts';
import { asObject } from './json.ts';
import { afterLoneEnd, type TextPiece, ThinkingTags } from './thinking-tags.ts';

export interface ModelReply extends ModelStep {
  readonly tokens: Tokens;
}

export interface ReplyLimits extends CallLimits {
  /** Maximum characters of text. Longer text is cut off, and the reply ends there. */
  readonly textLength: number;
  /** Maximum characters of reasoning that is delivered and sent back; more is read and dropped. */
  readonly reasoningLength: number;
}

/** Common estimate for English text; other languages have more tokens per byte. */
const BYTES_PER_TOKEN = 4;
/** Maximum size of the fields of a message that go back to the model. */
const MAX_BACK_LENGTH = 131_072;
const NOTHING: TextPiece = { text: '', reasoning: '' };

type Finish = 'stop' | 'length' | 'content_filter' | 'error';
const FINISHES: readonly (readonly [RegExp, Finish])[] = [
  [/^(model_|max_output_)?length$|^max_(output_|completion_)?tokens$/i, 'length'],
  [/filter|^safety$|^sensitive$|^recitation$|^refusal$|^blocklist$|^prohibited_content$/i, 'content_filter'],
  [/error|^abort(ed)?$|^insufficient_system_resource$|^malformed_function_call$/i, 'error'],
];

/** Assembles a streamed reply within the bounds of `ReplyLimits`. Fields that cannot be read count as missing. */
export class ReplyReader {
  readonly #limits: ReplyLimits;
  readonly #calls: CallPieces;
  readonly #tags = new ThinkingTags();
  #text = '';
  #reasoningLength = 0;
  #refused = false;
  #back: Fields = {};
  #backLength = 0;
  #finish: Finish | undefined;
  #ended = false;
  #counts: TokenCounts = { input: undefined, output: undefined };

  /** @param tools names of the tools that the request offers */
  constructor(limits: ReplyLimits, tools: ReadonlySet<string> = new Set()) {
    this.#limits = limits;
    this.#calls = new CallPieces(limits, tools);
  }

  /** True when the text has its maximum length, so that later chunks are not needed. */
  get full(): boolean {
    return this.#text.length >= this.#limits.textLength;
  }

  /** True after a `finish_reason`. Token counts may follow, and from some endpoints further text. */
  get finished(): boolean {
    return this.#finish !== undefined;
  }

  /** Number of calls above all bounds, which are not refused one by one. */
  get droppedCalls(): number {
    return this.#calls.dropped;
  }

  /**
   * Adds a chunk and returns its text and reasoning.
   * @param whole whether it is a whole body instead of one event of a stream
   * @throws ModelFault for an error in it
   */
  append(chunk: unknown, whole = false): TextPiece {
    const fields = asObject(chunk);
    const error = errorIn(chunk);
    if (error) throw reportedFault(error, !whole);
    if (!fields) return NOTHING;
    const counts = tokenCounts(fields);
    if (counts) this.#counts = { ...this.#counts, ...counts };
    const given = chunkFields(fields);
    if (!given) return NOTHING;
    if (given.finish !== undefined) {
      const named = FINISHES.find(([pattern]) => pattern.test(given.finish ?? ''))?.[1] ?? 'stop';
      // A stop after a cut is the end of the stream, not of the text.
      if (this.#finish === undefined || named !== 'stop') this.#finish = named;
    }
    for (const piece of given.calls) this.#calls.append(piece);
    this.#addBack(given.back);
    this.#refused ||= given.refusal !== '';
    const content = this.#tags.append(given.text + given.refusal);
    return this.#bounded({ text: content.text, reasoning: given.reasoning + content.reasoning });
  }

  /**
   * Marks the end of the body and returns what was held back of the text.
   * @param sentinel whether the endpoint has marked the reply as complete (`[DONE]`)
   */
  end(sentinel: boolean): TextPiece {
    this.#ended = true;
    if (sentinel) this.#finish ??= 'stop';
    return this.#bounded(this.#tags.flush());
  }

  /** Returns the complete reply. @throws ModelFault for a reply that is incomplete, or has neither text nor calls */
  reply(requestBytes: number): ModelReply {
    const text = afterLoneEnd(this.#text).toWellFormed();
    const finish = this.full ? 'length' : this.#finish;
    const calls = this.#calls.complete(finish !== 'stop');
    if (finish === 'error') throw noReply('the model ended the reply with an error', 'error', true);
    if (finish === undefined && !(this.#ended && isWhole(text, calls))) {
      throw noReply('the reply ended early', 'interrupted', true);
    }
    if (calls.length === 0 && text.trim() === '') throw emptyReply(finish);
    const cut = this.#refused ? 'refusal' : finish;
    return {
      text,
      calls,
      tokens: this.tokens(requestBytes),
      ...(Object.keys(this.#back).length > 0 ? { back: this.#back } : {}),
      ...(cut === undefined || cut === 'stop' ? {} : { finish: cut }),
    };
  }

  /** Returns the counts of the model; each missing one is estimated from the bytes of request and reply. */
  tokens(requestBytes: number): Tokens {
    const { input, output } = this.#counts;
    const replied = Buffer.byteLength(this.#text) + this.#reasoningLength + this.#calls.bytes;
    return {
      input: input ?? Math.ceil(requestBytes / BYTES_PER_TOKEN),
      output: output ?? Math.ceil(replied / BYTES_PER_TOKEN),
      estimated: input === undefined || output === undefined,
    };
  }

  #bounded({ text, reasoning }: TextPiece): TextPiece {
    const kept = text.slice(0, this.#limits.textLength - this.#text.length);
    const thought = reasoning.slice(0, Math.max(0, this.#limits.reasoningLength - this.#reasoningLength));
    this.#text += kept;
    this.#reasoningLength += reasoning.length;
    return { text: kept, reasoning: thought };
  }

  #addBack(back: Fields): void {
    if (Object.keys(back).length === 0) return;
    this.#backLength += JSON.stringify(back).length;
    if (this.#backLength <= MAX_BACK_LENGTH) this.#back = mergedBack(this.#back, back);
  }
}

/** Whether a reply that only the end of the body ended is complete: it has text, and no call that may be cut. */
function isWhole(text: string, calls: ModelStep['calls']): boolean {
  if (calls.length === 0) return text.trim() !== '';
  return calls.every(({ arguments: json, problem }) => problem === undefined && json.trim() !== '');
}

function emptyReply(finish: Finish | undefined): ModelFault {
  if (finish === 'length') return noReply('the output bound ended the reply before its text', 'length', false);
  if (finish === 'content_filter') return noReply('a content filter ended the reply', 'content_filter', false);
  return noReply('the reply was empty', 'empty', true);
}

function noReply(message: string, reason: ModelFault['reason'], retryable: boolean): ModelFault {
  return new ModelFault(message, { reason, retryable });
}
