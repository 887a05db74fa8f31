import type { Fields } from '../../protocol/messages.ts';
import { asList, asNumber, asObject, asText } from './json.ts';

/** The fields of a `chat.completion.chunk`, or of a whole `chat.completion`, that are read. All others are ignored. */
export interface ChunkFields {
  readonly text: string;
  readonly reasoning: string;
  readonly refusal: string;
  /** Elements of `tool_calls`. */
  readonly calls: readonly unknown[];
  readonly finish: string | undefined;
  /** Fields of the message that go back to the model with the next request. */
  readonly back: Fields;
}

/** Fields of a message that models need back unchanged: signatures and structured reasoning. */
const BACK = ['reasoning_details', 'thinking_blocks', 'extra_content', 'provider_specific_fields'];
/** Fields of a message that hold reasoning. Some endpoints send the same text in two of them. */
const REASONING = ['reasoning_content', 'reasoning', 'thinking'];
const MAX_DEPTH = 8;

export function chunkFields(chunk: Fields): ChunkFields | undefined {
  // More than one choice is never requested.
  const choices = asList(chunk.choices).map(asObject);
  const choice = choices.find((one) => one && (asNumber(one.index) ?? 0) === 0);
  if (!choice) return undefined;
  const message = asObject(choice.delta) ?? asObject(choice.message) ?? {};
  const legacy = asObject(message.function_call);
  const content = contentText(message.content ?? choice.text, 0);
  return {
    text: content.text,
    reasoning: REASONING.map((field) => asText(message[field])).find((text) => text) ?? content.reasoning,
    refusal: asText(message.refusal) ?? '',
    calls: legacy ? [{ function: legacy }] : asList(message.tool_calls),
    finish: asText(choice.finish_reason) || undefined,
    back: backOf(message),
  };
}

/** Returns text and reasoning of a `content`: a text, or a list of pieces, each with a text or a list of its own. */
function contentText(content: unknown, depth: number): { readonly text: string; readonly reasoning: string } {
  if (typeof content === 'string') return { text: content, reasoning: '' };
  if (typeof content === 'number') return { text: String(content), reasoning: '' };
  if (depth > MAX_DEPTH) return { text: '', reasoning: '' };
  const pieces = asList(content).map((part) => {
    if (typeof part === 'string') return { text: part, reasoning: '' };
    const fields = asObject(part) ?? {};
    const thinking = fields.thinking ?? fields.reasoning;
    const inner = contentText(thinking ?? fields.text ?? fields.content, depth + 1);
    const isReasoning = thinking !== undefined || /thinking|reasoning/.test(asText(fields.type) ?? '');
    return isReasoning ? { text: '', reasoning: inner.text + inner.reasoning } : inner;
  });
  return {
    text: pieces.map(({ text }) => text).join(''),
    reasoning: pieces.map(({ reasoning }) => reasoning).join(''),
  };
}

function backOf(message: Fields): Fields {
  const kept = BACK.filter((field) => message[field] !== undefined && message[field] !== null);
  const reasoning = REASONING.find((field) => asText(message[field]));
  const back = Object.fromEntries(kept.map((field) => [field, message[field]]));
  return reasoning === undefined ? back : { ...back, [reasoning]: message[reasoning] };
}

/** Adds the fields of a later chunk: texts and lists are continued, everything else is replaced. */
export function mergedBack(earlier: Fields, later: Fields): Fields {
  const merged: Record<string, unknown> = { ...earlier };
  for (const [field, value] of Object.entries(later)) {
    const before = merged[field];
    if (typeof before === 'string' && typeof value === 'string') merged[field] = before + value;
    else if (Array.isArray(before) && Array.isArray(value)) merged[field] = value.reduce(withPart, before);
    else merged[field] = asObject(before) && asObject(value) ? { ...asObject(before), ...asObject(value) } : value;
  }
  return merged;
}

/** Fields of a part whose texts are continued by the next piece of the same part. */
const CONTINUED = new Set(['text', 'thinking', 'summary', 'data']);

/** Adds a part to a list, or continues the last one, if type and index are the same and it has no signature yet. */
function withPart(pieces: readonly unknown[], value: unknown): unknown[] {
  const [last, part] = [asObject(pieces.at(-1)), asObject(value)];
  const continues = last && part && last.type === part.type && last.index === part.index && !last.signature;
  if (!continues) return [...pieces, value];
  const joined = Object.entries(part).map(([field, given]): [string, unknown] => {
    const before = last[field];
    const isText = CONTINUED.has(field) && typeof before === 'string' && typeof given === 'string';
    return [field, isText ? before + given : (given ?? before)];
  });
  return [...pieces.slice(0, -1), { ...last, ...Object.fromEntries(joined) }];
}

export interface TokenCounts {
  readonly input: number | undefined;
  readonly output: number | undefined;
}

/**
 * Far larger than any context window. Multiplied by the highest price it is still an exact integer, as units must be.
 */
const MAX_TOKENS = 1_000_000_000;
const INPUT = ['prompt_tokens', 'input_tokens', 'promptTokens', 'prompt_eval_count'];
const OUTPUT = ['completion_tokens', 'output_tokens', 'completionTokens', 'eval_count'];

/** Returns the readable token counts of a chunk; undefined when it has none. */
export function tokenCounts(chunk: Fields): TokenCounts | undefined {
  const choice = asObject(asList(chunk.choices)[0]);
  const candidates = [chunk.usage, choice?.usage, asObject(chunk.x_groq)?.usage].map(asObject);
  for (const usage of candidates) {
    if (!usage) continue;
    const counts = { input: countIn(usage, INPUT), output: countIn(usage, OUTPUT) };
    if (counts.input !== undefined || counts.output !== undefined) return counts;
  }
  return undefined;
}

function countIn(usage: Fields, names: readonly string[]): number | undefined {
  const counts = names.map((name) => asNumber(usage[name]));
  const count = counts.find((value) => value !== undefined && value >= 0 && value <= MAX_TOKENS);
  return count === undefined ? undefined : Math.ceil(count);
}
