import type { ModelSettings } from '../../catalogue/model-settings.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { EndpointError } from './endpoint-errors.ts';
import type { ChatMessage, ToolDefinition } from './messages.ts';

export interface ModelRequest {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly ToolDefinition[];
  /** Forbids further tool calls, so that the model answers with the results it has. */
  readonly mustAnswer: boolean;
}

/** Parameters that a request can do without. */
const DISPENSABLE = [
  'stream_options',
  'temperature',
  'top_p',
  'reasoning_effort',
  'response_format',
  'parallel_tool_calls',
  'tool_choice',
] as const;
const OUTPUT_BOUNDS = ['max_tokens', 'max_completion_tokens'] as const;
type OutputBound = (typeof OUTPUT_BOUNDS)[number];
/** Fields of assistant messages that can stay away: strict endpoints refuse unknown fields. */
const MESSAGE_FIELDS = ['reasoning_content', 'reasoning', 'reasoning_details', 'thinking_blocks', 'extra_content'];
/** The bound itself is refused, not its name. */
const TOO_LARGE = /too large|at most|maximum|exceed|less than|must be (?:<=|below)/i;

/** Only the beginning of an error is searched for names: later words can repeat the user's message. */
const SEARCHED = 512;

/**
 * What an endpoint refused, as its errors named it. A request without the refused parameters is sent instead, at once
 * and from then on.
 */
export class Adaptations {
  readonly #refused: Set<string>;

  constructor(refused: Iterable<string> = []) {
    this.#refused = new Set(refused);
  }

  /** Returns a copy whose additions apply to one request. */
  copy(): Adaptations {
    return new Adaptations(this.#refused);
  }

  /** Applies all adaptations so far. */
  apply(body: Fields): Fields {
    const adapted: Record<string, unknown> = { ...body };
    for (const name of this.#refused) {
      if (!(name in adapted)) continue;
      const value = adapted[name];
      delete adapted[name];
      const other = OUTPUT_BOUNDS.find((bound) => isOutputBound(name) && !this.#refused.has(bound));
      if (other) adapted[other] = value;
    }
    const fields = MESSAGE_FIELDS.filter((field) => this.#refused.has(field));
    if (fields.length > 0) adapted.messages = (body.messages as readonly Fields[]).map((one) => without(one, fields));
    return adapted;
  }

  add(...names: readonly string[]): void {
    for (const name of names) this.#refused.add(name);
  }
}

export interface Refusal {
  /** The refused parameter. */
  readonly name: string;
  /** Whether only the value was refused, for this conversation: the room that it leaves for the reply. */
  readonly onlyNow: boolean;
}

/** Returns what an error refuses of a request; undefined if it names nothing that the request can do without. */
export function refusalOf(error: EndpointError, body: Fields): Refusal | undefined {
  const sent = [...DISPENSABLE, ...OUTPUT_BOUNDS].filter((name) => name in body);
  const fields = MESSAGE_FIELDS.filter((field) => (body.messages as readonly Fields[]).some((one) => field in one));
  const name = [...sent, ...fields].find((one) => isNamed(one, error));
  return name === undefined ? undefined : { name, onlyNow: isOutputBound(name) && TOO_LARGE.test(error.words) };
}

/** Adds a refusal to the adaptations of the request and, unless it depends on the conversation, of the endpoint. */
export function adapt({ name, onlyNow }: Refusal, ofEndpoint: Adaptations, ofRequest: Adaptations): void {
  // Another name for a bound that is too large would not help.
  if (onlyNow) ofRequest.add(...OUTPUT_BOUNDS);
  else for (const adaptations of [ofEndpoint, ofRequest]) adaptations.add(name);
}

function isOutputBound(name: string): name is OutputBound {
  return (OUTPUT_BOUNDS as readonly string[]).includes(name);
}

/** `param` is authoritative; otherwise the text contains the name as a word. */
function isNamed(name: string, { param, words }: EndpointError): boolean {
  const last = param?.split(/[.[\]]/).findLast((part) => part !== '');
  if (param !== undefined && (param === name || last === name || param.startsWith(`${name}.`))) return true;
  const isAbout = param === undefined || param === 'messages' || param.startsWith('messages');
  return isAbout && words.slice(0, SEARCHED).split(/[^\w]/).includes(name);
}

function without(message: Fields, fields: readonly string[]): Fields {
  const kept = (one: Fields) => Object.fromEntries(Object.entries(one).filter(([name]) => !fields.includes(name)));
  const calls = message.tool_calls;
  return Array.isArray(calls)
    ? { ...kept(message), tool_calls: calls.map((call) => kept(call as Fields)) }
    : kept(message);
}

/** Builds the body of a request with all settings of the endpoint. */
export function requestBody(
  model: string,
  { messages, tools, mustAnswer }: ModelRequest,
  settings: ModelSettings,
): Fields {
  const { temperature, top_p, reasoning_effort, response_format, parallel_tool_calls, output_parameter } = settings;
  const sampling = { temperature, top_p, reasoning_effort, response_format };
  return {
    ...settings.extra_body,
    model,
    messages: withInstructions(messages, settings.instructions_role),
    stream: true,
    ...(settings.stream_options ? { stream_options: { include_usage: true } } : {}),
    ...(output_parameter === 'none' ? {} : { [output_parameter]: settings.max_output_tokens }),
    ...Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined)),
    ...(tools.length > 0 ? { tools, tool_choice: mustAnswer ? 'none' : 'auto' } : {}),
    ...(tools.length > 0 && parallel_tool_calls !== undefined ? { parallel_tool_calls } : {}),
  };
}

function withInstructions(
  messages: readonly ChatMessage[],
  role: ModelSettings['instructions_role'],
): readonly ChatMessage[] {
  const [first, second, ...rest] = messages;
  if (first?.role !== 'system' || role === 'system') return messages;
  if (role === 'developer') return [{ role, content: first.content }, ...messages.slice(1)];
  if (second?.role !== 'user' || typeof second.content !== 'string') return messages;
  return [{ role: 'user', content: `${first.content}\n\n${second.content}` }, ...rest];
}
